"""PyTorch's tensors in pickles, rebuilt from checked bytes: plain pickles, and the two formats of ``torch.save``.

A tensor is a view of a storage. ``torch.save`` keeps storages outside the pickle and refers to them by persistent ids;
a plain pickle holds each storage as bytes, which are a small ``torch.save`` stream of their own (the older format:
several pickles in a row, then the raw numbers).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from disback_cli.denoisers.pickles.graph import finish
from disback_cli.denoisers.pickles.machine import Allowed, Machine
from disback_cli.denoisers.pickles.objects import (
    Handler,
    InertDict,
    Reading,
    Standin,
    describe,
    is_index_tuple,
    shown,
)
from disback_cli.denoisers.pickles.zip_entries import SIGNATURE, stored_entries

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_VERSION = 1001
# A tensor without numbers may name any sizes, of which PyTorch multiplies those that are not zero.
LARGEST_SHAPE = 1 << 48
STORAGE_DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


class Storage(Standin):
    """A row of numbers in the file; its bytes may become known only after the pickle that refers to it."""

    def __init__(self, reading: Reading, dtype: torch.dtype, numel: int) -> None:
        """Declare it.

        Args:
            reading: the file.
            dtype: of the numbers.
            numel: how many there are.
        """
        super().__init__(reading, "a torch storage")
        self.dtype = dtype
        self.numel = numel
        self._bytes: memoryview | None = None
        self._values: Tensor | None = None

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return self.numel * self.dtype.itemsize

    @property
    def is_filled(self) -> bool:
        """Whether its bytes are known."""
        return self._bytes is not None

    def fill(self, content: memoryview) -> None:
        """Say which bytes of the file these are.

        Raises:
            UserError: their number is not the declared one.
        """
        if len(content) != self.nbytes:
            raise self.reading.error(
                f"a storage of {self.numel:,} numbers ({str(self.dtype).removeprefix('torch.')}) has {len(content):,} "
                f"bytes instead of {self.nbytes:,}: the file is damaged"
            )
        self._bytes = content

    def values(self) -> Tensor:
        """The numbers, [numel], copied from the file once."""
        if self._values is None:
            if self._bytes is None:
                raise self.reading.error("a tensor's numbers are not in the file: it is damaged")
            self.reading.spend(self.nbytes)
            # Copied rather than shared: numbers inside a pickle are not aligned, and the file may change.
            raw = torch.empty(self.nbytes, dtype=torch.uint8)
            raw.numpy()[:] = np.frombuffer(self._bytes, np.uint8)
            if self.dtype == torch.bool and bool((raw > 1).any()):
                raise self.reading.error("a storage of truth values holds other numbers: the file is damaged")
            self._values = raw.view(self.dtype)
        return self._values


class TensorView(Standin):
    """A tensor under construction: which part of a storage it is."""

    def __init__(self, storage: Storage, offset: int, size: tuple[int, ...], stride: tuple[int, ...]) -> None:
        """Check that the view stays inside its storage.

        Args:
            storage: what it shows.
            offset: position of its first number.
            size: its shape.
            stride: distance in the storage between neighbours, for each axis.

        Raises:
            UserError: the view reaches beyond the storage, or repeats numbers to become larger than it.
        """
        super().__init__(storage.reading, "a tensor")
        if math.prod(length for length in size if length) > LARGEST_SHAPE:
            raise storage.reading.error(f"a tensor of shape {list(size)} cannot exist: the file is damaged")
        numel = math.prod(size)
        last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True)) if numel else offset
        if last >= storage.numel + (numel == 0) or numel > storage.numel:
            raise storage.reading.error(
                f"a tensor of shape {list(size)}, stride {list(stride)} and offset {offset} reaches beyond its storage "
                f"of {storage.numel:,} numbers: the file is damaged"
            )
        self.storage, self.offset, self.size, self.stride = storage, offset, size, stride

    def finished(self, children: list[Any]) -> Tensor:
        """The tensor."""
        self.reading.spend(math.prod(self.size) * self.storage.dtype.itemsize)
        if 0 in self.size:
            return torch.empty(self.size, dtype=self.storage.dtype)
        return self.storage.values().as_strided(self.size, self.stride, self.offset)


class StorageType(Handler):
    """A class such as ``torch.FloatStorage``, which persistent ids name."""

    def __init__(self, reading: Reading, name: str, dtype: torch.dtype) -> None:
        """Remember the dtype of its numbers."""
        super().__init__(reading, name)
        self.dtype = dtype


class TensorHandler(Handler):
    """``torch._utils._rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks)``."""

    def call(self, arguments: tuple[Any, ...]) -> Any:
        """The tensor under construction; whether it required gradients is dropped, hooks are refused."""
        if len(arguments) not in (6, 7) or not isinstance(arguments[0], Storage) or arguments[6:] not in ((), (None,)):
            return super().call(arguments)
        storage, offset, size, stride, requires_grad, hooks = arguments[:6]
        whole = is_index_tuple((offset,)) and is_index_tuple(size) and is_index_tuple(stride)
        if not whole or len(size) != len(stride) or type(requires_grad) is not bool or not _is_empty_dict(hooks):
            return super().call(arguments)
        return TensorView(storage, offset, size, stride)


class ParameterHandler(Handler):
    """``torch._utils._rebuild_parameter(data, requires_grad, hooks)``."""

    def call(self, arguments: tuple[Any, ...]) -> Any:
        """The tensor under construction."""
        if len(arguments) != 3 or not isinstance(arguments[0], TensorView) or not _is_empty_dict(arguments[2]):
            return super().call(arguments)
        return arguments[0]


class LoadFromBytesHandler(Handler):
    """``torch.storage._load_from_bytes(bytes)``: a storage inside a plain pickle.

    PyTorch's function unpickles whatever the bytes hold. Here they go through the same machine, and can name nothing
    but storages.
    """

    def call(self, arguments: tuple[Any, ...]) -> Any:
        """The storage."""
        if len(arguments) != 1 or not isinstance(arguments[0], (bytes, bytearray, memoryview)):
            return super().call(arguments)
        storage = read_torch_root(memoryview(arguments[0]), self.reading, storage_types(self.reading))
        if not isinstance(storage, Storage):
            raise self.reading.error(f"where the numbers of a tensor should be it holds {describe(storage)}")
        return storage


def storage_types(reading: Reading) -> dict[tuple[str, str], Handler]:
    """Handlers of the storage classes."""
    return {("torch", name): StorageType(reading, f"torch.{name}", dtype) for name, dtype in STORAGE_DTYPES.items()}


def torch_globals(reading: Reading) -> dict[tuple[str, str], Handler]:
    """Handlers of PyTorch's globals."""
    return storage_types(reading) | {
        ("torch._utils", "_rebuild_tensor_v2"): TensorHandler(reading, "torch._utils._rebuild_tensor_v2"),
        ("torch._utils", "_rebuild_parameter"): ParameterHandler(reading, "torch._utils._rebuild_parameter"),
        ("torch.storage", "_load_from_bytes"): LoadFromBytesHandler(reading, "torch.storage._load_from_bytes"),
    }


