"""NumPy scalars and arrays in pickles, rebuilt from checked bytes; and plain data files such as CIFAR-10's batches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from disback_cli.denoisers.pickles.machine import read_pickle
from disback_cli.denoisers.pickles.objects import (
    Bytes,
    Handler,
    Reading,
    Standin,
    describe,
    is_index_tuple,
    plain_globals,
)

DTYPE_CODES = frozenset(["b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16"])


class DType(Standin):
    """A numeric dtype under construction; its byte order comes as a state."""

    def __init__(self, reading: Reading, code: str) -> None:
        """Start with the native byte order."""
        super().__init__(reading, f"numpy.dtype {code}")
        self.dtype = np.dtype(code)

    def build(self, state: Any) -> None:
        """Take numpy's state of a plain dtype, (version, byte order, None, None, None, -1, -1, 0)."""
        plain = type(state) is tuple and len(state) == 8 and [type(entry) for entry in state[:2]] == [int, str]
        if not plain or state[1] not in ("<", ">", "=", "|") or state[2:] != (None, None, None, -1, -1, 0):
            return super().build(state)
        self.dtype = self.dtype.newbyteorder(state[1])

    def finished(self, children: list[Any]) -> np.dtype[Any]:
        """The dtype."""
        return self.dtype


class DTypeHandler(Handler):
    """``numpy.dtype(code, align, copy)``: numbers only; object arrays would hold pickled objects."""

    def call(self, arguments: tuple[Any, ...]) -> DType:
        """The dtype of a code such as f8."""
        code = arguments[0] if arguments else None
        if type(code) is not str or code not in DTYPE_CODES:
            raise self.reading.error(f"it holds NumPy data of type {describe(code)}; only numbers are read")
        return DType(self.reading, code)


class ScalarHandler(Handler):
    """``numpy.core.multiarray.scalar(dtype, bytes)``."""

    def call(self, arguments: tuple[Any, ...]) -> Any:
        """The number, as Python's int, float, complex or bool of equal value."""
        if len(arguments) != 2 or not isinstance(arguments[0], DType):
            return super().call(arguments)
        dtype, raw = arguments[0].dtype, raw_bytes(arguments[1], self.reading)
        if len(raw) != dtype.itemsize:
            raise self.reading.error(f"a NumPy number of type {dtype} has {len(raw)} bytes: the pickle is damaged")
        return np.frombuffer(raw, dtype)[0].item()


class Array(Standin):
    """An array under construction; everything about it comes as a state."""

    def __init__(self, reading: Reading) -> None:
        """Start without content."""
        super().__init__(reading, "numpy.ndarray")
        self.state: tuple[Sequence[int], DType, bool, Bytes] | None = None

    def build(self, state: Any) -> None:
        """Take numpy's state of an array, (version, shape, dtype, is Fortran-ordered, bytes)."""
        if type(state) is not tuple or len(state) != 5 or not is_index_tuple(state[1]):
            return super().build(state)
        _, shape, dtype, fortran, raw = state
        if not isinstance(dtype, DType) or not isinstance(fortran, int):
            return super().build(state)
        self.state = (shape, dtype, bool(fortran), raw_bytes(raw, self.reading))

    def finished(self, children: list[Any]) -> np.ndarray[Any, Any]:
        """The array, contiguous, in the native byte order, with its own memory."""
        if self.state is None:
            return super().finished(children)
        shape, dtype_standin, fortran, raw = self.state
        dtype = dtype_standin.dtype
        if math.prod(shape) * dtype.itemsize != len(raw):
            raise self.reading.error(
                f"an array of shape {list(shape)} and type {dtype} has {len(raw):,} bytes: the pickle is damaged"
            )
        self.reading.spend(len(raw))
        flat = np.frombuffer(raw, dtype) if len(raw) else np.empty(0, dtype)
        ordered = flat.reshape(shape, order="F" if fortran else "C")
        return np.array(ordered, dtype.newbyteorder("="), order="C")


class ReconstructHandler(Handler):
    """``numpy.core.multiarray._reconstruct(numpy.ndarray, (0,), b"b")``: an array that gets its state later."""

    def call(self, arguments: tuple[Any, ...]) -> Any:
        """An array under construction."""
        kind = arguments[0] if arguments else None
        if len(arguments) != 3 or not isinstance(kind, Handler) or kind.name != "numpy.ndarray":
            return super().call(arguments)
        return Array(self.reading)


class FromBufferHandler(Handler):
    """``numpy.core.numeric._frombuffer(bytes, dtype, shape, order)``: arrays in protocol 5."""

    def call(self, arguments: tuple[Any, ...]) -> Any:
        """An array under construction that has its state."""
        if len(arguments) != 4 or arguments[3] not in ("C", "F"):
            return super().call(arguments)
        raw, dtype, shape, order = arguments
        array = Array(self.reading)
        array.build((1, shape, dtype, order == "F", raw))
        return array


def raw_bytes(value: Any, reading: Reading) -> Bytes:
    """The bytes of a number or an array; Python 2 wrote them as text.

    Raises:
        UserError: the value is neither.
    """
    if isinstance(value, (bytes, bytearray, memoryview)):
        return value
    if type(value) is str:
        reading.spend(len(value))
        try:
            return value.encode("latin-1")
        except UnicodeEncodeError:
            pass
    raise reading.error(f"it holds NumPy data given as {describe(value)}; only numbers written as bytes are read")


def numpy_globals(reading: Reading) -> dict[tuple[str, str], Handler]:
    """Handlers of NumPy's globals, under the names before and since NumPy 2."""
    handlers: dict[tuple[str, str], Handler] = {
        ("numpy", "dtype"): DTypeHandler(reading, "numpy.dtype"),
        ("numpy", "ndarray"): Handler(reading, "numpy.ndarray"),
    }
    for core in ("numpy.core", "numpy._core"):
        handlers[(f"{core}.multiarray", "scalar")] = ScalarHandler(reading, "numpy scalar")
        handlers[(f"{core}.multiarray", "_reconstruct")] = ReconstructHandler(reading, "numpy _reconstruct")
        handlers[(f"{core}.numeric", "_frombuffer")] = FromBufferHandler(reading, "numpy _frombuffer")
    return handlers


def read_plain_pickle(data: bytes | memoryview, what: str = "the pickle") -> Any:
    """Read a pickle that holds plain data, such as CIFAR-10's python batches.

    Args:
        data: the file's content.
        what: how messages call it, e.g. its path.

    Returns:
        Dicts, lists, tuples, sets, scalars, text, bytes and NumPy arrays of numbers. Strings that Python 2 wrote become
        ``str``, one latin-1 character for each byte; NumPy scalars become Python's.

    Raises:
        UserError: the pickle is damaged, or holds anything else.
    """
    reading = Reading(what, len(data))
    return read_pickle(memoryview(data).cast("B"), reading, plain_globals(reading) | numpy_globals(reading))
