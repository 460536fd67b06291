"""From the words of a command line to the folders of runs: runs themselves, sweeps, folders that hold runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from disback_cli.configuration.arguments import shown
from disback_cli.configuration.discovery import SWEEP_FILE
from disback_cli.configuration.jobs import STATUS_FILE
from disback_cli.configuration.runfolder import RUN_FILE, read_json
from disback_cli.errors import UserError

# what lies beside the jobs of a sweep, and so comes along when the shell expands SWEEP/*
_BESIDE_JOBS = (SWEEP_FILE, "results.csv", "multirun.yaml", "run.lock", "compare")


@dataclass
class Found:
    """Folders of runs, in the order in which they were named.

    Attributes:
        folders: the runs.
        home: the folder of the sweep, if one sweep and nothing else was named.
        notes: what was left out, and why.
    """

    folders: list[Path] = field(default_factory=list)
    home: Path | None = None
    notes: list[str] = field(default_factory=list)


def find_runs(words: Sequence[str]) -> Found:
    """The runs behind the words of the command line; each once, however often it is named.

    Raises:
        UserError: a word names nothing, or no run, or nothing at all was found.
    """
    found = Found()
    for word in words:
        place = Path(word).expanduser()
        if not place.exists():
            raise UserError(f"there is nothing at {word}")
        if (place / RUN_FILE).is_file():
            found.folders.append(place)
        elif (place / STATUS_FILE).is_file():
            found.notes.append(_about_job(place))
        elif not _is_beside_jobs(place):
            found.folders += _runs_of(place, found.notes)
    found.folders = list({folder.resolve(): folder for folder in found.folders}.values())
    if not found.folders:
        raise UserError(
            "there is no run to compare: " + "; ".join([*found.notes, "name runs, or the folder of a sweep"])
        )
    if len(words) == 1 and not (Path(words[0]).expanduser() / RUN_FILE).is_file():
        found.home = Path(words[0]).expanduser()
    return found


def _is_beside_jobs(place: Path) -> bool:
    return place.name in _BESIDE_JOBS and (place.absolute().parent / SWEEP_FILE).is_file()


def _runs_of(place: Path, notes: list[str]) -> list[Path]:
    """The runs directly below a folder: those of a sweep, or of one teacher in ``runs/backtrack``."""
    name = shown(place)
    if not place.is_dir():
        raise UserError(f"{name} is a file: name the folder of a run, or of a sweep")
    folders = sorted((child for child in place.iterdir() if child.is_dir()), key=_numbered)
    runs = [folder for folder in folders if (folder / RUN_FILE).is_file()]
    jobs = [folder for folder in folders if (folder / STATUS_FILE).is_file() and folder not in runs]
    notes += [_about_job(job) for job in jobs]
    if runs:
        return runs
    if (place / SWEEP_FILE).is_file():
        states = ", ".join(f"job {job.name} {_state(job)}" for job in jobs) or "no job has been started"
        raise UserError(f"no job of the sweep {name} has left a run ({states}); see {name}/*/job.log")
    deeper = [folder for folder in folders if _holds_runs(folder)]
    hint = (
        f"; its subfolders do: disback compare {name}/*" if deeper else f" (no {RUN_FILE}), nor the folder of a sweep"
    )
    raise UserError(f"{name} is no run{hint}")


def _holds_runs(folder: Path) -> bool:
    return (folder / SWEEP_FILE).is_file() or any(folder.glob(f"*/{RUN_FILE}"))


def _about_job(job: Path) -> str:
    return f"job {job.name} of {shown(job.parent)} left no run ({_state(job)}, see {shown(job / 'job.log')})"


def _state(job: Path) -> str:
    status = read_json(job / STATUS_FILE)
    return str(status.get("state", "?")) if isinstance(status, dict) else "?"


def _numbered(folder: Path) -> tuple[int, str]:
    return (int(folder.name) if folder.name.isdigit() else 1 << 30, folder.name)
