"""The folder that ``disback compare`` leaves: pictures, page, machine form."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from disback_cli.configuration.arguments import shown
from disback_cli.configuration.runfolder import read_json
from disback_cli.errors import UserError
from disback_cli.files import write_bytes, write_json
from disback_cli.reporting.comparison import charts
from disback_cli.reporting.comparison.machine import as_json
from disback_cli.reporting.comparison.page import page

if TYPE_CHECKING:
    from disback_cli.reporting.comparison.comparison import Comparison
    from disback_cli.reporting.comparison.variants import Variant

PAGE_FILE = "index.html"
MACHINE_FILE = "compare.json"
_ALONG = {
    "mismatch_teacher": "mismatch of the fake score to the teacher",
    "teacher_loss_ratio": "teacher's denoising loss on the student's samples, relative to that on its own",
}


def default_folder(found: Comparison) -> Path:
    """Where the page goes unless ``--out`` says otherwise: into the one sweep, else ``compare/<short name>``."""
    if found.home is not None:
        return found.home / "compare"
    folders = "\n".join(sorted(str(run.folder.resolve()) for run in found.runs))
    digest = hashlib.sha256(folders.encode()).hexdigest()[:6]
    return Path("compare") / f"{found.teachers[0]}-{len(found.runs)}runs-{digest}"


def require_own_folder(folder: Path) -> None:
    """Refuse to spill into a folder that holds other things.

    Raises:
        UserError: it is a file, or neither empty nor an earlier comparison.
    """
    if folder.is_file():
        raise UserError(f"--out {shown(folder)} is a file: name a folder")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MACHINE_FILE).is_file():
        raise UserError(
            f"{shown(folder)} is neither empty nor an earlier comparison: name a folder of its own with --out FOLDER"
        )


def write(found: Comparison, folder: Path) -> Path:
    """Write everything; pictures of an earlier comparison that are no longer there are removed. Returns the page."""
    require_own_folder(folder)
    earlier = read_json(folder / MACHINE_FILE)
    pictures = pictures_of(found)
    for name, content in pictures.items():
        write_bytes(folder / name, content)
    write_bytes(folder / PAGE_FILE, page(found, pictures).encode())
    write_json(folder / MACHINE_FILE, as_json(found) | {"pictures": sorted(pictures)})
    for name in earlier.get("pictures", []) if isinstance(earlier, dict) else []:
        if name not in pictures and Path(str(name)).name == name:
            (folder / name).unlink(missing_ok=True)
    return folder / PAGE_FILE


def pictures_of(found: Comparison) -> dict[str, bytes]:
    """All PNG files by name."""
    pictures: dict[str, bytes] = {}
    for report in found.numbers:
        curves = [(variant.label, mine) for variant, mine in zip(found.variants, report.curves, strict=True)]
        for axis in report.axes:
            pictures[f"{report.name}_{axis}.png"] = charts.quality_chart(report.name, axis, curves, report.teacher)
    pictures |= _mismatch_pictures(found.variants)
    for column, title in _ALONG.items():
        series = [(variant.label, _series(variant, column)) for variant in found.variants]
        if any(many for _, many in series):
            pictures[f"{column}.png"] = charts.along_chart(column, title, series)
    for budget in found.budgets:
        for grid in budget.grids:
            pictures[f"samples_{budget.axis}_{grid.variant + 1}.png"] = grid.picture.read_bytes()
    return pictures


def _mismatch_pictures(variants: Sequence[Variant]) -> dict[str, bytes]:
    to_target = [_series(variant, "mismatch") for variant in variants]
    to_teacher = [_series(variant, "mismatch_teacher") for variant in variants]
    values = [value for many in (*to_target, *to_teacher) for _, found in many for value in found]
    if not values:
        return {}
    low, high = min(values), max(values)
    limits = (0.92 * low, 1.08 * high) if low > 0 else (low - 0.03 * (high - low), high + 0.05 * (high - low))
    return {
        f"mismatch_{i + 1}.png": charts.mismatch_chart(
            variant.label, to_target[i], to_teacher[i], variant.runs[0].switches, limits
        )
        for i, variant in enumerate(variants)
        if to_target[i] or to_teacher[i]
    }


def _series(variant: Variant, column: str) -> list[charts.Series]:
    return [series for run in variant.runs if (series := run.series(column))[0]]
