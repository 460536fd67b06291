"""Jobs of the study: a command of ``disback`` each, in a folder of its own, run from a process that has all imports.

Importing torch and lightning takes longer than a short run in the plane. So one process imports everything once and
starts no thread; every job is a fork of it that does what ``disback`` does with the job's words: all numbers are the
same to the bit, only pictures are left out.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from disback_cli.files import write_json

SUMMARY, WORDS, FAILED, TIMES, LOG = "summary.json", "words.json", "failed.json", "times.json", "job.log"
DIVERGED = "not finite"  # what `disback` says when a loss or gradient is
_POLL_SECONDS = 0.02
_TAIL = 2000  # characters of a failed job's log that are kept beside its exit code
# What the verbs import when they work. Not the verbs themselves: each runs as __main__.
_IMPORTED = (
    "torch",
    "lightning.pytorch",
    "hydra",
    "torchmetrics",
    "matplotlib.backends.backend_agg",
    "matplotlib.figure",
    "disback_cli.distillation.backtracking",
    "disback_cli.distillation.path_recorder",
    "disback_cli.distillation.recording",
    "disback_cli.distillation.student_folder",
    "disback_cli.denoisers.gaussian_mixture",
    "disback_cli.denoisers.song_unet",
    "disback_cli.evaluation.callback",
    "disback_cli.reporting.curves",
    "disback_cli.reporting.pictures",
    "disback_cli.runtime.session",
    "disback_cli.verbs.common",
    "disback_cli.verbs.generators",
)


@dataclass(frozen=True)
class Job:
    """One run of the study.

    Attributes:
        name: its folder below the study's, unlike any other job's.
        words: what follows ``disback`` on the command line, the verb first; the run's folder is added.
        after: names of the jobs whose results it reads.
    """

    name: str
    words: tuple[str, ...]
    after: tuple[str, ...] = ()


def state(work: Path, job: Job) -> str:
    """``done``, ``diverged`` or ``open``: nothing there, of other words, killed, or failed for any other reason."""
    folder = work / job.name
    try:
        if tuple(json.loads((folder / WORDS).read_text())) != job.words:
            return "open"
    except (OSError, ValueError):
        return "open"
    if (folder / SUMMARY).is_file():
        return "done"
    return "diverged" if diverged(folder) else "open"


def diverged(folder: Path) -> bool:
    """Whether the job in this folder ended because its numbers were not finite."""
    failed = folder / FAILED
    return failed.is_file() and DIVERGED in json.loads(failed.read_text())["log"]


class ForkServer:
    """Runs jobs as forks of this process, so many at a time, one thread each.

    Args:
        work: the study's folder; absolute.
        at_a_time: jobs that run together.
        say: told a line now and then.
    """

    def __init__(self, work: Path, at_a_time: int, say: Callable[[str], None] = print) -> None:
        self.work, self.at_a_time, self.say = work, at_a_time, say
        self._running: dict[int, tuple[Job, float]] = {}
        self._stopped_by = 0

    def run(self, jobs: Sequence[Job], title: str) -> list[Job]:
        """Run what is open of ``jobs``; returns those that failed, but not those that only diverged: that is a result.

        Raises:
            SystemExit: SIGINT or SIGTERM came; the running jobs were ended, what is done stays done.
        """
        states = {job.name: state(self.work, job) for job in jobs}
        waiting = [job for job in jobs if states[job.name] == "open"]
        failed = []
        self.say(f"{title}: {len(jobs)} jobs, {len(jobs) - len(waiting)} of them already there")
        if waiting:
            self._import()
        done, began, said = 0, time.monotonic(), time.monotonic()
        before = {number: signal.signal(number, self._stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            while (waiting and not self._stopped_by) or self._running:
                while waiting and len(self._running) < self.at_a_time and not self._stopped_by:
                    self._start(waiting.pop(0))
                time.sleep(_POLL_SECONDS)
                for job, code in self._ended():
                    done += 1
                    if code and not self._stopped_by:
                        self._note_failure(job, code)
                        failed += [] if diverged(self.work / job.name) else [job]
                if time.monotonic() - said > 60:
                    said = time.monotonic()
                    rate = done / (said - began)
                    left = f"{(len(waiting) + len(self._running)) / rate / 60:.0f} min left" if rate else ""
                    self.say(f"  {title}: {len(waiting) + len(self._running)} to go, {left}")
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        if self._stopped_by:
            raise SystemExit(128 + self._stopped_by)
        return failed

    def _import(self) -> None:
        os.environ["OMP_NUM_THREADS"] = "1"
        _leave_out_pictures()
        for module in _IMPORTED:
            importlib.import_module(module)
        from hydra import compose, initialize_config_module

        with initialize_config_module("disback_cli.conf", version_base="1.3"):
            compose("backtrack", ["teacher=gmm_2d"])  # fills the caches of its parsers and plugins

    def _start(self, job: Job) -> None:
        folder = self.work / job.name
        for needed in job.after:
            if not (self.work / needed / SUMMARY).is_file():
                self.say(f"  {job.name} needs {needed}, which is not there")
                return
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        write_json(folder / WORDS, list(job.words))
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            _become(job, folder)
        self._running[pid] = (job, time.monotonic())

    def _ended(self) -> list[tuple[Job, int]]:
        found = []
        for pid in list(self._running):
            ended, status, used = os.wait4(pid, os.WNOHANG)
            if ended:
                job, began = self._running.pop(pid)
                folder = self.work / job.name
                shutil.rmtree(folder / "checkpoints", ignore_errors=True)
                wall, cpu = time.monotonic() - began, used.ru_utime + used.ru_stime
                write_json(folder / TIMES, {"wall": round(wall, 2), "cpu": round(cpu, 2)})
                found.append((job, os.waitstatus_to_exitcode(status)))
        return found

    def _note_failure(self, job: Job, code: int) -> None:
        text = (self.work / job.name / LOG).read_text(errors="replace")[-_TAIL:]
        write_json(self.work / job.name / FAILED, {"code": code, "log": text})
        self.say(f"  {job.name} ended with {code}: {(text.strip().splitlines() or [''])[-1]}")

    def _stop(self, number: int, _frame: FrameType | None) -> None:
        self._stopped_by = number
        for pid in self._running:
            os.kill(pid, signal.SIGTERM)


def _leave_out_pictures() -> None:
    """Scatter plots and curves of every single run would take longer than its training; no number depends on them."""
    from PIL import Image

    from disback_cli.reporting import curves, pictures

    pictures.scatter_image = lambda points, extent=None: Image.new("RGB", (1, 1))
    curves.draw_curves = lambda *_: None


def _become(job: Job, folder: Path) -> None:
    """In the fork: do what the command does, and end."""
    code = 1
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends its jobs
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        log = os.open(folder / LOG, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o644)
        for stream, number in ((os.open(os.devnull, os.O_RDONLY), 0), (log, 1), (log, 2)):
            os.dup2(stream, number)
        from disback_cli import cli

        words = [word.replace("{work}", str(folder.parents[len(Path(job.name).parts) - 1])) for word in job.words]
        sys.argv = ["disback", *words, f"hydra.run.dir={folder}"]
        code = cli.main()
    except SystemExit as left:
        code = left.code if isinstance(left.code, int) else int(left.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
