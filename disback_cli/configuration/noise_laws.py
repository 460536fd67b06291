"""``noise=NAME``: one law of noise levels for everything in a verb that draws noise levels.

The generator's loss and the fake score's have a group each; this word gives both the same option. Of several values
(``-m noise=karras,narrow``) the generator's follows the fake score's by reference: they stay one axis of a sweep.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from disback_cli.configuration.arguments import CommandLine, Override
from disback_cli.configuration.complaints import did_you_mean
from disback_cli.configuration.option_files import options
from disback_cli.errors import UserError

WORD = "noise"
_FAKE, _GENERATOR = "noise/fake", "noise/generator"
# as it is typed, and as Hydra writes it into the words of a job
_FOLLOWS = (f"${{{_FAKE}}}", f"$\\{{{_FAKE}\\}}")
GROUPS: dict[str, tuple[str, ...]] = {
    "pretrain": (_FAKE,),
    "record": (_FAKE,),
    "assemble": (_FAKE,),
    "backtrack": (_FAKE, _GENERATOR),
}


def names(verb: str, line: CommandLine) -> list[str]:
    """The laws that ``noise=`` can name: those that every group of the verb has."""
    each = [options(group, line) for group in GROUPS.get(verb, ())]
    return [name for name in each[0] if all(name in there for there in each)] if each else []


def with_noise(verb: str, line: CommandLine) -> CommandLine:
    """The command line with ``noise=NAME`` written as the groups it stands for; what the user gave of them stays.

    Raises:
        UserError: there is no such law.
    """
    given = line.find(WORD)
    if given is None or verb not in GROUPS:
        return line
    if not given.value:
        raise UserError(f"{given.word}: name a law of noise levels; noise can be: {', '.join(names(verb, line))}")
    if line.find("hydra.searchpath") is None:  # with it options may lie anywhere
        _require_known(given, names(verb, line))
    own = {override.key for override in line.overrides}
    follows = given.several and _FAKE not in own
    values = {_FAKE: given.value, _GENERATOR: _FOLLOWS[0] if follows else given.value}
    expanded = [Override(f"{group}={values[group]}") for group in GROUPS[verb] if group not in own]
    place = line.overrides.index(given)
    before, after = line.overrides[:place], line.overrides[place + 1 :]
    kept = [[override for override in part if override.key != WORD] for part in (before, after)]
    return replace(line, overrides=(*kept[0], *expanded, *kept[1]))


def shorthand(words: Sequence[str], *, equal: bool = False) -> list[str]:
    """The words with ``noise=NAME``, as it was typed, where the generator's law follows the fake score's.

    Args:
        words: of a command line.
        equal: whether two words that name the same law are ``noise=NAME`` as well.
    """
    found = {word.key: word for word in map(Override, words)}
    fake, generator = found.get(_FAKE), found.get(_GENERATOR)
    if fake is None or generator is None or not fake.value:
        return list(words)
    if generator.value not in (*_FOLLOWS, *([fake.value] if equal else [])):
        return list(words)
    return [f"{WORD}={fake.value}" if word == fake.word else word for word in words if word != generator.word]


def shown_key(key: str, words: Sequence[str]) -> str:
    """The key of a word of the command line, by what it is called in its shorthand ``words``."""
    keys = {Override(word).key for word in words}
    return WORD if key == _FAKE and key not in keys and WORD in keys else key


def _require_known(given: Override, there: list[str]) -> None:
    if "(" in str(given.value):
        return  # choice(...), glob(...): Hydra's to take apart
    for name in str(given.value).split(",") if given.several else [str(given.value)]:
        if name.strip() not in there:
            near = did_you_mean(name.strip(), there)
            raise UserError(f"there is no noise '{name.strip()}'{near}\nnoise can be: {', '.join(there)}")
