"""The default launcher of ``disback VERB -m``: every job of a sweep is a process of its own.

A job that uses several ranks starts them itself; were it run inside the sweep's process, every rank would run the whole
sweep again. A process per job also keeps device memory, seeds and loggers apart, and a failing job ends no other.
"""

# No `from __future__ import annotations` here: Hydra executes plugin modules before they are in sys.modules, where
# dataclasses look string annotations up.

import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from disback_cli.configuration import check, discovery, jobs, runfolder, sweeptable
from disback_cli.configuration.arguments import CommandLine, Override, assignment
from disback_cli.configuration.jobs import Job, JobRunner, SweepFailed
from disback_cli.configuration.noise_laws import shorthand
from disback_cli.configuration.searching import Search
from disback_cli.configuration.sweepreport import Sweep, outcome, remember
from disback_cli.errors import UserError
from disback_cli.files import write_json


@dataclass
class ProcessLauncherConf:
    """Options of ``hydra/launcher=process``."""

    _target_: str = "hydra_plugins.disback_launcher.ProcessLauncher"
    # jobs that run at the same time; with more than one, each gets an equal share of the visible GPUs
    jobs: int = 1
    # seconds after which a job is ended and counts as failed
    timeout: float | None = None
    # number of summary.json that says which job is best and that a search improves; null: the first swd_ or fid_
    metric: str | None = None


ConfigStore.instance().store(group="hydra/launcher", name="process", node=ProcessLauncherConf, provider="disback")


class _JobResult(JobReturn):
    """A result whose failure is raised without the line Hydra writes for each: the table has said it."""

    @property
    def return_value(self) -> Any:
        """The objective, or the failure raised."""
        if self.status == JobStatus.FAILED:
            raise self._return_value
        return self._return_value

    @return_value.setter
    def return_value(self, value: Any) -> None:
        self._return_value = value


# options of the sweep itself; the other hydra.* options of the command hold for every job
_OF_THE_SWEEP = ("hydra.mode", "hydra.run.dir", "hydra.sweep", "hydra/sweeper", "hydra.launcher", "hydra/launcher")


