"""The recorded path that ``disback backtrack`` walks, and the options it must share with its recording."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from disback_cli.configuration import runfolder, trust
from disback_cli.configuration.arguments import (
    SEED,
    CommandLine,
    Override,
    absolute,
    assignment,
    names_a_place,
    shown,
)
from disback_cli.errors import UserError

PATH_FILE = "path.json"
# verbs whose runs hold a path
_MAKE_PATHS = ("record", "assemble")
# what must be the same in both stages: the teacher, the networks that continue from its nodes, their noise law, and
# what of the fake score the nodes hold
_GROUPS = ("teacher", "student", "noise/fake", "noise/fake_weighting", "fake")
_NEEDS_NO_PATH = "endpoint"  # schedule=
_RERECORDS = "rerecord"  # needs none either where schedule.at begins with 0
# how a teacher is run, not which one it is
NOT_THE_TEACHER = ("teacher.sampler", "teacher.dtype")
_SHARED = (*_GROUPS, "noise.fake", "noise.fake_weighting")
_DEFAULTS = {"student": "one_step", "fake": "full"}
# Untrained they are one and the same student, by the options that both have.
_TEACHER_ITSELF = ("one_step", "lora")
_OF_BOTH = ("student.sigma_init", "student.weights")

Value = float | str | list[float] | list[str]


@dataclass(frozen=True)
class RecordedPath:
    """What ``path.json`` says, as far as the command line is concerned."""

    folder: Path  # the run folder, or the folder of path.json where a path was copied alone
    file: Path
    teacher: str
    choices: Mapping[str, str]  # what was taken of the groups, if it is known
    values: Mapping[str, Value]  # the numbers and names that the recording came to use, wherever they were set
    overrides: tuple[str, ...]
    created: str
    places: Mapping[str, str]  # where the teacher's files lay, for what was not typed

    def agrees(self, options: Mapping[str, str | None]) -> bool:
        """Whether the recording's teacher was the one that these options choose."""
        recorded = {word.key: word.value for word in map(Override, self.overrides)}
        chosen = {key: value for key, value in options.items() if not key.startswith(NOT_THE_TEACHER)}
        return all(recorded.get(key, self.places.get(key)) == value for key, value in chosen.items())

    @property
    def student(self) -> str:
        """The option of the group ``student`` that it was recorded for."""
        return self.option("student")

    def option(self, group: str) -> str:
        """The option of the group ``student`` or ``fake`` that it was recorded for."""
        typed = (word.value for word in map(Override, reversed(self.overrides)) if word.key == group)
        return self.choices.get(group) or next(typed, None) or _DEFAULTS[group]

    def is_of_teacher(self, named: str | None) -> bool:
        """Whether ``teacher=named`` means this path's teacher."""
        return named is None or named in (self.choices.get("teacher"), self.teacher)


def with_path(line: CommandLine, runs: Path, notes: list[str]) -> CommandLine:
    """The command line with ``path=`` and what it was recorded with; unchanged when there is nothing to take over."""
    given = line.find("path")
    if given is not None:
        if given.several or given.value is None or given.value.lower() in ("null", "none") or SEED in given.value:
            return line  # every job has its own, or there is none
        path = read_path(Path(given.value))
        return line.with_front(shared_words(path, line))
    if _needs_no_path(line):
        return line
    teacher, student = line.find("teacher"), line.find("student")
    if any(group is not None and group.several for group in (teacher, student)):
        return line  # a sweep over teachers or students: every job finds its own
    own = {o.key: o.value for o in line.overrides if o.key.startswith("teacher.") and not o.several}
    found = paths_of(runs, teacher.value if teacher is not None else None, own)
    if not found:
        return line
    wanted = student.value if student is not None else None
    newest = found[-1] if wanted is None else _newest_for(wanted, found, line)
    of_whom = f"teacher {newest.teacher}" + (f" for student={wanted}" if wanted is not None else "")
    others = "path=RUN for another, path=null for none"
    for_whom = [f"{group}={newest.option(group)}" for group in _DEFAULTS if newest.option(group) != _DEFAULTS[group]]
    recorded = f"recorded for {', '.join(for_whom)}; " if for_whom else ""
    notes.append(f"path: {shown(newest.folder)} (the newest of {of_whom}; {recorded}{others})")
    return line.with_front([*shared_words(newest, line), assignment("path", str(absolute(newest.folder)))])


