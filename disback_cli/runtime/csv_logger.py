"""The metrics file every run writes: one row an event, one column a metric, readable while the run goes on."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from disback_cli.errors import UserError
from disback_cli.files import write_bytes
from disback_cli.runtime.metrics_file import FIRST_COLUMN, read_metrics


class CsvLogger(Logger):
    """Appends to ``<run>/metrics.csv``; a resumed run first drops what lies after its checkpoint.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self._columns: list[str] = []

    @property
    def name(self) -> str:
        """Always ``csv``."""
        return "csv"

    @property
    def version(self) -> str:
        """One file a run."""
        return ""

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """The resolved configuration has a file of its own."""

    @rank_zero_only
    def rewind(self, iteration: int) -> None:
        """Forget rows of later iterations; they will be written again."""
        rows = [row for row in read_metrics(self.path) if row[FIRST_COLUMN] <= iteration]
        self._columns = []
        for row in rows:
            self._columns.extend(key for key in row if key not in self._columns)
        if self.path.exists():
            self._rewrite(rows)

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Append one row."""
        row: dict[str, float] = {FIRST_COLUMN: float(step or 0), **metrics}
        new = [key for key in row if key not in self._columns]
        if new:
            self._columns.extend(new)
            self._rewrite([*read_metrics(self.path), row])
            return
        try:
            with open(self.path, "a", newline="") as file:
                csv.DictWriter(file, self._columns).writerow(_plain(row))
        except OSError as error:
            raise UserError(
                f"could not write {self.path}: {error}. Free some space or check the permissions, then continue with "
                "resume=auto."
            ) from error

    def _rewrite(self, rows: list[dict[str, float]]) -> None:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self._columns)
        writer.writeheader()
        writer.writerows(_plain(row) for row in rows)
        write_bytes(self.path, text.getvalue().encode())


def _plain(row: dict[str, float]) -> dict[str, str]:
    """Whole numbers without a decimal point, everything else to full precision."""
    return {k: str(int(v)) if float(v).is_integer() and abs(v) < 2**53 else repr(float(v)) for k, v in row.items()}
