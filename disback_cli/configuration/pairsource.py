"""The pairs of a teacher that ``disback regress`` and a regression term of ``disback backtrack`` train on."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

from disback_cli.configuration import runfolder
from disback_cli.configuration.arguments import SEED, CommandLine, Override, absolute, assignment, shown
from disback_cli.configuration.pathsource import NOT_THE_TEACHER, RecordedPath, shared_words
from disback_cli.errors import UserError

PAIRS_FILE = "pairs.json"
# keys that give an objective a term on pairs
_TERM = ("objective.regression", "objective/regression")
_NOTHING = (None, "", "0", "0.0", "null", "none")


def asks_for_pairs(line: CommandLine) -> bool:
    """Whether the words of a distillation name pairs, or a term that needs them."""
    return line.find("pairs") is not None or any(
        o.key.startswith(_TERM) and (o.value is None or o.value.lower() not in _NOTHING) for o in line.overrides
    )


def with_pairs(line: CommandLine, runs: Path, notes: list[str]) -> CommandLine:
    """The command line with ``pairs=`` and, where none was named, the pairs' teacher; unchanged if there are none."""
    given = line.find("pairs")
    if given is not None:
        if given.several or given.value is None or given.value.lower() in ("null", "none") or SEED in given.value:
            return line  # every job has its own, or there are none
        return line.with_front(shared_words(_read_named(Path(given.value)), line))
    teacher = line.find("teacher")
    if teacher is not None and teacher.several:
        return line  # a sweep over teachers: every job finds its own
    own = {o.key: o.value for o in line.overrides if o.key.startswith("teacher.") and not o.several}
    newest = newest_pairs(runs, teacher.value if teacher is not None else None, own)
    if newest is None:
        return line
    notes.append(f"pairs: {shown(newest.folder)} (the newest of teacher {newest.teacher}; pairs=RUN for others)")
    return line.with_front([*shared_words(newest, line), assignment("pairs", str(absolute(newest.folder)))])


def newest_pairs(runs: Path, teacher: str | None, options: Mapping[str, str | None]) -> RecordedPath | None:
    """The newest complete pairs under ``<runs>/pairs`` (of ``teacher``, made with these ``teacher.*`` options)."""
    made = [_read(file) for file in runs.glob(f"pairs/*/*/{PAIRS_FILE}")]
    found = [pairs for pairs in made if pairs is not None and pairs.is_of_teacher(teacher) and pairs.agrees(options)]
    return max(found, key=lambda pairs: (pairs.created, pairs.folder.name), default=None)


def _read_named(place: Path) -> RecordedPath:
    """The pairs that ``pairs=PLACE`` names: a run folder, or pairs.json itself."""
    file = next((f for f in (place, place / PAIRS_FILE) if f.name == PAIRS_FILE and f.is_file()), None)
    if file is None:
        what = "no such folder" if not place.exists() else f"no {PAIRS_FILE} in it"
        unfinished = runfolder.read(place)
        if unfinished is not None and unfinished.verb == "pairs":
            again = shlex.join(["disback", "pairs", *unfinished.overrides])
            raise UserError(f"pairs={shown(place)}: they are not complete; type '{again}' first, which goes on")
        raise UserError(f"pairs={shown(place)}: {what}; name a 'disback pairs' run, or leave pairs= out for the newest")
    pairs = _read(file)
    if pairs is None:
        raise UserError(f"pairs={shown(place)}: {shown(file)} cannot be read: it is damaged; make the pairs again")
    return pairs


def _read(file: Path) -> RecordedPath | None:
    """What the manifest says of the teacher, as a path's does; None where something is missing or of another type."""
    content = runfolder.read_json(file)
    if not isinstance(content, dict):
        return None
    teacher, created, choice = content.get("teacher"), content.get("created"), content.get("teacher_choice")
    overrides, found = runfolder.texts(content.get("overrides")), content.get("places")
    name = teacher.get("name") if isinstance(teacher, dict) else None
    if overrides is None or not isinstance(name, str) or not isinstance(created, str) or not isinstance(choice, str):
        return None
    if not isinstance(found, dict) or not all(isinstance(place, str) for place in found.values()):
        return None
    of_teacher = tuple(word for word in overrides if not Override(word).key.startswith(NOT_THE_TEACHER))
    return RecordedPath(file.parent, file, name, {"teacher": choice}, {}, of_teacher, created, found)