class ProcessLauncher(Launcher):
    """Starts ``python -m <verb module> <overrides>`` for every job and waits for all of them."""

    def __init__(self, jobs: int = 1, timeout: float | None = None, metric: str | None = None) -> None:
        if jobs < 1:
            raise UserError(f"hydra.launcher.jobs={jobs}: must be at least 1")
        if timeout is not None and timeout <= 0:
            raise UserError(f"hydra.launcher.timeout={timeout}: must be positive, or null for no limit")
        self.slots = jobs
        self.timeout = timeout
        self.metric = metric
        self.earlier: list[Job] = []  # of batches launched before this one

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what ``launch`` needs; called by Hydra."""
        self.hydra_context = hydra_context
        self.config = config
        # fixed now: its default name is a new one whenever a configuration is resolved in another process
        self.folder = Path(str(config.hydra.sweep.dir))
        words = [Override(str(word)) for word in OmegaConf.to_container(config.hydra.overrides.task) or []]
        params = config.hydra.sweeper.get("params") or {}
        self.swept = [word.key for word in words if word.several] + [str(key) for key in params]
        self.search = Search.of(config.hydra.sweeper, self.metric)
        logging.getLogger("optuna").setLevel(logging.WARNING)  # the table says what it would

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the jobs that are not done yet, print and write the table of all; called by Hydra's sweeper."""
        setup_globals()
        configs = [self._job_config(words, initial_job_idx + index) for index, words in enumerate(job_overrides)]
        batch = [
            self._job(tuple(words), initial_job_idx + index, config)
            for index, (words, config) in enumerate(zip(job_overrides, configs, strict=True))
        ]
        for note in discovery.notes() if not self.earlier else []:
            print(note)
        with runfolder.lock(self.folder):
            self._declare()
            waiting = [job for job in batch if not self._is_settled(job)]
            if len(waiting) < len(batch):
                print(f"{len(batch) - len(waiting)} of {len(batch)} jobs in {self.folder} are done already")
            runner = self._runner(batch, initial_job_idx)
            runner.run(waiting)
            self.earlier += batch
            sweeptable.write_csv(sweeptable.table(self.earlier, self.swept), self.folder)
        flags = _shared_flags()
        remember(Sweep(str(self.config.verb), self.folder, self.earlier, self.swept, self.metric, flags))
        if runner.interrupted is not None:
            again = f"disback {self.config.verb} -m hydra.sweep.dir={self.folder}"
            raise SweepFailed(f"the sweep was stopped; continue it with: {again}")
        return self._returns(batch, configs)

    def _runner(self, batch: Sequence[Job], first: int) -> JobRunner:
        known = [*self.earlier, *batch]
        total = max(first + len(batch), self.search.trials if self.search else 0)
        labels = sweeptable.labels(known, self.swept)
        return JobRunner(self.slots, self.timeout, total, labels, lambda job: outcome(job, self.metric))

    def _job_config(self, words: Sequence[str], number: int) -> DictConfig:
        """The checked configuration of a job: a mistake ends the sweep before its first job starts."""
        config = self.hydra_context.config_loader.load_sweep_config(self.config, list(words))
        with open_dict(config):
            config.hydra.job.id = str(number)
            config.hydra.job.num = number
            config.hydra.runtime.output_dir = str((self.folder / str(config.hydra.sweep.subdir)).absolute())
        HydraConfig.instance().set_config(config)  # for ${hydra:...} in the job's configuration
        try:
            check.check(config, str(self.config.verb))
            if self.search:
                self.search.require_measured(config)
        except UserError as error:
            raise UserError(f"job {number} ({' '.join(shorthand(words))}): {error}") from None
        return config

    def _job(self, words: tuple[str, ...], number: int, config: DictConfig) -> Job:
        folder = self.folder / str(config.hydra.sweep.subdir)
        status = runfolder.read_json(folder / jobs.STATUS_FILE)
        given = list(words)
        if status is not None and str(self.config.verb) in discovery.RESUMABLE:
            given = [word for word in given if Override(word).key != "resume"] + ["resume=auto"]
        general = [
            str(word)
            for word in OmegaConf.to_container(self.config.hydra.overrides.hydra) or []
            if not Override(str(word)).key.startswith(_OF_THE_SWEEP)
        ]
        command = [
            *_program(),
            *general,
            *given,
            assignment("hydra.run.dir", str(folder)),
            "hydra.mode=RUN",
            *_shared_flags(),
        ]
        return Job(number, words, folder, command)

    def _declare(self) -> None:
        """Write the sweep's words into its folder, or compare them with those of the sweep that is being continued."""
        words = [str(word) for word in OmegaConf.to_container(self.config.hydra.overrides.task) or []]
        file = self.folder / discovery.SWEEP_FILE
        stored = runfolder.read_json(file)
        if stored is None:
            own = [str(word) for word in OmegaConf.to_container(self.config.hydra.overrides.hydra) or []]
            own = [word for word in own if Override(word).key not in ("hydra.mode", "hydra.sweep.dir")]
            write_json(file, {"verb": str(self.config.verb), "overrides": words, "hydra": own})
            return
        stored_words = runfolder.texts(stored.get("overrides")) if isinstance(stored, dict) else None
        if stored_words is None:
            raise UserError(f"{file} cannot be read: it is damaged; give the sweep another hydra.sweep.dir")
        before = [str(stored.get("verb")), *stored_words]
        now = [str(self.config.verb), *words]
        if before != now:
            raise UserError(
                f"{self.folder} holds another sweep: disback {' '.join(before)} -m\n"
                f"continue it with: disback {before[0]} -m hydra.sweep.dir={self.folder}\n"
                "or give this one a folder of its own with hydra.sweep.dir="
            )

    def _is_settled(self, job: Job) -> bool:
        """Whether an earlier run of this sweep brought the job to its end; takes its state over.

        A search proposes its trials by what came out before, so in one a failed job stays as it is.
        """
        status = runfolder.read_json(job.folder / jobs.STATUS_FILE)
        if not isinstance(status, dict):
            return False
        same = runfolder.texts(status.get("overrides")) == job.overrides
        if self.search and not same:
            before = " ".join(runfolder.texts(status.get("overrides")) or ("other words",))
            raise UserError(
                f"job {job.number} of {self.folder} was run with {before}, "
                f"and now the search proposes {' '.join(job.overrides)}: it cannot be continued. Give a new one "
                "hydra.sweeper.sampler.seed=0, which makes it propose the same again, and a hydra.sweep.dir= of its own"
            )
        settled = (jobs.DONE, jobs.FAILED) if self.search else (jobs.DONE,)
        code, seconds = status.get("returncode"), status.get("seconds")
        if status.get("state") not in settled or not same or not isinstance(seconds, (int, float)):
            return False
        job.state, job.seconds = str(status["state"]), float(seconds)
        job.returncode = code if isinstance(code, int) else None
        return True

    def _returns(self, batch: Sequence[Job], configs: Sequence[DictConfig]) -> list[JobReturn]:
        failed = [job for job in batch if job.state != jobs.DONE]
        lines = [f"  job {job.number} {job.state}, see {job.log}" for job in failed]
        failure = SweepFailed("\n".join([f"{len(failed)} of {len(batch)} jobs are not done:", *lines]))
        if self.search:
            self.search.require_hope(self.earlier)
        returns: list[JobReturn] = []
        for job, config in zip(batch, configs, strict=True):
            result = _JobResult(overrides=list(job.overrides), cfg=config, working_dir=str(job.folder))
            result.status, result.return_value = JobStatus.COMPLETED, None
            if self.search:
                result.return_value = self.search.value(job, self.earlier)
            elif job.state != jobs.DONE:
                result.status, result.return_value = JobStatus.FAILED, failure
            returns.append(result)
        return returns


def _shared_flags() -> list[str]:
    """The flags that every job of the sweep has as well."""
    return [flag for flag in CommandLine.parse(sys.argv[1:]).flags if flag not in ("-m", "--multirun")]


def _program() -> list[str]:
    """How to start this verb again: the dispatcher ran it as a module, so ``__main__`` knows its name."""
    spec = sys.modules["__main__"].__spec__
    return [sys.executable, "-m", spec.name] if spec is not None else [sys.executable, sys.argv[0]]
