"""One run of a training verb: its folder, lock, log, configuration, checkpoints, loggers and end."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, cast

import lightning.pytorch as pl
import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from lightning.pytorch.loggers.logger import Logger
from omegaconf import DictConfig, OmegaConf

from disback_cli.configuration import discovery, runfolder
from disback_cli.configuration.arguments import with_absolute_places
from disback_cli.configuration.discovery import CONFIG_FILE
from disback_cli.configuration.entry import remove_if_empty, user_error_behind
from disback_cli.configuration.jobs import LABEL_VARIABLE, SWEEP_VARIABLE
from disback_cli.errors import UserError
from disback_cli.files import write_bytes, write_json
from disback_cli.runtime.callbacks import Publish, Saving, Stopping, Telemetry, health_interval
from disback_cli.runtime.checkpoint import CheckpointStore
from disback_cli.runtime.csv_logger import CsvLogger
from disback_cli.runtime.launch import Launch
from disback_cli.runtime.loggers import RunIdentity, close_loggers
from disback_cli.runtime.logs import FILE_ONLY, set_up_logging
from disback_cli.runtime.progress import StageProgress
from disback_cli.runtime.signals import EXIT_CODES, StopRequest
from disback_cli.runtime.stage import Stage

log = logging.getLogger(__name__)

SUMMARY_FILE = "summary.json"
# A resumed run that changed one of these, or anything below it, would be neither the old run nor a new one. Of the
# optimiser, what its checkpoint brings back: a change would be told and have no effect.
FIXED_ON_RESUME = (
    "teacher", "dataset", "student", "noise", "objective", "schedule", "path", "seed", "batch_size",
    "nodes", "spacing", "share_draw", "fake", "fake_updates", "fake_samples", "pairs", "distance",
    "optimizer.betas", "optimizer.eps", "optimizer.weight_decay",
)  # fmt: skip


def process_rank() -> int:
    """Global rank of this process as its launcher says (torchrun, Lightning, srun), 0 for a process of its own."""
    environment = os.environ
    if "RANK" in environment:
        return int(environment["RANK"])
    if "LOCAL_RANK" in environment:
        return int(environment.get("NODE_RANK", "0")) * int(environment.get("WORLD_SIZE", "1")) + int(
            environment["LOCAL_RANK"]
        )
    # In an interactive allocation every process inherits SLURM_PROCID=0: that says nothing of ours.
    if environment.get("SLURM_JOB_NAME") in ("bash", "interactive"):
        return 0
    return int(environment.get("SLURM_PROCID", "0"))


@dataclass
class Session:
    """What a verb needs of its run.

    Attributes:
        verb: name of the verb.
        folder: the run's folder, absolute.
        config: the resolved configuration, plain containers.
        launch: devices and processes.
        store: the run's checkpoints.
        resume_from: the checkpoint to go on from, or None.
        main: whether this is the first process, which writes the files.
    """

    verb: str
    folder: Path
    config: dict[str, Any]
    launch: Launch
    store: CheckpointStore
    resume_from: Path | None
    main: bool
    loggers: list[Logger] = field(default_factory=list)
    working: bool = False

    def start_loggers(self) -> None:
        """CSV always, and what the configuration names."""
        sweep, label = os.environ.get(SWEEP_VARIABLE), os.environ.get(LABEL_VARIABLE)
        group = Path(sweep).name if sweep else None
        identity = RunIdentity(self.folder, self.verb, self.config, group, label or self.folder.name)
        self.loggers = [CsvLogger(self.folder / "metrics.csv"), *instantiate(self.config["logger"], identity)]

    def run(
        self, stage: Stage, telemetry: Telemetry, callbacks: Sequence[pl.Callback], also_save_at: frozenset[int]
    ) -> None:
        """Run a stage from where it stands to its end; a signal ends the process after saving.

        Args:
            stage: the stage.
            telemetry: collects the row; first of the callbacks.
            callbacks: the stage's own, run between telemetry and saving.
            also_save_at: iterations at which a checkpoint is wanted besides the regular ones.
        """
        settings = self.config["checkpoint"]
        check_every = health_interval(self.launch.device, telemetry.every)
        saving = Saving(self.store, settings["every"], also_save_at, check_every)
        stopping = Stopping(StopRequest(), saving)
        progress = StageProgress(self.verb, telemetry)
        # Order matters: numbers, then what adds to them, then the row, then the save that covers them, then the stop.
        ordered: list[pl.Callback] = [telemetry, *callbacks, progress, Publish(telemetry), saving, stopping]
        self.working = True
        trainer = self.launch.trainer(ordered, self.loggers)
        # AtomicCheckpointIO reads tensors and plain containers only; Lightning 2.5 has no argument that says so.
        trainer.fit(stage, ckpt_path=str(self.resume_from) if self.resume_from else None)
        if stopping.stopped_by:
            self._leave(stage, stopping.stopped_by)
        if stage.iteration < stage.iterations:
            raise RuntimeError(f"the loop ended at iteration {stage.iteration} of {stage.iterations}")

    def _leave(self, stage: Stage, number: int) -> NoReturn:
        """Saved after a signal: say how to go on, and exit as a process does that the signal ended."""
        log.info(
            "stopped by %s after iteration %d and saved; go on with: disback %s resume=%s",
            "SIGINT" if EXIT_CODES.get(number) == 130 else "SIGTERM", stage.iteration, self.verb, self.folder,
        )  # fmt: skip
        # Lightning kills the first process when another one ends with an error; only the first tells the world.
        raise SystemExit(EXIT_CODES.get(number, 1) if self.main else 0)

    def write_summary(self, summary: dict[str, Any]) -> None:
        """``summary.json``: what was asked, what came out, what it cost."""
        if self.main:
            write_json(self.folder / SUMMARY_FILE, {"verb": self.verb, "folder": str(self.folder), **summary})


@contextmanager
def open_session(cfg: DictConfig, verb: str) -> Iterator[Session]:
    """Enter the run's folder: lock it, note its state, set up logging, find the checkpoint to go on from.

    Raises:
        UserError: the folder is in use, its checkpoints are all damaged, or the configuration cannot be resumed with.
    """
    folder = Path(HydraConfig.get().runtime.output_dir).absolute()
    config = _plain(cfg)
    rank = process_rank()
    main = rank == 0
    fresh = not folder.exists() or not any(folder.iterdir())
    before = runfolder.read(folder)
    lock = None
    failed = True
    session = None
    try:
        launch: Launch = instantiate(cfg.trainer)
        launch.require_divisible(cfg.batch_size)
        lock = runfolder.lock(folder) if main else None
        set_up_logging(folder / f"{verb}.log", rank)
        store = CheckpointStore(folder / "checkpoints", cfg.checkpoint.keep)
        resume_from = _enter(folder, verb, config, store) if main else _checkpoint(cfg.resume, store)
        session = Session(verb, folder, config, launch, store, resume_from, main)
        session.start_loggers()
        yield session
        _note_state(folder, "finished", main)
        failed = False
    except (SystemExit, KeyboardInterrupt):
        _note_state(folder, "interrupted", main)
        raise
    except BaseException as error:
        mistake = user_error_behind(error)
        # Whoever catches it prints it; the log file, if there is one yet, must have it too.
        if session is not None:
            log.error("%s: %s", type(error).__name__, mistake or error, extra=FILE_ONLY)
        if mistake is None or (session is not None and session.working):
            _note_state(folder, "failed", main)
        elif main:
            _forget_refused(folder, fresh, before)
        raise
    finally:
        if session is not None and main:
            close_loggers(session.loggers, failed)
        if lock is not None:
            lock.release()


def _forget_refused(folder: Path, fresh: bool, before: runfolder.Run | None) -> None:
    """Refused before work started: leave nothing that could be resumed by mistake, and an older run as it was."""
    if before is not None:
        _note_state(folder, cast(runfolder.State, before.state), True)
    if fresh:
        shutil.rmtree(folder, ignore_errors=True)
        remove_if_empty(folder)


def _plain(cfg: DictConfig) -> dict[str, Any]:
    container = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    assert isinstance(container, dict)
    # A run that is continued from another folder must find what the defaults named.
    absolute: dict[str, Any] = with_absolute_places({str(key): value for key, value in container.items()})
    return absolute


def _note_state(folder: Path, state: runfolder.State, main: bool) -> None:
    if not main or runfolder.read(folder) is None:
        return
    try:
        runfolder.set_state(folder, state)
    except UserError as error:
        # On the way out after a failure that failure is what counts: a full disk has been reported already.
        if state == "finished":
            raise
        log.warning("could not note in %s that the run is %s: %s", folder, state, error)


def _enter(folder: Path, verb: str, config: dict[str, Any], store: CheckpointStore) -> Path | None:
    """Create the run or take it up again; returns the checkpoint to go on from."""
    for note in discovery.notes():
        log.info(note)
    for torn in (*folder.glob(".*.tmp"), *folder.glob("*/.*.tmp")):
        torn.unlink()  # of a process that was killed while it wrote; the lock says that nobody is writing now
    if runfolder.read(folder) is None or not config["resume"]:
        runfolder.create(folder, verb, config["teacher"]["name"], HydraConfig.get().overrides.task)
    else:
        _refuse_changes(folder / CONFIG_FILE, config)
        runfolder.set_state(folder, "running")
    text = yaml.safe_dump(config, sort_keys=False)
    write_bytes(folder / CONFIG_FILE, text.encode())
    log.info("run folder: %s", shown_path(folder))
    checkpoint = _checkpoint(config["resume"], store)
    if checkpoint is not None:
        log.info("going on from %s", shown_path(checkpoint))
    elif config["resume"]:
        log.info("no checkpoint there yet: starting at iteration 0")
    return checkpoint


def _checkpoint(resume: bool | str, store: CheckpointStore) -> Path | None:
    """The checkpoint that ``resume`` asks for: a file that was named, else the newest whole one."""
    if not resume:
        return None
    if isinstance(resume, str) and resume.endswith(".ckpt"):
        return store.verified(Path(resume).absolute())
    return store.newest_whole()


def _refuse_changes(saved: Path, config: dict[str, Any]) -> None:
    """Compare with the configuration the run was started with."""
    if not saved.is_file():
        return
    before = _flat(yaml.safe_load(saved.read_text()) or {})
    now = _flat(config)
    changed = [key for key in sorted(before.keys() | now.keys()) if before.get(key) != now.get(key)]
    for key in changed:
        if any(key == fixed or key.startswith(f"{fixed}.") for fixed in FIXED_ON_RESUME):
            raise UserError(
                f"{key} was {before.get(key)} when this run was started and is {now.get(key)} now; a resumed run "
                "cannot change it. Leave it as it was, or start a new run with resume=false."
            )
    shown = [f"{key}: {before.get(key)} -> {now.get(key)}" for key in changed if key != "resume"]
    if shown:
        log.info("changed since the run was started: %s", "; ".join(shown))


def _flat(node: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(node, dict):
        return {prefix: node}
    found: dict[str, Any] = {}
    for key, value in node.items():
        found.update(_flat(value, f"{prefix}.{key}" if prefix else str(key)))
    return found


def shown_path(path: Path) -> str:
    """A path as short as it can be typed from here."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
