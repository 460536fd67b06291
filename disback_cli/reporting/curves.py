"""Curves of a run, from its metrics file."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from disback_cli.files import write_bytes
from disback_cli.runtime.csv_logger import read_metrics

COLUMNS = 3
TITLES = {
    "fid": "FID of the student",
    "is": "Inception score",
    "swd": "sliced Wasserstein distance",
    "mismatch": "mismatch fake score - target",
    "fake_loss": "fake score's denoising loss",
    "loss": "denoising loss",
    "sample_diversity": "std over the batch",
}


def draw_curves(
    metrics: Path,
    picture: Path,
    switches: Sequence[tuple[int, int]] = (),
    teacher: dict[str, float] | None = None,
) -> None:
    """Draw what the metrics file holds: quality, mismatch and loss against iterations.

    Args:
        metrics: the run's ``metrics.csv``.
        picture: PNG to write.
        switches: (iteration, node) at which the target changed, marked by lines.
        teacher: the teacher's numbers by metric name, drawn as a level.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = read_metrics(metrics)
    names = [name for name in _in_order(rows) if not name.startswith("is_std")]
    if not names:
        return
    columns = min(COLUMNS, len(names))
    lines = -(-len(names) // columns)
    figure = Figure(figsize=(4.4 * columns, 3.3 * lines), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(lines, columns, squeeze=False).flatten()
    for axes in grid[len(names) :]:
        axes.set_axis_off()
    for axes, name in zip(grid, names, strict=False):
        points = [(row["iteration"], row[name]) for row in rows if name in row]
        axes.plot(*zip(*points, strict=True), marker="." if len(points) < 60 else "", linewidth=1.4)
        title = TITLES.get(name) or TITLES[name.split("_")[0]]
        axes.set(title=f"{title} ({name})", xlabel="iteration")
        axes.title.set_fontsize(10)
        values = [value for _, value in points] + ([teacher[name]] if teacher and name in teacher else [])
        if min(values) > 0 and max(values) > 10 * min(values):
            axes.set_yscale("log")
        if teacher and name in teacher:
            axes.axhline(teacher[name], color="tab:green", linestyle="--", linewidth=1, label="teacher")
            axes.legend(fontsize=8)
        for iteration, _ in switches:
            if iteration:
                axes.axvline(iteration, color="0.7", linewidth=0.8, zorder=0)
        axes.grid(alpha=0.25)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    write_bytes(picture, buffer.getvalue())


def _in_order(rows: list[dict[str, float]]) -> list[str]:
    present = {name for row in rows for name in row}
    ordered = [name for prefix in ("fid_", "is_", "swd_") for name in sorted(present) if name.startswith(prefix)]
    return ordered + [name for name in ("mismatch", "fake_loss", "loss", "sample_diversity") if name in present]
