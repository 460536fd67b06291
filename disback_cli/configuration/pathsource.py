"""The recorded path that ``disback backtrack`` walks, and the options it must share with its recording."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from disback_cli.configuration import runfolder
from disback_cli.configuration.arguments import CommandLine, Override, assignment
from disback_cli.errors import UserError

PATH_FILE = "path.json"
# what must be the same in both stages: the teacher, the networks that continue from its nodes, and their noise law
_GROUPS = ("teacher", "student", "noise/fake")
_SHARED = ("teacher", "student", "noise/fake", "noise.fake")


@dataclass(frozen=True)
class RecordedPath:
    """What ``path.json`` says, as far as the command line is concerned."""

    folder: Path  # the run folder, or the folder of path.json where a path was copied alone
    teacher: str
    choice: str | None
    overrides: tuple[str, ...]
    created: str

    def is_of_teacher(self, named: str | None) -> bool:
        """Whether ``teacher=named`` means this path's teacher."""
        return named is None or named in (self.choice, self.teacher)


def with_path(line: CommandLine, runs: Path, notes: list[str]) -> CommandLine:
    """The command line with ``path=`` and what it was recorded with; unchanged when there is nothing to take over."""
    given = line.find("path")
    if given is not None:
        if given.several or given.value is None or given.value.lower() in ("null", "none"):
            return line
        path = read_path(Path(given.value))
        return line.with_front(_shared_words(path, line))
    teacher = line.find("teacher")
    if teacher is not None and teacher.several:
        return line  # a sweep over teachers: every job finds its own
    newest = newest_path(runs, teacher.value if teacher is not None else None)
    if newest is None:
        return line
    others = "path=RUN for another, path=null for none"
    notes.append(f"path: {newest.folder} (the newest of teacher {newest.teacher}; {others})")
    return line.with_front([*_shared_words(newest, line), assignment("path", str(newest.folder))])


def newest_path(runs: Path, teacher: str | None) -> RecordedPath | None:
    """The newest recorded path under ``<runs>/record`` (of ``teacher``)."""
    paths = [_read_file(file) for file in runs.glob(f"record/*/*/path/{PATH_FILE}")]
    found = [path for path in paths if path is not None and path.is_of_teacher(teacher)]
    return max(found, key=lambda path: (path.created, path.folder.name), default=None)


def read_path(place: Path) -> RecordedPath:
    """The path that ``path=PLACE`` names: a run folder, its path/ folder, or path.json itself."""
    candidates = (place, place / PATH_FILE, place / "path" / PATH_FILE)
    file = next((c for c in candidates if c.name == PATH_FILE and c.is_file()), None)
    if file is None:
        what = f"no {PATH_FILE} in it" if place.exists() else "no such folder"
        unfinished = runfolder.read(place)
        if unfinished is not None and unfinished.verb == "record":
            raise UserError(f"path={place}: its recording is not complete; type 'disback record resume={place}' first")
        raise UserError(f"path={place}: {what}; name a 'disback record' run, or leave path= out for the newest")
    path = _read_file(file)
    if path is None:
        raise UserError(f"path={place}: {file} cannot be read; record the path again with 'disback record'")
    return path


def _read_file(file: Path) -> RecordedPath | None:
    content = runfolder.read_json(file)
    if not isinstance(content, dict) or not isinstance(content.get("teacher"), dict):
        return None
    folder = file.parent.parent if file.parent.name == "path" else file.parent
    overrides = tuple(str(word) for word in content.get("overrides", []))
    choice = content.get("teacher_choice")
    return RecordedPath(folder, str(content["teacher"].get("name")), choice, overrides, str(content.get("created", "")))


def _shared_words(path: RecordedPath, line: CommandLine) -> list[str]:
    """The recording's options that the distillation must share and the user did not give himself."""
    given = {override.key: override for override in line.overrides}
    stored = [Override(word) for word in path.overrides]
    if path.choice is not None:
        stored = [Override(assignment("teacher", path.choice)), *(word for word in stored if word.key != "teacher")]
    words = []
    for word in stored:
        if word.key in given or not _is_shared(word.key):
            continue
        group = next((g for g in _GROUPS if word.key.startswith(g.replace("/", ".") + ".")), None)
        if group is not None and _chose_another(group, given, stored):
            continue
        words.append(word.word)
    return words


def _is_shared(key: str) -> bool:
    return any(key == name or (key.startswith(f"{name}.")) for name in _SHARED)


def _chose_another(group: str, given: dict[str, Override], stored: list[Override]) -> bool:
    """Whether the user takes another option of ``group``: the recording's values inside it mean nothing then."""
    if group not in given:
        return False
    return given[group].value != next((word.value for word in stored if word.key == group), None)
