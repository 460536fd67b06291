"""The official files of a teacher: which they are, where they are to be had, and where they are looked for."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from disback_cli.errors import UserError
from disback_cli.runtime.byte_progress import megabytes

_SHA256 = re.compile(r"[0-9a-f]{64}")
_BYTES_PER_PARAMETER = 4


@dataclass(frozen=True)
class OfficialFile:
    """One file.

    Attributes:
        name: its place below the teachers' folder, forward slashes.
        url: where it is to be had.
        sha256: of its content, 64 lower-case hexadecimal digits; None where nobody has published it.
        bytes: its size, None where that is unknown.
    """

    name: str
    url: str
    sha256: str | None = None
    bytes: int | None = None


@dataclass(frozen=True)
class Official:
    """The node ``teacher.official``.

    Attributes:
        files: one file, or those of a folder.
        place: what is opened, relative to the teachers' folder: the file, or the folder of the files.
        parameters: how many the network has; None if unknown.
        licence: of the weights; None if unknown.
    """

    files: tuple[OfficialFile, ...]
    place: str
    parameters: int | None = None
    licence: str | None = None

    @property
    def bytes(self) -> tuple[int | None, bool]:
        """Size of all files, and whether it is exact; an estimate of four bytes a parameter where it is not known."""
        sizes = [file.bytes for file in self.files]
        if all(size is not None for size in sizes):
            return sum(size for size in sizes if size is not None), True
        return (None if self.parameters is None else _BYTES_PER_PARAMETER * self.parameters), False


def read_official(node: Mapping[str, Any]) -> Official:
    """Read ``teacher.official``: ``files`` (name, url, sha256, bytes), ``root``, ``parameters``, ``licence``.

    Other keys are for the interpolations of the configuration. ``root`` names the folder that several files make up;
    without it that is the folder they share.

    Raises:
        UserError: a key is missing, or its value cannot be right.
    """
    entries = node.get("files")
    if not isinstance(entries, Sequence) or isinstance(entries, str) or not entries:
        raise UserError("teacher.official.files: need a list of {name, url, sha256, bytes}, at least one")
    files = tuple(_file(entry, index) for index, entry in enumerate(entries))
    names = [file.name for file in files]
    root = node.get("root")
    if root is not None:
        place = _relative(str(root), "teacher.official.root")
    else:
        place = names[0] if len(names) == 1 else posixpath.commonpath(names) or "."
    parameters = node.get("parameters")
    if parameters is not None and (not isinstance(parameters, int) or parameters < 1):
        raise UserError(f"teacher.official.parameters={parameters}: must be a positive int, or null")
    licence = node.get("licence")
    return Official(files, place, parameters, None if licence is None else str(licence))


def _file(entry: Any, index: int) -> OfficialFile:
    where = f"teacher.official.files[{index}]"
    if not isinstance(entry, Mapping) or not entry.get("name") or not entry.get("url"):
        raise UserError(f"{where}: needs a name and a url")
    sha256, size = entry.get("sha256"), entry.get("bytes")
    if sha256 is not None and _SHA256.fullmatch(str(sha256).lower()) is None:
        raise UserError(f"{where}.sha256={sha256}: must be 64 hexadecimal digits, or null")
    if size is not None and (not isinstance(size, int) or size < 1):
        raise UserError(f"{where}.bytes={size}: must be a positive int, or null")
    name = _relative(str(entry["name"]), f"{where}.name")
    return OfficialFile(name, str(entry["url"]), None if sha256 is None else str(sha256).lower(), size)


def _relative(name: str, where: str) -> str:
    """A name that cannot lead out of the folder it is looked for in."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts or "\\" in name:
        raise UserError(f"{where}={name}: must be a relative name without '..'")
    return path.as_posix()


def official_place(folder: str, node: Mapping[str, Any]) -> Path:
    """Where the official file, or the folder of the official files, is looked for; it need not exist."""
    return Path(folder).expanduser() / read_official(node).place


def missing_message(name: str, folder: str, node: Mapping[str, Any]) -> str:
    """What to tell a user whose official file is not there: where to get it, where to put it, how to recognise it.

    Args:
        name: of the teacher.
        folder: the teachers' folder.
        node: ``teacher.official``.
    """
    official = read_official(node)
    root = Path(folder).expanduser()
    absent = [file for file in official.files if not (root / file.name).is_file()]
    lines = [f"the official {'files' if len(official.files) > 1 else 'file'} of teacher={name} cannot be found:"]
    for file in absent or official.files:
        size = "size not published" if file.bytes is None else f"{file.bytes:,} bytes"
        lines += [
            f"  put   {root / file.name}",
            f"  from  {file.url}",
            f"  ({size}, sha256 {file.sha256 or 'not published'})",
        ]
    size_of_all, exact = official.bytes
    if size_of_all is not None and not exact:
        lines.append(f"  about {megabytes(size_of_all)} for {official.parameters:,} parameters in fp32")
    if official.licence is not None:
        lines.append(f"  licence of the weights: {official.licence}")
    lines.append(f"`disback fetch teacher={name}` downloads and checks it; your own file: teacher.path=FILE")
    return "\n".join(lines)
