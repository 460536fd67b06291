"""The bytes of a pickle, read from front to back; every length is compared with what is left first."""

from __future__ import annotations

from disback_cli.denoisers.pickles.objects import Reading
from disback_cli.errors import UserError

PROTOCOL = b"\x80"
MAX_LINE = 4096
MAX_TEXT = 64 << 20


class Tape:
    """A position in bytes."""

    def __init__(self, data: memoryview, reading: Reading, start: int = 0) -> None:
        """Begin.

        Args:
            data: the bytes.
            reading: the file they are (part of), for messages and limits.
            start: the position.
        """
        self.data = data
        self.reading = reading
        self.position = start

    def error(self, problem: str) -> UserError:
        """The error to raise about this place of the file."""
        doubt = "" if bytes(self.data[:1]) == PROTOCOL else "; it does not begin like a pickle of protocol 2 or later"
        return self.reading.error(f"{problem} (near byte {self.position:,} of {len(self.data):,}{doubt})")

    def take(self, count: int) -> memoryview:
        """The next bytes."""
        end = self.position + count
        if count < 0 or end > len(self.data):
            left = len(self.data) - self.position
            raise self.error(f"{count:,} bytes should follow but {left:,} do: the file is truncated or damaged")
        view = self.data[self.position : end]
        self.position = end
        return view

    def byte(self) -> int:
        """The next byte."""
        if self.position >= len(self.data):
            self.take(1)
        self.position += 1
        return self.data[self.position - 1]

    def number(self, width: int, signed: bool = False) -> int:
        """The next little-endian integer."""
        return self.byte() if width == 1 else int.from_bytes(self.take(width), "little", signed=signed)

    def line(self, encoding: str = "utf-8") -> str:
        """The next line of text, without its end."""
        window = bytes(self.data[self.position : self.position + MAX_LINE])
        end = window.find(b"\n")
        if end < 0:
            raise self.error("a line of text does not end: the file is no pickle, truncated or damaged")
        self.position += end + 1
        return self.text(window[:end], encoding)

    def text(self, raw: bytes | memoryview, encoding: str = "utf-8") -> str:
        """Decode text."""
        if len(raw) > MAX_TEXT and encoding == "utf-8":
            raise self.error(f"a text of {len(raw):,} bytes is longer than any that belongs into such a file")
        try:
            decoded = str(raw, encoding)
            if encoding == "raw_unicode_escape":
                decoded.encode()  # an escape can write half a surrogate pair, which nobody could print
            return decoded
        except UnicodeError:
            raise self.error(f"a text is not {encoding}: the file is damaged") from None
