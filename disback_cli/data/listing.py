"""Which files a folder or a ZIP archive holds, by relative names with forward slashes."""

from __future__ import annotations

import logging
import os
import zipfile
from pathlib import Path

from disback_cli.errors import UserError

log = logging.getLogger(__name__)

_LONG_INDEX = 1 << 30  # bytes; reading the directory of larger archives takes seconds


def existing(path: str, expected: str, option: str) -> Path:
    """The path, home folder expanded; UserError saying what was expected there and what to type if it is absent."""
    source = Path(path).expanduser()
    if not source.exists():
        raise UserError(f"there is nothing at {source}: expected {expected}; type {option}=PATH")
    return source


def name_of(source: Path) -> str:
    """What a data set from this file or folder is called: the file's name without its ending, the folder's name."""
    return source.resolve().name if source.is_dir() else source.stem


def files_under(root: Path) -> list[str]:
    """All files under a folder, links followed, sorted by name; UserError if it cannot be listed."""

    def refuse(error: OSError) -> None:
        raise UserError(f"{error.filename}: cannot be listed: {error.strerror}") from error

    names = []
    for folder, _, files in os.walk(root, onerror=refuse, followlinks=True):
        inner = os.path.relpath(folder, root).replace(os.sep, "/")
        names += files if inner == "." else [f"{inner}/{name}" for name in files]
    return sorted(names)


def zip_members(path: Path) -> dict[str, zipfile.ZipInfo]:
    """The files in a ZIP archive by name, in sorted order; UserError if it is damaged or names one twice."""
    if path.stat().st_size >= _LONG_INDEX:
        log.info("reading the directory of %s", path)
    try:
        with zipfile.ZipFile(path) as archive:
            members = [member for member in archive.infolist() if not member.is_dir()]
    except (zipfile.BadZipFile, OSError, EOFError, ValueError) as error:
        raise UserError(
            f"{path} is no readable ZIP archive ({error}); if it was copied or downloaded, it may be cut short: "
            "do so again"
        ) from error
    by_name = {member.filename: member for member in members}
    if len(by_name) != len(members):
        seen: set[str] = set()
        twice = next(m.filename for m in members if m.filename in seen or seen.add(m.filename))  # type: ignore[func-returns-value]
        raise UserError(f"{path} holds {twice} twice; pack the archive again")
    return dict(sorted(by_name.items()))
