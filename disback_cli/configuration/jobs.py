"""Jobs of a sweep as processes: start, watch, end, and note in ``status.json`` what became of them."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from disback_cli.configuration import full_error, runfolder
from disback_cli.files import write_json

STATUS_FILE = "status.json"
LOG_FILE = "job.log"
# tell a job's loggers which sweep it belongs to, and what is its own in it
SWEEP_VARIABLE = "DISBACK_SWEEP"
LABEL_VARIABLE = "DISBACK_SWEEP_LABEL"
DONE, FAILED, INTERRUPTED, RUNNING = "done", "failed", "interrupted", "running"

# names of variables that would make a job believe it is a rank of this process's launch
_RANK_VARIABLES = ("LOCAL_RANK", "RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "NODE_RANK", "DISBACK_RUN_ID")
_RANK_PREFIXES = ("GROUP_", "ROLE_", "MASTER_", "TORCHELASTIC_")

_GRACE_SECONDS = 60.0  # between asking a job to end and ending it: it may be writing a checkpoint
_POLL_SECONDS = 0.05


class SweepFailed(Exception):
    """Some jobs of a sweep failed; the message names them and their logs."""


@dataclass
class Job:
    """One job of a sweep."""

    number: int
    overrides: tuple[str, ...]
    folder: Path
    command: Sequence[str]
    state: str = ""
    returncode: int | None = None
    seconds: float = 0.0

    @property
    def log(self) -> Path:
        """Where the job's output goes."""
        return self.folder / LOG_FILE

    def write_status(self) -> None:
        """Note state, exit code, overrides and seconds in the job's folder."""
        content = {
            "state": self.state,
            "returncode": self.returncode,
            "overrides": list(self.overrides),
            "seconds": round(self.seconds, 3),
        }
        write_json(self.folder / STATUS_FILE, content)


@dataclass
class _Process:
    job: Job
    popen: subprocess.Popen[bytes]
    slot: int
    started: float
    asked_to_end: float | None = None
    timed_out: bool = False


@dataclass
class JobRunner:
    """Runs jobs, at most ``slots`` at a time, each at most ``timeout`` seconds long."""

    slots: int = 1
    timeout: float | None = None
    total: int = 0
    labels: dict[int, str] = field(default_factory=dict)
    # what a finished job came to, for the line that says it is done
    outcome: Callable[[Job], str] = lambda _: ""
    interrupted: int | None = None
    _running: list[_Process] = field(default_factory=list)

    def run(self, jobs: Sequence[Job]) -> None:
        """Run all jobs to their end; after SIGINT or SIGTERM only those that are running already."""
        waiting = list(jobs)
        with self._signals_passed_on():
            while self._running or (waiting and self.interrupted is None):
                while waiting and self.interrupted is None and len(self._running) < self.slots:
                    self._start(waiting.pop(0))
                time.sleep(_POLL_SECONDS)
                for process in list(self._running):
                    self._look_at(process)

    def _start(self, job: Job) -> None:
        slot = min(set(range(self.slots)) - {process.slot for process in self._running})
        job.folder.mkdir(parents=True, exist_ok=True)
        job.state = RUNNING
        job.write_status()
        with job.log.open("ab") as log:
            popen = subprocess.Popen(
                job.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=job_environment(slot, self.slots, str(job.folder.parent), self.labels.get(job.number, "")),
                # a process group of its own: Ctrl-C reaches it once, through us, together with the ranks it starts
                start_new_session=True,
            )
        self._running.append(_Process(job, popen, slot, time.monotonic()))
        self._say(job, f"started, log: {job.log}")

    def _look_at(self, process: _Process) -> None:
        job = process.job
        job.seconds = time.monotonic() - process.started
        job.returncode = process.popen.poll()
        if job.returncode is not None:
            self._running.remove(process)
            job.state = self._end_state(process)
            job.write_status()
            came_to = self.outcome(job) if job.state == DONE else ""
            self._say(job, f"{job.state} after {job.seconds:.1f} s{self._reason(process)}{came_to and f'  {came_to}'}")
        elif process.asked_to_end is None and self.timeout is not None and job.seconds > self.timeout:
            process.timed_out = True
            self._ask_to_end(process, signal.SIGTERM)
        elif process.asked_to_end is not None and time.monotonic() - process.asked_to_end > _GRACE_SECONDS:
            _send(process.popen, signal.SIGKILL)

    def _end_state(self, process: _Process) -> str:
        run = runfolder.read(process.job.folder)
        if process.timed_out:
            return FAILED
        if process.asked_to_end is not None and (run is None or not run.finished):
            return INTERRUPTED
        if process.popen.returncode != 0:
            return FAILED
        # a run that was asked by someone else to stop saves itself and ends well, but is not done
        return DONE if run is None or run.finished else INTERRUPTED

    def _reason(self, process: _Process) -> str:
        if process.timed_out:
            return f" (longer than hydra.launcher.timeout={self.timeout:g})"
        return f" (exit code {process.job.returncode})" if process.job.returncode else ""

    def _say(self, job: Job, text: str) -> None:
        label = self.labels.get(job.number, "")
        print(f"job {job.number} ({job.number + 1}/{self.total}){'  ' + label if label else ''}  {text}", flush=True)

    def _ask_to_end(self, process: _Process, number: int) -> None:
        process.asked_to_end = process.asked_to_end or time.monotonic()
        _send(process.popen, number)

    @contextmanager
    def _signals_passed_on(self) -> Iterator[None]:
        """Pass SIGINT and SIGTERM on to the jobs; the second signal ends them at once."""

        def pass_on(number: int, _frame: FrameType | None) -> None:
            again = self.interrupted is not None
            self.interrupted = number
            for process in self._running:
                self._ask_to_end(process, signal.SIGKILL if again else number)

        before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _send(popen: subprocess.Popen[bytes], number: int) -> None:
    """Signal the job and the ranks it started, which are in its process group."""
    if popen.poll() is None:
        try:
            os.killpg(popen.pid, number)
        except ProcessLookupError:
            return


def job_environment(slot: int, slots: int, sweep: str = "", label: str = "") -> dict[str, str]:
    """The environment of a job: no trace of this process's own rank, a share of the machine if jobs run together."""
    environment = {
        name: value
        for name, value in full_error.user_environment().items()
        if name not in _RANK_VARIABLES and not name.startswith(_RANK_PREFIXES)
    }
    environment[SWEEP_VARIABLE], environment[LABEL_VARIABLE] = sweep, label
    if slots > 1:
        devices = device_share(visible_devices(environment), slot, slots)
        if devices:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(devices)
        threads = max(1, (os.cpu_count() or 1) // slots)
        environment.setdefault("OMP_NUM_THREADS", str(threads))
    return environment


def visible_devices(environment: dict[str, str]) -> list[str]:
    """The GPUs a job could use, without asking torch."""
    named = environment.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [device.strip() for device in named.split(",") if device.strip()]
    cards = Path("/proc/driver/nvidia/gpus")
    return [str(index) for index in range(len(list(cards.iterdir())))] if cards.is_dir() else []


def device_share(devices: Sequence[str], slot: int, slots: int) -> list[str]:
    """The GPUs of one of ``slots`` jobs: disjoint equal shares, or one each in turn when there are fewer than jobs."""
    if not devices:
        return []
    size = len(devices) // slots
    return list(devices[slot * size : (slot + 1) * size]) if size else [devices[slot % len(devices)]]
