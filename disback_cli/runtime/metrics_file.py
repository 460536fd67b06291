"""Reading the metrics file every run writes: one row an event, one column a metric. Imports no torch."""

from __future__ import annotations

import csv
import io
from pathlib import Path

FIRST_COLUMN = "iteration"


def read_metrics(path: Path) -> list[dict[str, float]]:
    """Rows of a metrics file, empty cells left out; an absent file has no rows.

    A last line without its end is left out: it is being written, or was torn by a kill or a full disk.
    """
    if not path.is_file():
        return []
    with open(path, newline="") as file:
        text = file.read()
    lines = csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1], newline=""))
    return [{k: float(v) for k, v in row.items() if k and v not in (None, "")} for row in lines]
