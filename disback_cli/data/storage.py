"""Where encoded pictures lie, and how one is read by its position: folders, ZIP archives, tar shards.

Every storage can be read by several threads at once and after a fork: files are read with ``pread``, which has no
position that processes could share, and no reader holds state that changes.
"""

from __future__ import annotations

import hashlib
import os
import struct
import weakref
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from disback_cli.errors import UserError
from disback_cli.runtime.progress import tracked

_LOCAL_HEADER = struct.Struct("<4s22xHH")  # signature, lengths of the name and of the extra field
_ENCRYPTED = 0x1


class Storage(Protocol):
    """Encoded pictures addressed by position."""

    def __len__(self) -> int: ...

    def where(self, index: int) -> str:
        """The picture's file, and the archive it is in, for messages."""
        ...

    def read(self, index: int) -> bytes:
        """The encoded picture; UserError naming it if it cannot be read or is cut short."""
        ...

    def identity(self) -> str:
        """Sha256 (64 hex digits) of the pictures, their names and order; each storage says what it takes for that."""
        ...


class NameList:
    """Many short names in one block of memory; a list of a million Python strings costs five times as much."""

    def __init__(self, names: Sequence[str]) -> None:
        self._bytes = np.array([os.fsencode(name) for name in names])

    def __len__(self) -> int:
        return len(self._bytes)

    def __getitem__(self, index: int) -> str:
        return os.fsdecode(bytes(self._bytes[index]))


class PositionalFile:
    """A file that is read at offsets; opened once, by its absolute path again after pickling."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self._descriptor = os.open(self.path, os.O_RDONLY)
        self.size = os.fstat(self._descriptor).st_size
        weakref.finalize(self, os.close, self._descriptor)

    def read(self, offset: int, size: int) -> bytes:
        """Up to ``size`` bytes from ``offset``; fewer only at the end of the file."""
        data = os.pread(self._descriptor, size, offset)
        while 0 < len(data) < size:  # the system may hand out less than asked for
            more = os.pread(self._descriptor, size - len(data), offset + len(data))
            if not more:
                break
            data += more
        return data

    def __reduce__(self) -> tuple[Any, ...]:
        return PositionalFile, (self.path,)


def hash_of_contents(storage: Storage, names: Sequence[str] | NameList, what: str) -> str:
    """Sha256 over the names and the encoded bytes of all pictures; reads everything, with progress."""
    digest = hashlib.sha256()
    for index in tracked(range(len(storage)), f"hashing {what}", len(storage)):
        data = storage.read(index)
        digest.update(f"{names[index]}\0{len(data)}\0".encode(errors="surrogateescape"))
        digest.update(data)
    return digest.hexdigest()


class FolderStorage:
    """Files under a folder. Identity: sha256 over their relative names and bytes."""

    def __init__(self, root: Path, names: Sequence[str]) -> None:
        self.root = root.absolute()
        self._shown = root
        self._names = NameList(names)

    def __len__(self) -> int:
        return len(self._names)

    def where(self, index: int) -> str:
        """The file's path."""
        return str(self._shown / self._names[index])

    def read(self, index: int) -> bytes:
        """The file's bytes."""
        try:
            return (self.root / self._names[index]).read_bytes()
        except OSError as error:
            raise UserError(f"{self.where(index)}: cannot be read: {error.strerror}") from error

    def identity(self) -> str:
        """Sha256 over relative names and bytes."""
        return hash_of_contents(self, self._names, str(self._shown))


class ZipStorage:
    """Members of a ZIP archive, stored or deflated.

    Identity: sha256 over the members' names, sizes and CRC-32s from the archive's directory. It costs no reading of
    the pictures; every read is checked against the CRC, so the directory cannot lie about what was used.
    """

    def __init__(self, path: Path, members: Sequence[zipfile.ZipInfo]) -> None:
        self._shown = path
        self._file = PositionalFile(path)
        self._names = NameList([member.filename for member in members])
        self._offsets = np.array([member.header_offset for member in members], dtype=np.int64)
        self._packed = np.array([member.compress_size for member in members], dtype=np.int64)
        self._sizes = np.array([member.file_size for member in members], dtype=np.int64)
        self._crcs = np.array([member.CRC for member in members], dtype=np.uint32)
        self._deflated = np.array([member.compress_type == zipfile.ZIP_DEFLATED for member in members])
        for member in members:
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or member.flag_bits & _ENCRYPTED:
                kind = "encrypted" if member.flag_bits & _ENCRYPTED else f"compressed by method {member.compress_type}"
                raise UserError(f"{member.filename} in {path} is {kind}; pack the images without: zip -0 -r")

    @property
    def compressed(self) -> bool:
        """Whether any member is deflated."""
        return bool(self._deflated.any())

    def __len__(self) -> int:
        return len(self._names)

    def where(self, index: int) -> str:
        """Member and archive."""
        return f"{self._names[index]} in {self._shown}"

    def read(self, index: int) -> bytes:
        """The member's bytes, checked against its CRC."""
        offset = int(self._offsets[index])
        head = self._file.read(offset, _LOCAL_HEADER.size)
        data = b""
        if len(head) == _LOCAL_HEADER.size and head.startswith(b"PK\x03\x04"):
            _, name, extra = _LOCAL_HEADER.unpack(head)
            data = self._file.read(offset + _LOCAL_HEADER.size + name + extra, int(self._packed[index]))
        if self._deflated[index]:
            try:
                data = zlib.decompress(data, -zlib.MAX_WBITS)
            except zlib.error:
                data = b""
        if len(data) != self._sizes[index] or zlib.crc32(data) != self._crcs[index]:
            raise UserError(f"{self.where(index)}: damaged (its checksum differs); copy or download the archive again")
        return data

    def identity(self) -> str:
        """Sha256 over names, sizes and CRC-32s."""
        digest = hashlib.sha256()
        for index in range(len(self)):
            line = f"{self._names[index]}\0{self._sizes[index]}\0{self._crcs[index]}\n"
            digest.update(line.encode(errors="surrogateescape"))
        return digest.hexdigest()


class TarStorage:
    """Pictures inside uncompressed tar files, by byte range. Identity: sha256 over member names and bytes."""

    def __init__(
        self,
        shards: Sequence[Path],
        names: Sequence[str],
        shard_of: Sequence[int],
        offsets: Sequence[int],
        sizes: Sequence[int],
    ) -> None:
        self._shards = [shard.absolute() for shard in shards]
        self._shown = list(shards)
        self._names = NameList(names)
        self._shard_of = np.array(shard_of, dtype=np.int32)
        self._offsets = np.array(offsets, dtype=np.int64)
        self._sizes = np.array(sizes, dtype=np.int64)

    def __len__(self) -> int:
        return len(self._names)

    def where(self, index: int) -> str:
        """Member and shard."""
        return f"{self._names[index]} in {self._shown[self._shard_of[index]]}"

    def read(self, index: int) -> bytes:
        """The member's bytes."""
        size = int(self._sizes[index])
        try:
            # Opened for every read: a thousand shards held open would exceed what a process may.
            with open(self._shards[self._shard_of[index]], "rb", buffering=0) as shard:
                shard.seek(int(self._offsets[index]))
                data = shard.read(size) or b""
        except OSError as error:
            raise UserError(f"{self.where(index)}: cannot be read: {error.strerror}") from error
        if len(data) != size:
            raise UserError(f"{self.where(index)}: cut short, {len(data)} of {size} bytes; copy the shard again")
        return data

    def identity(self) -> str:
        """Sha256 over member names and bytes."""
        return hash_of_contents(self, self._names, str(self._shown[0].parent))