def _needs_no_path(line: CommandLine) -> bool:
    """Whether the schedule that was typed goes without a recorded path."""
    schedule, at = line.find("schedule"), line.find("schedule.at")
    if schedule is None or schedule.value != _RERECORDS:
        return schedule is not None and schedule.value == _NEEDS_NO_PATH
    return at is not None and re.match(r"\[\s*0\s*[,\]]", at.value or "") is not None


def paths_of(runs: Path, teacher: str | None, options: Mapping[str, str | None]) -> list[RecordedPath]:
    """The paths under ``<runs>``, recorded or assembled (of ``teacher``, with these ``teacher.*``), oldest first."""
    paths = [_read_file(file) for verb in _MAKE_PATHS for file in runs.glob(f"{verb}/*/*/path/{PATH_FILE}")]
    found = [path for path in paths if path is not None and path.is_of_teacher(teacher) and path.agrees(options)]
    return sorted(found, key=lambda path: (path.created, path.folder.name))


def _newest_for(student: str, paths: Sequence[RecordedPath], line: CommandLine) -> RecordedPath:
    """The newest of these paths that were recorded for the student that was typed.

    Raises:
        UserError: there is none.
    """
    newest = next((path for path in reversed(paths) if _start_alike(student, path.student)), None)
    if newest is not None:
        return newest
    other = paths[-1]
    typed = [o.word for o in line.overrides if o.key.startswith(("teacher.", "student.")) and not o.several]
    words = [f"teacher={other.choices.get('teacher', other.teacher)}", f"student={student}", *typed]
    raise UserError(
        f"student={student}: no path of teacher {other.teacher} was recorded for this student; the newest, "
        f"{shown(other.folder)}, is for student={other.student}. Type `disback {shlex.join(['record', *words])}` "
        "first, or give path=RUN for a path of your choice, or path=null where the schedule needs none"
    )


def _start_alike(student: str | None, other: str | None) -> bool:
    """Whether these options of the group ``student`` are the same student before training."""
    return student == other or (student in _TEACHER_ITSELF and other in _TEACHER_ITSELF)


def read_path(place: Path) -> RecordedPath:
    """The path that ``path=PLACE`` names: a run folder, its path/ folder, or path.json itself."""
    candidates = (place, place / PATH_FILE, place / "path" / PATH_FILE)
    file = next((c for c in candidates if c.name == PATH_FILE and c.is_file()), None)
    if file is None:
        what = f"no {PATH_FILE} in it" if place.exists() else "no such folder"
        name = shown(place)
        unfinished = runfolder.read(place)
        if unfinished is not None and unfinished.verb == "record":
            raise UserError(f"path={name}: its recording is not complete; type 'disback record resume={name}' first")
        raise UserError(
            f"path={name}: {what}; name a run of 'disback record' or 'disback assemble', or leave path= out for the "
            "newest"
        )
    path = _read_file(file)
    if path is None:
        raise UserError(
            f"path={shown(place)}: {shown(file)} cannot be read: it is damaged; record the path again with "
            "'disback record'"
        )
    return path


def _read_file(file: Path) -> RecordedPath | None:
    """What the manifest says; None where something is missing or of the wrong type."""
    content = runfolder.read_json(file)
    if not isinstance(content, dict):
        return None
    teacher, created = content.get("teacher"), content.get("created", "")
    overrides = runfolder.texts(content.get("overrides", []))
    choices, values = _choices(content), _values(content)
    name = teacher.get("name") if isinstance(teacher, dict) else None
    places = content.get("places", {})
    if not isinstance(places, dict) or not all(isinstance(place, str) for place in places.values()):
        return None
    if choices is None or values is None or overrides is None:
        return None
    if not isinstance(name, str) or not isinstance(created, str):
        return None
    folder = file.parent.parent if file.parent.name == "path" else file.parent
    return RecordedPath(folder, file, name, choices, values, overrides, created, places)


