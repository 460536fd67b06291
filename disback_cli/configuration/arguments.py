"""The words of a verb's command line, split into Hydra's flags and the overrides."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hydra._internal.utils import get_args_parser

from disback_cli.errors import UserError

_PLAIN_VALUE = re.compile(r"[\w\-./:%+?@|*]+\Z", re.ASCII)
# in a place: the seed, so that every seed of a sweep can have its own
SEED = "${seed}"
_PLACES = (".folder", ".path", ".weights", ".scheduler", ".reference")


@dataclass(frozen=True)
class Override:
    """One ``key=value`` word: enough of Hydra's grammar to compare keys and read plain values."""

    word: str

    @property
    def key(self) -> str:
        """The key without ``+``, ``~`` and package: ``teacher`` of ``+teacher@x=edm``."""
        return self.word.split("=", 1)[0].lstrip("+~").split("@", 1)[0].strip()

    @property
    def value(self) -> str | None:
        """The value as text without quotes; None when the word has no ``=``."""
        if "=" not in self.word:
            return None
        value = self.word.split("=", 1)[1].strip()
        if len(value) >= 2 and value[0] == value[-1] and value[0] in "\"'":
            return value[1:-1].replace("\\" + value[0], value[0])
        return value

    @property
    def several(self) -> bool:
        """Whether a sweep would take this word apart: ``a,b``, ``range(...)``, ``choice(...)``, ..."""
        value = self.word.split("=", 1)[1].strip() if "=" in self.word else ""
        if re.match(r"(range|choice|glob|interval|sort|shuffle|tag)\(", value):
            return True
        bare = re.sub(r"\"[^\"]*\"|'[^']*'|\[[^\]]*\]|\{[^}]*\}|\([^)]*\)", "", value)
        return "," in bare


@dataclass(frozen=True)
class CommandLine:
    """Overrides and flags apart; ``words()`` puts the overrides first: Hydra's parser wants them side by side."""

    overrides: tuple[Override, ...]
    flags: tuple[str, ...] = ()
    multirun: bool = False
    # help or completion was asked for: nothing will be composed to run
    informs: bool = False

    @staticmethod
    def parse(words: Iterable[str]) -> CommandLine:
        """Split the words after the program's name as Hydra's own parser does; unknown flags end the process."""
        words = list(words)
        _require_known_flags(words)
        args = get_args_parser().parse_intermixed_args(words)
        flags = list(words)
        for override in args.overrides:
            flags.remove(override)
        overrides = tuple(Override(word) for word in args.overrides)
        mode = next((o.value for o in reversed(overrides) if o.key == "hydra.mode"), None)
        multirun = mode == "MULTIRUN" if mode is not None else bool(args.multirun)
        informs = bool(args.help or args.hydra_help or args.shell_completion)
        return CommandLine(overrides, tuple(flags), multirun, informs)

    def words(self) -> list[str]:
        """The command line again, as Hydra's parser takes it."""
        return [override.word for override in self.overrides] + list(self.flags)

    def find(self, key: str) -> Override | None:
        """The override of this key that counts (the last one), if there is any."""
        return next((override for override in reversed(self.overrides) if override.key == key), None)

    def with_front(self, words: Iterable[str]) -> CommandLine:
        """A copy with these overrides before the user's own."""
        return replace(self, overrides=(*(Override(word) for word in words), *self.overrides))

    def without(self, key: str) -> CommandLine:
        """A copy without the overrides of this key."""
        return replace(self, overrides=tuple(override for override in self.overrides if override.key != key))


def _require_known_flags(words: list[str]) -> None:
    """Refuse ``--iterations 5`` with the form that options have here; Hydra's flags stay."""
    known = get_args_parser()._option_string_actions
    for word in words:
        flag, _, value = word.partition("=")
        if flag.startswith("--") and len(flag) > 2 and not any(name.startswith(flag) for name in known):
            option = flag.lstrip("-").replace("-", "_")
            raise UserError(f"there is no flag {flag}; options are written key=value: {option}={value or '...'}")


def names_a_place(key: str) -> bool:
    """Whether the value of ``key`` is a file or folder that must exist."""
    return key in ("path", "pairs", "images") or key.endswith(_PLACES)


def with_absolute_place(override: Override) -> Override:
    """The word with an absolute path where it names something that exists, seen from here.

    A run keeps its words; they must mean the same when it is continued from another folder.
    """
    value = override.value
    if not names_a_place(override.key) or override.several or not value or os.path.isabs(value):
        return override
    if value.lower() in ("null", "none") or not os.path.exists(value):
        return override
    return Override(assignment(override.word.split("=", 1)[0], str(absolute(Path(value)))))


def with_absolute_places(node: Any, prefix: str = "") -> Any:
    """Plain containers with absolute paths where a value names something that exists, seen from here."""
    if isinstance(node, dict):
        return {
            key: with_absolute_places(value, f"{prefix}.{key}" if prefix else str(key)) for key, value in node.items()
        }
    named = isinstance(node, str) and names_a_place(prefix) and not os.path.isabs(node) and os.path.exists(node)
    return str(absolute(Path(node))) if named else node


def places(node: Any, prefix: str = "") -> dict[str, str]:
    """The absolute places of a configuration that exist, by dotted key."""
    if isinstance(node, dict):
        found: dict[str, str] = {}
        for key, value in node.items():
            found |= places(value, f"{prefix}.{key}" if prefix else str(key))
        return found
    is_place = isinstance(node, str) and names_a_place(prefix) and os.path.isabs(node) and os.path.exists(node)
    return {prefix: node} if is_place else {}


def absolute(place: Path) -> Path:
    """The absolute path of something that exists, without ``..`` unless a link makes that another place."""
    short = os.path.abspath(place)
    return Path(short) if os.path.exists(short) and os.path.samefile(short, place) else place.absolute()


def shown(path: Path) -> str:
    """A path as short as it can be typed from here."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def assignment(key: str, value: str) -> str:
    """The word ``key=value`` with the value quoted when Hydra's grammar needs it."""
    if _PLAIN_VALUE.match(value):
        return f"{key}={value}"
    escaped = value.replace("\\", "\\\\").replace('"', '\\"') if '"' in value else value
    return f'{key}="{escaped}"'
