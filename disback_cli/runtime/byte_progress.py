"""Progress of reading and downloading files, in bytes; imports nothing heavy, so that it is there from the start."""

from __future__ import annotations

import hashlib
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 10.0
SECONDS_BEFORE_BAR = 1.0
_CHUNK = 1 << 20


class ByteProgress:
    """A bar on a terminal; elsewhere a line on stderr now and then, with rate and time left.

    Args:
        what: what is being read.
        total: bytes, None if unknown.
        start: bytes there already, which count towards the total but not for the rate.
    """

    def __init__(self, what: str, total: int | None, start: int = 0) -> None:
        self.what, self.total, self.count, self.start = what, total, start, start
        self._began = self._said = time.monotonic()
        self._bar: tqdm[Any] | None = None
        if sys.stderr.isatty():
            self._bar = tqdm(
                total=total, initial=start, desc=what, unit="B", unit_scale=True, leave=False, dynamic_ncols=True,
                mininterval=0.3, delay=SECONDS_BEFORE_BAR,
            )  # fmt: skip

    def advance(self, size: int) -> None:
        """So many bytes more."""
        self.count += size
        if self._bar is not None:
            self._bar.update(size)
            return
        now = time.monotonic()
        if now - self._said >= SECONDS_BETWEEN_LINES:
            self._said = now
            print(self.line(now - self._began), file=sys.stderr, flush=True)

    def line(self, seconds: float) -> str:
        """What is said after so many seconds: ``what 120.0 of 223.1 MB (54 %), 11.2 MB/s, 0:09 left``."""
        rate = (self.count - self.start) / max(seconds, 1e-9)
        if self.total is None:
            return f"{self.what} {self.count / 1e6:.1f} MB, {rate / 1e6:.1f} MB/s"
        share = f"{self.count / 1e6:.1f} of {self.total / 1e6:.1f} MB ({100 * self.count // max(self.total, 1)} %)"
        if rate <= 0:
            return f"{self.what} {share}"
        left = int((self.total - self.count) / rate)
        return f"{self.what} {share}, {rate / 1e6:.1f} MB/s, {left // 60}:{left % 60:02d} left"

    def __enter__(self) -> ByteProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()


def sha256_with_progress(path: Path) -> str:
    """Hex digest of a file's content, with progress where it takes long."""
    digest = hashlib.sha256()
    with open(path, "rb") as file, ByteProgress(f"hashing {path.name}", path.stat().st_size) as progress:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            progress.advance(len(chunk))
    return digest.hexdigest()


def megabytes(size: int) -> str:
    """A number of bytes for people: ``812 bytes``, ``223.1 MB`` (10^6 bytes), ``2.41 GB``."""
    if size < 10_000:
        return f"{size} bytes"
    if size < 10_000_000:
        return f"{size / 1e6:.2f} MB"
    return f"{size / 1e6:.1f} MB" if size < 1_000_000_000 else f"{size / 1e9:.2f} GB"
