"""``-m sweep=NAME``: a sweep that is written down in ``conf/sweep/NAME.yaml``, taken as words of the command line.

Such a file names its verb and then holds one word a line, ``key: value`` for ``key=value``. Written out, its words are
seen by all that looks at a command line: what is found on disk, a sweep that is continued, the command of the best run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import yaml

from disback_cli.configuration.arguments import CommandLine, Override
from disback_cli.configuration.complaints import did_you_mean
from disback_cli.configuration.option_files import folders, options
from disback_cli.errors import UserError

WORD = "sweep"
_SHOWS_ONLY = ("--cfg", "-c", "--info", "-i")


def names(verb: str, line: CommandLine) -> list[str]:
    """The sweeps of a verb."""
    return [name for name in options(WORD, line) if _read(name, line).get("verb") == verb]


def with_sweep_file(verb: str, line: CommandLine) -> CommandLine:
    """The command line with the words of ``sweep=NAME`` in front, but for those that the user gives himself.

    Where the configuration is only shown, that is the part that all jobs share.

    Raises:
        UserError: no such sweep, one of another verb, a file that is none, or no ``-m``.
    """
    given = line.find(WORD)
    if given is None:
        return line
    if given.value is None or given.several or given.value not in names(verb, line):
        raise UserError(_refusal(verb, given, line))
    words = [Override(f"{key}={_text(value)}") for key, value in _read(given.value, line).items() if key != "verb"]
    own = {override.key for override in line.overrides}
    words = [word for word in words if word.key not in own]
    if not line.multirun:
        if not any(flag.split("=", 1)[0] in _SHOWS_ONLY for flag in line.flags):
            raise UserError(f"{given.word} is a sweep; type: disback {verb} -m {given.word}")
        words = [word for word in words if not word.several and not word.key.startswith("hydra")]
    kept = tuple(override for override in line.overrides if override.key != WORD)
    return replace(line, overrides=(*words, *kept))


def _refusal(verb: str, given: Override, line: CommandLine) -> str:
    there = ", ".join(names(verb, line)) or "none"
    if given.value in options(WORD, line):
        others = _read(str(given.value), line).get("verb")
        return f"{given.word} is a sweep of `disback {others}`; `disback {verb}` has {there}"
    if given.several:
        return f"{given.word}: one sweep at a time; `disback {verb}` has {there}"
    near = did_you_mean(str(given.value), names(verb, line))
    return f"there is no sweep '{given.value}'{near}\nsweep can be: {there}"


def _read(name: str, line: CommandLine) -> Mapping[str, Any]:
    """The content of a sweep's file, the user's own folder first."""
    for folder in folders(line):
        file = folder.joinpath(WORD, f"{name}.yaml")
        if not file.is_file():
            continue
        try:
            content = yaml.safe_load(file.read_text(encoding="utf-8"))
        except yaml.YAMLError as error:
            raise UserError(f"{file} cannot be read: {error}") from None
        plain = isinstance(content, dict) and "verb" in content and all(isinstance(key, str) for key in content)
        if not plain or any(isinstance(value, (dict, list)) for value in content.values()):
            raise UserError(
                f"{file} is no sweep: it needs a line 'verb: backtrack' and then lines 'key: value', the value as it "
                "would be typed behind key="
            )
        return content
    return {}


def _text(value: Any) -> str:
    """A value of the file as it is typed."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
