"""What a file is, by its content: names end in anything, and a download may have brought something else."""

from __future__ import annotations

import mmap
import struct
import zipfile
from pathlib import Path
from typing import Literal

from disback_cli.errors import UserError

Content = Literal[
    "pickle", "torch-archive", "torch-legacy", "safetensors", "npz", "npy", "zip", "tar", "picture", "web-page",
    "lfs-pointer", "json", "empty", "unknown",
]  # fmt: skip

# The number with which torch.save began its files before they were archives, as a pickle of protocol 2.
_TORCH_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_PICTURES = (b"\x89PNG", b"\xff\xd8\xff", b"BM", b"GIF8")
_LONGEST_HEADER = 100 << 20  # of a safetensors file, as the format's own reader has it
_HEAD = 512
# The function by which NVIDIA's code pickles a network together with the source of its class.
_PERSISTENT = b"_reconstruct_persistent_obj"


def content_of(path: Path) -> Content:
    """Say what a file holds, looking at its first bytes and, for an archive, at its list of members.

    Raises:
        UserError: it cannot be read, or it is a damaged archive.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(_HEAD)
            size = file.seek(0, 2)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
    if not head:
        return "empty"
    if head.startswith(b"PK"):
        return _archive(path)
    if head.startswith(_TORCH_LEGACY):
        return "torch-legacy"
    if head[0] == 0x80 and 2 <= head[1] <= 5:
        return "pickle"
    if len(head) > 8 and head[8:9] == b"{" and 2 <= struct.unpack("<Q", head[:8])[0] <= min(size, _LONGEST_HEADER):
        return "safetensors"
    return _by_first_bytes(head)


def _by_first_bytes(head: bytes) -> Content:
    if head.startswith(b"\x93NUMPY"):
        return "npy"
    if head.startswith(_PICTURES) or (head.startswith(b"RIFF") and head[8:12] == b"WEBP"):
        return "picture"
    if head[257:262] == b"ustar":
        return "tar"
    text = head.lstrip().lower()
    if text.startswith((b"<!doctype html", b"<html")):
        return "web-page"
    if text.startswith(b"version https://git-lfs"):
        return "lfs-pointer"
    return "json" if text.startswith((b"{", b"[")) else "unknown"


def _archive(path: Path) -> Content:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except Exception as error:  # zipfile raises what comes: BadZipFile, NotImplementedError, struct.error, ...
        raise UserError(f"{path} is an archive that cannot be read ({error}): it is cut short or damaged") from error
    if any(name.endswith("/data.pkl") or name == "data.pkl" for name in names):
        return "torch-archive"
    return "npz" if names and all(name.endswith(".npy") for name in names) else "zip"


def is_nvidia(path: Path, content: Content) -> bool:
    """Whether a pickle, bare or inside a file of ``torch.save``, holds objects of NVIDIA's training code.

    Raises:
        UserError: the pickle inside is compressed or damaged.
    """
    if content == "torch-archive":
        return _PERSISTENT in _data_pickle(path)
    if content not in ("pickle", "torch-legacy"):
        return False
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        return mapped.find(_PERSISTENT) >= 0


def _data_pickle(path: Path) -> bytes:
    """The pickle inside a file of ``torch.save``, which stores it plainly: it is never longer than the file."""
    try:
        with zipfile.ZipFile(path) as archive:
            entry = next(entry for entry in archive.infolist() if entry.filename.split("/")[-1] == "data.pkl")
            stored = entry.compress_type == zipfile.ZIP_STORED and entry.file_size <= path.stat().st_size
            content = archive.read(entry) if stored else None
    except Exception as error:  # zipfile raises what comes: BadZipFile, NotImplementedError, struct.error, ...
        raise UserError(f"{path} is an archive that cannot be read ({error}): copy or download it again") from error
    if content is None:
        raise UserError(f"{path}: {entry.filename} in it is compressed, as torch.save never does; it was not unpacked")
    return content


def not_a_model(path: Path, content: Content) -> str | None:
    """Why a file cannot hold a model at all, in words with what to do; None where it might."""
    if content == "empty":
        return f"{path} is empty: download or copy it again"
    if content == "web-page":
        return f"{path} is a web page, not a model: the download was answered with a page; fetch the file itself"
    if content == "lfs-pointer":
        return f"{path} is a Git LFS pointer, not the file itself: run `git lfs pull` where it came from"
    return None
