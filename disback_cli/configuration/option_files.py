"""The files behind ``group=option``: which options a group has, before anything is composed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from disback_cli.configuration.arguments import CommandLine, Override
from disback_cli.configuration.complaints import did_you_mean
from disback_cli.errors import UserError

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

_OPTIONAL = "optional "
_NOTHING = ("null", "none", "")


def folders(line: CommandLine) -> Iterator[Traversable]:
    """Where option files are looked for: the user's own folder first."""
    words = list(line.flags)
    for index, word in enumerate(words):
        if word in ("--config-dir", "-cd") and index + 1 < len(words):
            yield Path(words[index + 1])
        elif word.startswith("--config-dir="):
            yield Path(word.split("=", 1)[1])
    yield files("disback_cli").joinpath("conf")


def options(group: str, line: CommandLine) -> list[str]:
    """The options of a group, in order."""
    found = set()
    for folder in folders(line):
        place = folder.joinpath(*group.split("/"))
        if place.is_dir():
            found |= {entry.name.removesuffix(".yaml") for entry in place.iterdir() if entry.name.endswith(".yaml")}
    return sorted(found)


def require_options(verb: str, line: CommandLine) -> None:
    """Refuse an option that a group does not have, where the composition would pass over it.

    A group that a verb lists as optional, because not every teacher has data or metrics of its own, is left out
    without a word when its option does not exist; what the user typed is no such default.

    Raises:
        UserError: the option does not exist.
    """
    if line.find("hydra.searchpath") is not None:
        return  # options may lie anywhere; what is missing then shows in the composed configuration
    for group in _optional_groups(verb, line):
        given = line.find(group)
        if given is None or given.value is None:
            continue
        there = options(group, line)
        for option in given.value.split(",") if given.several else [given.value]:
            if option.strip() in there or option.strip().lower() in _NOTHING or "/" in option or "(" in option:
                continue
            near = did_you_mean(option.strip(), there)
            raise UserError(f"there is no {group} '{option.strip()}'{near}\n{group} can be: {', '.join(there)}")


def without_groups(verb: str, line: CommandLine) -> CommandLine:
    """The command line with ``dataset=null`` in Hydra's own words, ``~dataset``: no option of an optional group."""
    words = [
        Override(f"~{o.key}") if o.word == f"{o.key}=null" and o.key in _optional_groups(verb, line) else o
        for o in line.overrides
    ]
    return replace(line, overrides=tuple(words))


def _optional_groups(verb: str, line: CommandLine) -> list[str]:
    for folder in folders(line):
        file = folder.joinpath(f"{verb}.yaml")
        if file.is_file():
            defaults = (yaml.safe_load(file.read_text(encoding="utf-8")) or {}).get("defaults", [])
            entries = [str(key) for entry in defaults if isinstance(entry, dict) for key in entry]
            return [entry.removeprefix(_OPTIONAL) for entry in entries if entry.startswith(_OPTIONAL)]
    return []
