"""Where a run's messages go: the console, and a log file in the run's folder."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from tqdm import tqdm

# ``extra`` of a message that the console gets from elsewhere.
FILE_ONLY = {"file_only": True}


class _ConsoleHandler(logging.Handler):
    """Writes past a progress bar instead of through it."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one message."""
        if getattr(record, "file_only", False):
            return
        tqdm.write(self.format(record), file=sys.stderr)


class _FileHandler(logging.FileHandler):
    """Appends to a file; a full disk costs the line, not a traceback on the console."""

    def handleError(self, record: logging.LogRecord) -> None:
        """The console has the message; whoever saves something next tells about the disk."""


def set_up_logging(file: Path | None, rank: int) -> None:
    """Send our messages to the console (first process) and to ``file``.

    Args:
        file: the run's log file, appended to; other processes write ``<stem>.rank1.log`` and so on. None: no file.
        rank: of this process.
    """
    logger = logging.getLogger("disback_cli")
    logger.setLevel(logging.INFO)
    logger.handlers.clear()
    logger.propagate = False
    if rank == 0:
        console = _ConsoleHandler()
        console.setFormatter(logging.Formatter("%(message)s"))
        logger.addHandler(console)
    if file is not None:
        target = file if rank == 0 else file.with_suffix(f".rank{rank}{file.suffix}")
        handler = _FileHandler(target)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logger.addHandler(handler)
