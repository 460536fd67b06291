"""Curves of a run, from its metrics file."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from disback_cli.files import write_bytes
from disback_cli.runtime.metrics_file import read_metrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = 3
TITLES = {
    "fid": "FID of the student",
    "is": "Inception score",
    "swd": "sliced Wasserstein distance",
    "mismatch": "mismatch of the fake score",
    "teacher_loss_ratio": "teacher's loss ratio",
    "fake_loss": "fake score's denoising loss",
    "loss": "denoising loss",
    "adversarial_loss": "generator's adversarial loss",
    "critic_loss": "critic's loss",
    "regression_loss": "distance from the teacher",
    "sample_diversity": "std over the batch",
}
# numbers of one kind share a panel: the columns with what they are called there, where there are several
PANELS = {"mismatch": {"mismatch": "to the target", "mismatch_teacher": "to the teacher"}}
# levels that mean something, by panel
LEVELS = {"teacher_loss_ratio": (1.0, "on its own samples")}


def draw_curves(
    metrics: Path,
    picture: Path,
    switches: Sequence[tuple[int, float]] = (),
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
        level = (teacher[name], "teacher") if teacher and name in teacher else LEVELS.get(name)
        _draw_panel(axes, name, rows, level)
        for iteration, _ in switches:
            if iteration:
                axes.axvline(iteration, color="0.7", linewidth=0.8, zorder=0)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    write_bytes(picture, buffer.getvalue())


def _draw_panel(axes: Axes, name: str, rows: list[dict[str, float]], level: tuple[float, str] | None) -> None:
    """One panel: its columns, and a level to compare them with."""
    shown = {column: label for column, label in PANELS.get(name, {name: ""}).items() if _present(column, rows)}
    values = [] if level is None else [level[0]]
    for column, label in shown.items():
        points = [(row["iteration"], row[column]) for row in rows if column in row]
        values += [value for _, value in points]
        axes.plot(*zip(*points, strict=True), marker="." if len(points) < 60 else "", linewidth=1.4, label=label)
    title = TITLES.get(name) or TITLES[name.split("_")[0]]
    column = name if len(shown) > 1 else next(iter(shown))  # of several the legend tells
    axes.set(title=f"{title} ({column})", xlabel="iteration")
    axes.title.set_fontsize(10)
    if min(values) > 0 and max(values) > 10 * min(values):
        axes.set_yscale("log")
    if level is not None:
        axes.axhline(level[0], color="tab:green", linestyle="--", linewidth=1, label=level[1])
    if level is not None or len(shown) > 1:
        axes.legend(fontsize=8)
    axes.grid(alpha=0.25)


def _present(name: str, rows: list[dict[str, float]]) -> bool:
    """Whether there is a curve of this name; the one number of a student that does not change is none."""
    return sum(name in row for row in rows) > (1 if name == "teacher_loss_ratio" else 0)


def _in_order(rows: list[dict[str, float]]) -> list[str]:
    """The panels that there is something to draw in."""
    present = {name for row in rows for name in row}
    ordered = [name for prefix in ("fid_", "is_", "swd_") for name in sorted(present) if name.startswith(prefix)]
    losses = ("fake_loss", "loss", "adversarial_loss", "critic_loss", "regression_loss")
    others = ("mismatch", "teacher_loss_ratio", *losses, "sample_diversity")
    return ordered + [name for name in others if any(_present(column, rows) for column in PANELS.get(name, (name,)))]