class _Storages:
    """What persistent ids refer to: storages, and in the older format module classes with their source text."""

    def __init__(self, reading: Reading) -> None:
        self.reading = reading
        self.by_key: dict[str, Storage] = {}

    def find(self, identity: Any) -> Storage | Handler:
        """The storage of ``("storage", class, key, device, numel)``; the device it once was on does not matter.

        ``("module", class, file, source)`` is the class itself.
        """
        kind = identity[0] if type(identity) is tuple and identity else None
        if type(kind) is str and kind == "module" and len(identity) == 4 and isinstance(identity[1], Handler):
            return identity[1]
        known = type(identity) is tuple and len(identity) in (5, 6) and identity[5:] in ((), (None,))
        if not known or type(kind) is not str or kind != "storage":
            raise self.reading.error(f"it refers to {describe(identity)} outside the pickle, which is no storage")
        storage_type, key, numel = identity[1], identity[2], identity[4]
        if not isinstance(storage_type, StorageType) or type(key) is not str or not is_index_tuple((numel,)):
            raise self.reading.error("it refers to a storage in a way that is not known: the file is damaged")
        storage = self.by_key.setdefault(key, Storage(self.reading, storage_type.dtype, numel))
        if (storage.dtype, storage.numel) != (storage_type.dtype, numel):
            raise self.reading.error(f"it describes the storage {shown(key)} in two ways: the file is damaged")
        return storage