def _choices(content: dict[str, Any]) -> dict[str, str] | None:
    named = content.get("choices", {})
    if not isinstance(named, dict):
        return None
    all_named = {"teacher": content.get("teacher_choice")} | {group: named.get(group) for group in _GROUPS[1:]}
    found = {group: choice for group, choice in all_named.items() if isinstance(choice, str)}
    return found if all(choice is None or isinstance(choice, str) for choice in all_named.values()) else None


def _values(content: dict[str, Any]) -> dict[str, Value] | None:
    """The numbers of the student, of the fake score's noise law and of its adapters, by their keys."""
    student, noise = content.get("student", {}), content.get("noise", {})
    law = noise.get("fake", {}) if isinstance(noise, dict) else None
    if not isinstance(student, dict) or not isinstance(law, dict):
        return None
    values = _adapter_values(content.get("adapter"))
    if values is None:
        return None
    if "sigma_init" in student:
        values["student.sigma_init"] = student["sigma_init"]
        if not _is_number(student["sigma_init"]):
            return None
    if "sigmas" in student:
        values["student.sigmas"] = student["sigmas"]
        if not isinstance(student["sigmas"], list) or not all(_is_number(level) for level in student["sigmas"]):
            return None
    for name, value in law.items():
        if re.fullmatch(r"[A-Za-z]\w*", name) and _is_number(value):
            values[f"noise.fake.{name}"] = value
    return values


def _adapter_values(adapter: Any) -> dict[str, Value] | None:
    """Rank, alpha and layers of a path's adapters, nothing for a path of whole networks."""
    if adapter is None:
        return {}
    if not isinstance(adapter, dict) or not all(_is_number(adapter.get(name)) for name in ("rank", "alpha")):
        return None
    layers = adapter.get("layers")
    if not isinstance(layers, str) and runfolder.texts(layers) is None:
        return None
    return {"fake.rank": adapter["rank"], "fake.alpha": adapter["alpha"], "fake.layers": layers}


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def shared_words(path: RecordedPath, line: CommandLine) -> list[str]:
    """The recording's options that the distillation must share and the user did not give himself."""
    given = {override.key: override for override in line.overrides}
    stored = [word for word in map(Override, path.overrides) if _is_shared(word.key)]
    choices = {word.key: word.value for word in stored if word.key in _GROUPS} | dict(path.choices)
    words = {group: assignment(group, choice) for group, choice in path.choices.items()}
    words |= {word.key: word.word for word in stored if word.key not in words}
    words |= {key: f"{key}={_typed(value)}" for key, value in path.values.items()}
    words |= {
        key: assignment(key, place)
        for key, place in path.places.items()
        if key.startswith("teacher.") and names_a_place(key) and key not in words and Path(place).exists()
    }
    wanted = {key: word for key, word in words.items() if not _decided_by_user(key, given, choices)}
    for word in (*(word.word for word in stored if word.key in wanted), *wanted.values()):
        trust.require_plain(word, path.file)
    return list(wanted.values())


def _typed(value: Value) -> str:
    """A value as it is typed: names without quotes."""
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return f"[{','.join(map(str, value))}]"
    return value if isinstance(value, str) else repr(value)


def _is_shared(key: str) -> bool:
    return any(key == name or (key.startswith(f"{name}.")) for name in _SHARED)


def _decided_by_user(key: str, given: dict[str, Override], choices: Mapping[str, str | None]) -> bool:
    """Whether the user gave the key, a node around it, or another option of its group, in which it means nothing."""
    if key in given:
        return True
    for group in _GROUPS:
        if group in given and key.startswith(group.replace("/", ".") + "."):
            if key in _OF_BOTH:
                return not _start_alike(given[group].value, choices.get(group))
            return given[group].value != choices.get(group)
    return any(key.startswith(f"{name}.") for name in given)
