"""``experiment=NAME``: one name for the settings of an experiment in every verb that is part of it.

The options of a verb differ from those of another, so each verb has a file of its own,
``conf/experiment/<verb>/NAME.yaml``; the word on the command line is the same. The teacher that the file chooses is
written into the command line as well, because what is found on disk (the newest path) depends on it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from disback_cli.configuration.arguments import CommandLine, Override, assignment
from disback_cli.errors import UserError

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

GROUP = "experiment"


def with_experiment(verb: str, line: CommandLine) -> CommandLine:
    """The command line with ``experiment=NAME`` made the verb's own group, and its teacher named.

    Raises:
        UserError: no such experiment, or none for this verb.
    """
    own = f"{GROUP}/{verb}"
    words = [Override(o.word.replace(f"{GROUP}=", f"{own}=", 1)) if o.key == GROUP else o for o in line.overrides]
    line = replace(line, overrides=tuple(words))
    given = line.find(own)
    if given is None or given.several or given.value in (None, "null"):
        return line
    teacher = _teacher_of(verb, str(given.value), line)
    if teacher is None or line.find("teacher") is not None:
        return line
    return line.with_front([assignment("teacher", teacher)])


def _teacher_of(verb: str, name: str, line: CommandLine) -> str | None:
    """The teacher that the experiment's file chooses."""
    for folder in _folders(line):
        file = folder.joinpath(GROUP, verb, f"{name}.yaml")
        if file.is_file():
            defaults = (yaml.safe_load(file.read_text(encoding="utf-8")) or {}).get("defaults", [])
            chosen = (entry.get("override /teacher") for entry in defaults if isinstance(entry, dict))
            return next((str(teacher) for teacher in chosen if teacher is not None), None)
    there = sorted({option for folder in _folders(line) for option in _options(folder, verb)})
    raise UserError(f"experiment={name}: `disback {verb}` has no such experiment; it has {', '.join(there) or 'none'}")


def _folders(line: CommandLine) -> Iterator[Traversable]:
    """Where option files are looked for: the user's own folder first."""
    words = list(line.flags)
    for index, word in enumerate(words):
        if word in ("--config-dir", "-cd") and index + 1 < len(words):
            yield Path(words[index + 1])
        elif word.startswith("--config-dir="):
            yield Path(word.split("=", 1)[1])
    yield files("disback_cli").joinpath("conf")


def _options(folder: Traversable, verb: str) -> Iterator[str]:
    group = folder.joinpath(GROUP, verb)
    if group.is_dir():
        yield from (entry.name.removesuffix(".yaml") for entry in group.iterdir() if entry.name.endswith(".yaml"))
