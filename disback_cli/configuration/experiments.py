"""``experiment=NAME``: one name for the settings of an experiment in every verb that is part of it.

The options of a verb differ from those of another, so each verb has a file of its own,
``conf/experiment/<verb>/NAME.yaml``; the word on the command line is the same. The teacher that the file chooses is
written into the command line as well, because what is found on disk (the newest path) depends on it.
"""

from __future__ import annotations

from dataclasses import replace

import yaml

from disback_cli.configuration.arguments import CommandLine, Override, assignment
from disback_cli.configuration.option_files import folders, options
from disback_cli.errors import UserError

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
    for folder in folders(line):
        file = folder.joinpath(GROUP, verb, f"{name}.yaml")
        if file.is_file():
            defaults = (yaml.safe_load(file.read_text(encoding="utf-8")) or {}).get("defaults", [])
            chosen = (entry.get("override /teacher") for entry in defaults if isinstance(entry, dict))
            return next((str(teacher) for teacher in chosen if teacher is not None), None)
    there = options(f"{GROUP}/{verb}", line)
    raise UserError(f"experiment={name}: `disback {verb}` has no such experiment; it has {', '.join(there) or 'none'}")