def read_torch_root(data: memoryview, reading: Reading, allow: Allowed, plain: bool = False) -> Any:
    """Read a file or stream that PyTorch wrote.

    Args:
        data: the bytes.
        reading: the file they are (part of), for messages and limits.
        allow: handlers of the globals that may be named.
        plain: accept a plain pickle too.

    Returns:
        What the machine left, still containing stand-ins; all storages are filled.

    Raises:
        UserError: the bytes are neither, are damaged, or name something else.
    """
    if bytes(data[:4]) == SIGNATURE:
        return _read_zip(data, reading, allow)
    machine = Machine(data, reading, allow)
    root, end = machine.run()
    if type(root) is int and root == LEGACY_MAGIC:
        return _read_legacy(data, end, reading, allow)
    if not plain:
        raise reading.error("where a torch.save stream should be there is another pickle")
    if end != len(data):
        raise reading.error(f"{len(data) - end:,} bytes follow the pickle, which ends at byte {end:,}: it is damaged")
    return root


def read_torch(data: memoryview, reading: Reading, allow: Allowed) -> Any:
    """Read a file that is a plain pickle or was written by ``torch.save``, and finish it (see ``graph.finish``)."""
    return finish(read_torch_root(data, reading, allow, plain=True), reading)


def _read_zip(data: memoryview, reading: Reading, allow: Allowed) -> Any:
    """``torch.save``'s archive: ``NAME/data.pkl``, ``NAME/data/KEY`` for each storage, ``NAME/byteorder``."""
    entries = stored_entries(data, reading)
    roots = [name.removesuffix("/data.pkl") for name in entries if name.endswith("/data.pkl")]
    if len(roots) != 1:
        raise reading.error("it is a ZIP archive that torch.save did not write: it lacks data.pkl")
    if bytes(entries.get(f"{roots[0]}/byteorder", memoryview(b"little"))[:16]) != b"little":
        raise reading.error("it was written on a big-endian machine, which is not supported")
    pickle = entries[f"{roots[0]}/data.pkl"]
    storages = _Storages(reading)
    root, end = Machine(pickle, reading, allow, storages.find).run()
    if end != len(pickle):
        raise reading.error("bytes follow the pickle in data.pkl: it is damaged")
    for key, storage in storages.by_key.items():
        content = entries.get(f"{roots[0]}/data/{key}")
        if content is None:
            raise reading.error(f"the numbers of storage {shown(key)} are missing: the file is damaged")
        storage.fill(content)
    return root


def _read_legacy(data: memoryview, position: int, reading: Reading, allow: Allowed) -> Any:
    """The older format: magic number, version, system, object, keys (a pickle each), then the storages."""
    version, position = Machine(data, reading, {}, start=position).run()
    system, position = Machine(data, reading, {}, start=position).run()
    if type(version) is not int or version != LEGACY_VERSION or type(system) is not dict:
        raise reading.error("it is a torch.save stream of an unknown version")
    if system.get("little_endian") is not True:
        raise reading.error("it was written on a big-endian machine, which is not supported")
    storages = _Storages(reading)
    root, position = Machine(data, reading, allow, storages.find, position).run()
    keys, position = Machine(data, reading, {}, start=position).run()
    if type(keys) is not list:
        raise reading.error("a torch.save stream lacks its list of storages: it is damaged")
    for key in keys:
        storage = storages.by_key.get(key) if type(key) is str else None
        if storage is None or storage.is_filled:
            raise reading.error(f"a torch.save stream lists the unknown storage {describe(key)}: it is damaged")
        numel = int.from_bytes(data[position : position + 8], "little")
        begin, position = position + 8, position + 8 + storage.nbytes
        if numel != storage.numel or position > len(data):
            raise reading.error(
                f"a storage of {storage.numel:,} numbers should follow at byte {begin:,}, but {numel:,} are announced "
                f"and {max(len(data) - begin, 0):,} bytes are left: the file is truncated or damaged"
            )
        storage.fill(data[begin:position])
    if position != len(data) or not all(storage.is_filled for storage in storages.by_key.values()):
        raise reading.error("a torch.save stream does not hold exactly the storages it lists: it is damaged")
    return root


def _is_empty_dict(hooks: Any) -> bool:
    """Whether a tensor has no hooks: an empty ordered dictionary, or None in files of old."""
    return hooks is None or (isinstance(hooks, (dict, InertDict)) and not hooks)
