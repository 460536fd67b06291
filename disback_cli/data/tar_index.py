"""What tar shards hold, found in one pass over their headers: samples by key, with the byte range of each file."""

from __future__ import annotations

import glob
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from disback_cli.data.decode import SUFFIXES, is_hidden
from disback_cli.errors import UserError
from disback_cli.runtime.progress import Progress

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")  # gzip, bzip2, xz, zstandard
_BLOCK = 512
LABEL_ENDINGS = ("cls", "json")


@dataclass(slots=True)
class Member:
    """A file in a shard: its name, its byte range, and what is in it if it may hold a label."""

    name: str
    offset: int
    size: int
    content: bytes = b""


@dataclass(slots=True)
class Sample:
    """The files of one key in one shard, by ending in lower case (``png``, ``cls``, ``json``)."""

    shard: int
    key: str
    files: dict[str, Member] = field(default_factory=dict)

    def pictures(self) -> list[Member]:
        """The images."""
        return [member for ending, member in self.files.items() if f".{ending}" in SUFFIXES]


def find_shards(path: str) -> list[Path]:
    """The tar files meant by a folder, a file, a glob pattern or a brace pattern (``{000..012}``, ``{a,b}``), sorted.

    Raises:
        UserError: there are none, or the pattern names some that are absent.
    """
    source = Path(path).expanduser()
    if source.is_dir():
        shards = sorted(source.glob("*.tar"))
        if not shards:
            raise UserError(f"{source} holds no .tar files; type dataset.path=FOLDER, FILE.tar or a pattern of shards")
        return shards
    shards = []
    for name in expand_braces(str(source)):
        if glob.has_magic(name) and not Path(name).exists():
            found = [Path(match) for match in sorted(glob.glob(name))]
        else:
            found = [Path(name)] if Path(name).is_file() else []
        if not found:
            raise UserError(
                f"there is no shard {name}"
                + (f" of {path}" if name != str(source) else "")
                + "; dataset.path takes a folder, a .tar file, a pattern such as 'train-{000..012}.tar', or train-*.tar"
            )
        shards += found
    return shards


def expand_braces(pattern: str) -> list[str]:
    """``a{08..10}`` to a08, a09, a10 and ``{x,y}`` to x, y, as a shell does; other braces stay as they are."""
    for match in _BRACES.finditer(pattern):
        span = _RANGE.fullmatch(match[1])
        if span is not None:
            first, last = int(span[1]), int(span[2])
            width = len(span[1]) if span[1].startswith("0") or len(span[1]) == len(span[2]) else 0
            step = 1 if last >= first else -1
            words = [f"{number:0{width}d}" for number in range(first, last + step, step)]
        elif "," in match[1]:
            words = match[1].split(",")
        else:
            continue
        tails = expand_braces(pattern[match.end() :])
        return [f"{pattern[: match.start()]}{word}{tail}" for word in words for tail in tails]
    return [pattern]


def index_shards(shards: list[Path]) -> Iterator[Sample]:
    """The samples of all shards, in their order in the files; shows progress.

    Raises:
        UserError: a shard is damaged, cut short or compressed, or holds a file of a sample twice.
    """
    progress = Progress("indexing shards (MB)", sum(shard.stat().st_size >> 20 for shard in shards))
    try:
        for number, shard in enumerate(shards):
            samples: dict[str, Sample] = {}
            before = progress.count
            for member in _members(shard):
                key, ending = _key_and_ending(member.name)
                sample = samples.setdefault(key, Sample(number, key))
                if ending in sample.files:
                    raise UserError(f"{shard} holds {member.name} twice; write the shard again")
                sample.files[ending] = member
                progress.advance(max(0, before + (member.offset >> 20) - progress.count))
            progress.advance(max(0, before + (shard.stat().st_size >> 20) - progress.count))
            yield from samples.values()
    finally:
        progress.close()


def _key_and_ending(name: str) -> tuple[str, str]:
    """WebDataset's rule: the key ends at the first dot of the base name."""
    folder, slash, base = name.rpartition("/")
    stem, _, ending = base.partition(".")
    return f"{folder}{slash}{stem}", ending.lower()


def _members(shard: Path) -> Iterator[Member]:
    """The regular files in a shard."""
    with open(shard, "rb") as raw:
        if raw.read(6).startswith(_COMPRESSED):
            raise UserError(f"{shard} is compressed and cannot be read by position; uncompress it first")
    try:
        with tarfile.open(shard, "r:") as archive:
            end = 0
            while (member := archive.next()) is not None:
                archive.members = []  # type: ignore[attr-defined]  # else every header is kept, gigabytes at worst
                end = member.offset_data + -(-member.size // _BLOCK) * _BLOCK
                name = member.name.removeprefix("./")
                if member.isreg() and not is_hidden(name):
                    content = b""
                    if _key_and_ending(name)[1] in LABEL_ENDINGS:
                        file = archive.extractfile(member)
                        content = file.read() if file is not None else b""
                    yield Member(name, member.offset_data, member.size, content)
    except (tarfile.TarError, OSError, EOFError) as error:
        raise UserError(f"{shard} is damaged or cut short ({error}); copy or download it again") from error
    with open(shard, "rb") as raw:
        raw.seek(end)  # tarfile takes a damaged header for the end
        if raw.read(_BLOCK) != bytes(_BLOCK):
            raise UserError(f"{shard} is damaged or cut short at byte {end:,}; copy or download it again")
