"""What is said about a file or folder: for people as text, for programs as JSON."""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from disback_cli.configuration.arguments import assignment, shown
from disback_cli.reporting.table import table

_WIDTH = 120


@dataclass
class Report:
    """The findings.

    Attributes:
        path: what was looked at.
        kind: in one word for programs, e.g. ``edm-pickle``, ``recording``, ``image-data``.
        title: what it is, in a few words.
        facts: JSON values by name, in the order in which they are shown.
        texts: how a fact is shown, where its value does not say it best; None hides it.
        usable: whether `disback record` can take it as the teacher; None where the question does not arise.
        why_not: the reason if it cannot.
        columns, rows: a table.
        notes: sentences a user should read.
        next: commands to type next, the likeliest first.
    """

    path: Path
    kind: str
    title: str
    facts: dict[str, Any] = field(default_factory=dict)
    texts: dict[str, str | None] = field(default_factory=dict)
    usable: bool | None = None
    why_not: str | None = None
    columns: Sequence[str] = ()
    rows: list[list[Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    next: list[str] = field(default_factory=list)

    def add(self, name: str, value: Any, text: str | None = None) -> None:
        """One more fact; ``text`` is how people read it."""
        self.facts[name] = value
        if text is not None:
            self.texts[name] = text

    def refuse(self, reason: str) -> None:
        """It cannot be recorded from."""
        self.usable, self.why_not = False, reason

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        content: dict[str, Any] = {"path": str(self.path), "kind": self.kind, "title": self.title, "facts": self.facts}
        content["record"] = None if self.usable is None else {"usable": self.usable, "why_not": self.why_not}
        if self.rows:
            content["table"] = [dict(zip(self.columns, row, strict=True)) for row in self.rows]
        return content | {"notes": self.notes, "next": self.next}

    def as_text(self) -> str:
        """Lines for a terminal."""
        lines = [f"{shown(self.path)}: {self.title}"]
        facts = {name: self.texts.get(name, _text(value)) for name, value in self.facts.items()}
        if self.usable is not None:
            facts["disback record"] = "can use it as the teacher" if self.usable else f"cannot use it: {self.why_not}"
        width = max((len(name) for name in facts), default=0) + 2
        for name, text in facts.items():
            if text is not None:
                lines += _entry(name.replace("_", " "), text, width)
        for note in self.notes:
            lines += _entry("note", note, width)
        if self.rows:
            lines += [
                "",
                *textwrap.indent(table(self.columns, [list(map(_cell, row)) for row in self.rows]), "  ").splitlines(),
            ]
        if self.next:
            lines += ["", *(f"{'next:' if index == 0 else '     '} {word}" for index, word in enumerate(self.next))]
        return "\n".join(lines)


def _entry(name: str, text: str, width: int) -> list[str]:
    begin = f"  {name:<{width}}"
    lines = []
    for part in text.splitlines() or [""]:
        lines += textwrap.wrap(part, _WIDTH, initial_indent=begin, subsequent_indent=" " * len(begin),
                               break_long_words=False, break_on_hyphens=False) or [begin.rstrip()]  # fmt: skip
        begin = " " * len(begin)
    return lines


def _text(value: Any) -> str:
    if value is None:
        return "unknown"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, dict):
        return ", ".join(f"{key}={_inner(item)}" for key, item in value.items()) or "none"
    return ", ".join(map(_inner, value)) or "none" if isinstance(value, (list, tuple)) else str(value)


def _cell(value: Any) -> float | int | str | None:
    """What a table can show; files of strangers may hold anything."""
    return value if value is None or isinstance(value, (int, float, str)) else str(value)


def _inner(value: Any) -> str:
    """A value inside a list; lists as they would be typed."""
    if isinstance(value, (list, tuple)):
        return f"[{','.join(map(_inner, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def command(*words: str | tuple[str, Path]) -> str:
    """A command line ready to be typed: ``command("record", "teacher=edm", ("teacher.path", file))``."""
    given = (word if isinstance(word, str) else _quoted(assignment(word[0], shown(word[1]))) for word in words)
    return " ".join(["disback", *given])


def typed(path: Path) -> str:
    """A path as it is typed into a shell."""
    return shlex.quote(shown(path))


def _quoted(word: str) -> str:
    """Quotes for the shell only where it needs them: its own rules quote every = and [."""
    return word if all(letter.isalnum() or letter in "_-./=:@%+~" for letter in word) else shlex.quote(word)
