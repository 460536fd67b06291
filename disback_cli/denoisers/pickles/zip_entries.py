"""The entries of a ZIP file as views of its bytes: stored ones only, which is how ``torch.save`` writes them.

Nothing is copied or unpacked, so no entry can be larger than the file. Format: PKWARE's APPNOTE, with ZIP64.
"""

from __future__ import annotations

import struct

from disback_cli.denoisers.pickles.objects import Reading, shown
from disback_cli.errors import UserError

SIGNATURE = b"PK\3\4"
_END, _END64, _LOCATOR64, _ENTRY = b"PK\5\6", b"PK\6\6", b"PK\6\7", b"PK\1\2"
_LONGEST_END = 22 + 65535
_IN_EXTRA = 0xFFFFFFFF


def stored_entries(data: memoryview, reading: Reading) -> dict[str, memoryview]:
    """List the entries.

    Args:
        data: the ZIP file.
        reading: the file, for messages and limits.

    Returns:
        The content of each entry by its name, in the order of the directory.

    Raises:
        UserError: the file is truncated or damaged, or an entry is compressed or encrypted.
    """
    count, position = _directory(data, reading)
    reading.count(count)
    entries: dict[str, memoryview] = {}
    for _ in range(count):
        header = _unpack("<4s6H3L5H2L", data, position, reading)
        if header[0] != _ENTRY:
            raise _damaged(reading)
        flags, method, name_length, extra_length, comment_length = header[3], header[4], *header[10:13]
        begin = position + 46
        position = begin + name_length + extra_length + comment_length
        if position > len(data):
            raise _damaged(reading)
        name = bytes(data[begin : begin + name_length]).decode("utf-8", errors="replace")
        if name in entries:
            raise reading.error(f"the entry {shown(name)} occurs twice in the ZIP archive: it is damaged")
        packed, size, offset = header[8], header[9], header[16]
        if _IN_EXTRA in (packed, size, offset):
            extra = data[begin + name_length : begin + name_length + extra_length]
            size, packed, offset = _from_extra([size, packed, offset], extra, reading)
        if method != 0 or flags & 1 or packed != size:
            raise reading.error(
                f"the entry {shown(name)} of the ZIP archive is compressed or encrypted; store it plainly"
            )
        entries[name] = _content(data, offset, size, reading)
    return entries


def _directory(data: memoryview, reading: Reading) -> tuple[int, int]:
    """Number of entries and position of the directory."""
    window = bytes(data[max(0, len(data) - _LONGEST_END) :])
    found = window.rfind(_END)
    if found < 0:
        raise _damaged(reading)
    end = len(data) - len(window) + found
    *_, count, size, offset, _comment = _unpack("<4s4H2LH", data, end, reading)
    if end >= 20 and bytes(data[end - 20 : end - 16]) == _LOCATOR64:
        end64 = _unpack("<4sLQL", data, end - 20, reading)[2]
        signature, *_, count, size, offset = _unpack("<4sQ2H2L4Q", data, end64, reading)
        if signature != _END64:
            raise _damaged(reading)
    if offset + size > len(data) or count * 46 > size:
        raise _damaged(reading)
    return count, offset


def _from_extra(values: list[int], extra: memoryview, reading: Reading) -> list[int]:
    """Replace the values that say so by the 64-bit ones of the ZIP64 extra field, in order."""
    position = 0
    while position + 4 <= len(extra):
        identity, length = struct.unpack_from("<2H", extra, position)
        position += 4
        if identity == 1:
            wide = [index for index, value in enumerate(values) if value == _IN_EXTRA]
            if position + length > len(extra) or length < 8 * len(wide):
                break
            for rank, index in enumerate(wide):
                (values[index],) = struct.unpack_from("<Q", extra, position + 8 * rank)
            return values
        position += length
    raise _damaged(reading)


def _content(data: memoryview, offset: int, size: int, reading: Reading) -> memoryview:
    """The bytes of the entry whose local header is at ``offset``."""
    local = _unpack("<4s5H3L2H", data, offset, reading)
    begin = offset + 30 + local[9] + local[10]
    if local[0] != SIGNATURE or begin + size > len(data):
        raise _damaged(reading)
    return data[begin : begin + size]


def _unpack(layout: str, data: memoryview, position: int, reading: Reading) -> tuple[int, ...]:
    """Fixed-size fields at a position, which is checked first."""
    if position + struct.calcsize(layout) > len(data):
        raise _damaged(reading)
    return struct.unpack_from(layout, data, position)


def _damaged(reading: Reading) -> UserError:
    """What to say about anything that does not fit."""
    return reading.error("the ZIP archive is truncated or damaged: copy or download it again")
