"""Verbs that take files instead of options, and so need no Hydra: help, mistakes and exit codes as everywhere."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence

from disback_cli.errors import UserError

_MISTAKE, _INTERRUPTED = 2, 130


class UsageError(UserError):
    """The command line makes no sense; the message is followed by where to find how it is used."""


def run_plain(verb: str, help_text: str, work: Callable[[Sequence[str]], None], words: Sequence[str]) -> int:
    """Run a verb with the words behind its name; returns the exit code: 2 for a user's mistake, 130 when stopped."""
    if not words or {"-h", "--help"} & set(words):
        print(help_text)
        return 0 if words else _MISTAKE
    try:
        work(words)
        sys.stdout.flush()
    except BrokenPipeError:  # `disback inspect RUN --json | head`: the interpreter must not try to flush what is left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except UserError as error:
        hint = f"\n`disback {verb} --help` shows how it is used" if isinstance(error, UsageError) else ""
        print(f"disback {verb}: {error}{hint}", file=sys.stderr)
        return _MISTAKE
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return _INTERRUPTED
    return 0
