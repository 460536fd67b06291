"""What a pickle may name and what it may build: handlers and stand-ins, both ours, and the limits of one reading."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch

from disback_cli.errors import UserError

MAX_OPERATIONS = 2_000_000
ALLOWANCE_FACTOR = 4
ALLOWANCE_SLACK = 1 << 20

Bytes = bytes | bytearray | memoryview


class Reading:
    """One file being read: its name for messages, and how much work and memory its content may still ask for.

    A few bytes of a pickle can refer to one large object many times. Whatever copies bytes or walks a list therefore
    pays from an allowance that is proportional to the size of the file.
    """

    def __init__(self, what: str, size: int) -> None:
        """Start reading.

        Args:
            what: how messages call the file, e.g. its path.
            size: its size in bytes.
        """
        self.what = what
        self._operations = MAX_OPERATIONS
        self._bytes = ALLOWANCE_FACTOR * size + ALLOWANCE_SLACK

    def error(self, problem: str) -> UserError:
        """The error to raise about this file; nothing in it has been executed, and the message says so."""
        return UserError(f"{self.what}: {problem}. Nothing in the file was executed.")

    def count(self, operations: int = 1) -> None:
        """Pay for operations.

        Raises:
            UserError: there have been more than any network or data set needs.
        """
        self._operations -= operations
        if self._operations < 0:
            raise self.error(f"it needs more than {MAX_OPERATIONS:,} operations, far more than a network or a data set")

    def spend(self, nbytes: int) -> None:
        """Pay for memory that the content is copied into.

        Raises:
            UserError: the content asks for several times the size of the file.
        """
        self._bytes -= nbytes
        if self._bytes < 0:
            raise self.error("its content would take several times the size of the file in memory, so it is damaged")


class Handler:
    """What an allow-listed global stands for. The base class can be named but not called."""

    def __init__(self, reading: Reading, name: str) -> None:
        """Remember the file and the dotted name that the file uses."""
        self.reading = reading
        self.name = name

    def call(self, arguments: tuple[Any, ...]) -> Any:
        """What a call gives (REDUCE, NEWOBJ, OBJ, INST).

        Args:
            arguments: of the call; may be nested arbitrarily deep or contain themselves, so only look at the surface.

        Raises:
            UserError: the call is refused.
        """
        raise self.reading.error(f"it calls {self.name} with {describe(arguments)}, which no file of this kind does")


class Standin:
    """An object under construction. ``finish`` replaces it by its value once the whole pickle is read."""

    def __init__(self, reading: Reading, name: str) -> None:
        """Remember the file and the dotted name of what this stands for."""
        self.reading = reading
        self.name = name

    def build(self, state: Any) -> None:
        """Take a state (BUILD), unfinished as ``Handler.call``'s arguments are.

        Raises:
            UserError: this object has no state.
        """
        raise self.reading.error(f"it gives {self.name} a state ({describe(state)}), which no file of this kind does")

    def children(self) -> Sequence[Any]:
        """Objects that must be finished first."""
        return ()

    def finished(self, children: list[Any]) -> Any:
        """The value.

        Args:
            children: the finished ``children()``.

        Raises:
            UserError: what was built is no valid value.
        """
        raise self.reading.error(f"it holds a bare {self.name} where data should be")


class InertDict(dict[Any, Any]):
    """A dictionary of whatever dict class the file names, e.g. an ordered one; attributes given to it are dropped."""


class DictHandler(Handler):
    """Classes that are dictionaries: ``collections.OrderedDict``, NVIDIA's ``EasyDict``."""

    def call(self, arguments: tuple[Any, ...]) -> Any:
        """An empty dictionary; pickles fill it afterwards."""
        return super().call(arguments) if arguments else InertDict()


class SetHandler(Handler):
    """The builtin ``set``, as pickles before protocol 4 write it."""

    def call(self, arguments: tuple[Any, ...]) -> Any:
        """The set of a list of scalars."""
        if len(arguments) > 1 or (arguments and type(arguments[0]) is not list):
            return super().call(arguments)
        items = arguments[0] if arguments else []
        self.reading.count(len(items))
        return {checked_key(item, self.reading) for item in items}


class BytesHandler(Handler):
    """``_codecs.encode(text, "latin1")`` and ``bytes()``: how pickles before protocol 3 write bytes."""

    def call(self, arguments: tuple[Any, ...]) -> Any:
        """The bytes of a latin-1 text."""
        if not arguments and self.name.endswith("bytes"):
            return b""
        if [type(argument) for argument in arguments] != [str, str] or arguments[1] not in ("latin1", "latin-1"):
            return super().call(arguments)
        self.reading.spend(len(arguments[0]))
        try:
            return arguments[0].encode("latin-1")
        except UnicodeEncodeError:
            raise self.reading.error("it holds bytes written as text that is not latin-1") from None


def plain_globals(reading: Reading) -> dict[tuple[str, str], Handler]:
    """Handlers of builtin data types, which need a global in old protocols."""
    return {
        ("collections", "OrderedDict"): DictHandler(reading, "collections.OrderedDict"),
        ("builtins", "set"): SetHandler(reading, "set"),
        ("__builtin__", "set"): SetHandler(reading, "set"),
        ("builtins", "bytes"): BytesHandler(reading, "bytes"),
        ("__builtin__", "bytes"): BytesHandler(reading, "bytes"),
        ("_codecs", "encode"): BytesHandler(reading, "_codecs.encode"),
    }


SCALARS = frozenset({str, bytes, int, float, bool, type(None)})


def checked_key(key: Any, reading: Reading) -> Any:
    """The key, if it may be one: a string, bytes, a number or None.

    Hashing a tuple recurses, and takes exponential time if it repeats itself, so tuples are refused like the rest.

    Raises:
        UserError: it may not.
    """
    if type(key) not in SCALARS:
        raise reading.error(f"it uses {describe(key)} as a key; only text, bytes and numbers can be keys")
    return key


def is_index_tuple(value: Any, longest: int = 32) -> bool:
    """Whether this is a short tuple of sizes: exact non-negative integers below 2^62."""
    return (
        type(value) is tuple
        and len(value) <= longest
        and all(type(entry) is int and 0 <= entry < 1 << 62 for entry in value)
    )


def shown(text: str, longest: int = 100) -> str:
    """A text from a file, made fit for a message: ASCII, quoted, cut."""
    return ascii(text if len(text) <= longest else text[:longest] + "...")


def describe(value: Any) -> str:
    """What a value from a file is, in a few words; never walks into it."""
    match value:
        case None | bool() | int() | float():
            return repr(value) if not isinstance(value, int) or abs(value) < 1 << 64 else "a huge integer"
        case str():
            return f"the text {shown(value, 40)}"
        case bytes() | bytearray() | memoryview():
            return f"{len(value):,} bytes"
        case torch.Tensor() | np.ndarray():
            return f"{'tensor' if isinstance(value, torch.Tensor) else 'array'} {list(value.shape)}"
        case dict():
            return f"dict of {len(value)}"
        case list() | tuple() | set() | frozenset():
            return f"{type(value).__name__} of {len(value)}"
        case Handler() | Standin():
            return value.name
    return type(value).__name__


def names_in_words(names: Iterable[Any], most: int = 8) -> str:
    """A short enumeration of names from a file."""
    listed = [str(name) if isinstance(name, str) else describe(name) for name in names]
    cut = [shown(name, 60)[1:-1] for name in listed[:most]]
    return ", ".join(cut) + (f" and {len(listed) - most} more" if len(listed) > most else "")
