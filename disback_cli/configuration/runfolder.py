"""The two small files that say what a run folder is (``run.json``) and who is working in it (``run.lock``)."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Literal

from disback_cli.configuration.arguments import shown
from disback_cli.configuration.run_id import launch_id
from disback_cli.errors import UserError
from disback_cli.files import write_json

FORMAT = 1
RUN_FILE = "run.json"
LOCK_FILE = "run.lock"

State = Literal["running", "interrupted", "failed", "finished"]


@dataclass(frozen=True)
class Run:
    """What ``run.json`` says about a run folder."""

    folder: Path
    verb: str
    teacher: str
    overrides: tuple[str, ...]
    created: str
    state: str

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to continue."""
        return self.state == "finished"


def read_json(path: Path) -> Any:
    """The content of a JSON file, or None where there is no readable one."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def texts(value: Any) -> tuple[str, ...] | None:
    """The items of a list of texts that was read from a file; None for anything else."""
    return tuple(value) if isinstance(value, list) and all(isinstance(item, str) for item in value) else None


def create(folder: Path, verb: str, teacher: str, overrides: Iterable[str]) -> Run:
    """Declare ``folder`` a new, running run; ``overrides``: ``HydraConfig.get().overrides.task``."""
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / RUN_FILE).exists() and read(folder) is None:
        raise UserError(f"{unreadable(folder)}; remove it, or choose another hydra.run.dir")
    if (folder / RUN_FILE).exists():
        raise UserError(
            f"there is a run in {folder} already: continue it with 'disback {verb} resume={folder}', "
            "or choose another hydra.run.dir"
        )
    created = datetime.now(UTC).isoformat(timespec="milliseconds")
    run = Run(folder, verb, teacher, tuple(overrides), created, "running")
    _write(run)
    return run


def _write(run: Run) -> None:
    content = {
        "format": FORMAT,
        "verb": run.verb,
        "teacher": run.teacher,
        "overrides": list(run.overrides),
        "created": run.created,
        "state": run.state,
    }
    write_json(run.folder / RUN_FILE, content)


def read(folder: Path) -> Run | None:
    """The run in ``folder``; None where there is no whole ``run.json`` of this format."""
    content = read_json(folder / RUN_FILE)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        return None
    overrides = texts(content.get("overrides"))
    fields = texts([content.get(name) for name in ("verb", "teacher", "created", "state")])
    if overrides is None or fields is None:
        return None
    verb, teacher, created, state = fields
    return Run(folder, verb, teacher, overrides, created, state)


def read_named(folder: Path, word: str) -> Run | None:
    """:func:`read` of a folder that the user named by ``word``, whose ``run.json`` must be whole if there is one."""
    run = read(folder)
    if run is None and (folder / RUN_FILE).is_file():
        raise UserError(f"{word}: {unreadable(folder)}")
    return run


def unreadable(folder: Path) -> str:
    """The beginning of a message about a ``run.json`` that :func:`read` does not understand."""
    return f"{shown(folder / RUN_FILE)} cannot be read: it is damaged or of another version"


def set_state(folder: Path, state: State) -> None:
    """Note how far the run in ``folder`` has come."""
    run = read(folder)
    if run is None:
        raise FileNotFoundError(f"{folder / RUN_FILE} is missing or of another format")
    _write(Run(run.folder, run.verb, run.teacher, run.overrides, run.created, state))


class RunLock:
    """A held ``run.lock``; released by ``release()``, at the end of a ``with`` block, or by the end of the process."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def release(self) -> None:
        """Let another process work in the folder."""
        self._file.close()

    def __enter__(self) -> RunLock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def lock(folder: Path, patience: float = 2.0) -> RunLock:
    """Take the lock of a run folder: call it on rank 0 only, and keep the result for as long as the run lasts.

    A look by :func:`is_busy` holds the lock for an instant, hence the ``patience`` (seconds) before giving up.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = (folder / LOCK_FILE).open("a+", encoding="utf-8")
    deadline = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() > deadline:
                file.close()
                raise UserError(_busy_message(folder)) from None
            time.sleep(0.05)
    file.truncate(0)
    json.dump({"pid": os.getpid(), "host": socket.gethostname(), "launch_id": launch_id()}, file)
    file.flush()
    return RunLock(file)


def _busy_message(folder: Path) -> str:
    owner = _written_in_lock(folder)
    return (
        f"{folder} is in use by process {owner.get('pid', '?')} on {owner.get('host', '?')}: "
        "wait for it, stop it, or choose another hydra.run.dir"
    )


def holder(folder: Path) -> dict[str, Any] | None:
    """What the live process that holds the lock of ``folder`` wrote into it; None when nobody holds it."""
    try:
        file = (folder / LOCK_FILE).open("r", encoding="utf-8")
    except OSError:
        return None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _written_in_lock(folder)
        return None


def _written_in_lock(folder: Path) -> dict[str, Any]:
    content = read_json(folder / LOCK_FILE)
    return content if isinstance(content, dict) else {}


def is_busy(folder: Path) -> bool:
    """Whether a process of another launch is working in ``folder``."""
    owner = holder(folder)
    return owner is not None and owner.get("launch_id") != launch_id()
