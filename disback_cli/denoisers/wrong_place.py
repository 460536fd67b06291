"""A teacher's file or folder that is not what its option takes: what it is instead, and the words to type."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

from disback_cli.configuration.arguments import assignment, shown
from disback_cli.denoisers.diffusers_folder import MODEL_FILE, PIPELINE_FILE, SCHEDULER_FILE, is_diffusers
from disback_cli.denoisers.kinds import STUDENT, words_of_student
from disback_cli.denoisers.open_source import Place, find_network, what_instead
from disback_cli.denoisers.sniff import content_of, is_nvidia
from disback_cli.errors import UserError

# The option of each format, and what it takes.
_OPTIONS = {
    "nvidia": ("teacher=edm", "teacher.path", "a pickle in NVIDIA's format"),
    "diffusers": ("teacher=diffusers", "teacher.path", "a folder in diffusers' format"),
    "model-folder": ("teacher=folder", "teacher.folder", "a model folder of this program"),
}


def missing(option: str, given: str) -> str:
    """The message for a teacher's file or folder that is not there.

    Args:
        option: ``teacher.path`` or ``teacher.folder``.
        given: its value.
    """
    return (
        f"{option}={given}: there is no such file or folder. If it was moved since the teacher was recorded, give its "
        f"new place as {option}=NEW; a run that is resumed needs it where it was"
    )


def require_nvidia(place: Path) -> None:
    """Refuse what cannot be a pickle of NVIDIA's; other pickles are left to their reader.

    Raises:
        UserError: it says what was found, and what to type for it.
    """
    found = find_network(place)
    if found is not None and found.format == "nvidia":
        return
    pickles = sorted(place.glob("*.pkl")) if found is None and place.is_dir() else []
    if pickles:
        raise UserError(f"{place} is a folder, give the file: {assignment('teacher.path', shown(pickles[0]))}")
    _refuse(place, found)


def require_diffusers(place: Path) -> None:
    """Refuse what cannot be a folder of diffusers; a damaged one, or a part of a pipeline, is left to its reader.

    Raises:
        UserError: it says what was found, and what to type for it.
    """
    if place.is_file() and place.name in (PIPELINE_FILE, MODEL_FILE, SCHEDULER_FILE):
        raise UserError(f"{place} is a part of a folder, give the folder: teacher.path={shown(place.parent)}")
    found = find_network(place)
    if place.is_dir() and (
        is_diffusers(place)
        or (found is None and (place / MODEL_FILE).is_file())
        or (place.absolute().parent / PIPELINE_FILE).is_file()
    ):
        return
    _refuse(place, found)


def require_model_folder(place: Path) -> None:
    """Refuse what cannot be a model folder; a damaged one is left to its reader.

    Raises:
        UserError: it says what was found, and what to type for it.
    """
    found = find_network(place)
    if found is not None and found.format == "model-folder":
        return
    if (place / "path" / "path.json").is_file():
        raise UserError(
            f"{place} is a recording, not a teacher: `disback backtrack {assignment('path', shown(place))}` walks it"
        )
    if found is None and (place / MODEL_FILE).is_file():
        return
    _refuse(place, found)


def refuse_student(place: Path, named: str) -> None:
    """Refuse a student, which `disback backtrack` and `disback record` leave in folders like a teacher's.

    Args:
        place: a model folder, or a run that may hold a student.
        named: what the user typed.

    Raises:
        UserError: it is one.
    """
    from disback_cli.denoisers.folder import CONFIG_FILE, load_config

    student = next((found for found in (place, place / "student") if (found / CONFIG_FILE).is_file()), None)
    document = load_config(student) if student is not None else {}
    if document.get("kind") == STUDENT:
        raise UserError(
            f"{named} is a {words_of_student(document)}, which has no denoiser at other noise levels than its own: it "
            "cannot be a teacher. Give the teacher that it was distilled from; the student is for `disback sample "
            "student=...`"
        )


def _refuse(place: Path, found: Place | None) -> NoReturn:
    if found is None or (found.format == "nvidia" and not is_nvidia(found.path, content_of(found.path))):
        raise UserError(what_instead(place))
    if found.format == "model-folder":
        refuse_student(found.path, str(place))
    choice, option, words = _OPTIONS[found.format]
    raise UserError(f"{place} is {words}: type {choice} {assignment(option, shown(found.path))}")
