"""Pictures of the study: quality against all network passes, a panel for every student and objective."""

from __future__ import annotations

import io
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.convergence import analysis
from benchmarks.convergence.analysis import Cell
from benchmarks.convergence.plan import SCHEDULES
from disback_cli.files import write_atomically

_COLOURS = ("tab:orange", "tab:green", "tab:blue", "tab:purple", "tab:red", "tab:brown", "tab:pink")


def names(cells: Sequence[Cell]) -> list[str]:
    """Files that :func:`draw` writes: one for every problem and law."""
    return [f"{problem}-{law}.png" for problem, law in analysis.grouped(cells, lambda c: (c.problem, c.law))]


def draw(cells: Sequence[Cell], quality: Mapping[str, str], folder: Path) -> None:
    """Write the pictures: thin lines are seeds, thick ones their geometric mean, the dashed one the cell's level."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    for (problem, law), group in analysis.grouped(cells, lambda c: (c.problem, c.law)).items():
        students = list(dict.fromkeys(c.student for c in group))
        objectives = list(dict.fromkeys(c.objective for c in group))
        size = (2.6 * len(objectives) + 0.6, 2.2 * len(students) + 0.6)
        figure = Figure(figsize=size, dpi=80, layout="constrained")
        FigureCanvasAgg(figure)
        panels = figure.subplots(len(students), len(objectives), squeeze=False, sharey="row")
        shown: dict[str, Any] = {}
        for cell in group:
            axes = panels[students.index(cell.student)][objectives.index(cell.objective)]
            shown |= _panel(axes, cell)
            axes.set_title(f"{cell.student}, {cell.objective}", fontsize=8)
        for axes in panels.flat:
            axes.set_visible(bool(axes.lines))
        figure.supxlabel("1000 network passes, recording included", fontsize=8)
        figure.supylabel(quality[problem], fontsize=8)
        figure.legend(shown.values(), shown.keys(), loc="outside upper center", ncols=len(shown), fontsize=8)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png")
        few = Image.open(buffer).convert("RGB").quantize(192, dither=Image.Dither.NONE)  # half the bytes
        write_atomically(folder / f"{problem}-{law}.png", lambda file, few=few: few.save(file, format="PNG"))


def _panel(axes: Any, cell: Cell) -> dict[str, Any]:
    """The curves of a cell; returns a line by schedule, for the legend."""
    lines = {}
    for colour, schedule in zip(_COLOURS, SCHEDULES, strict=False):
        runs = [run for run in cell.runs.get(schedule, {}).values() if not run.diverged]
        for run in runs:
            axes.plot([run.cost(u, "passes") / 1000 for u in run.updates], run.quality, color=colour, lw=0.4, alpha=0.5)
        if runs:
            mean = [statistics.geometric_mean(values) for values in zip(*(r.quality for r in runs), strict=True)]
            across = [runs[0].cost(u, "passes") / 1000 for u in runs[0].updates]
            (lines[schedule],) = axes.plot(across, mean, color=colour, lw=1.3)
    axes.axhline(cell.level, color="0.4", lw=0.7, ls="--")
    axes.set_yscale("log")
    axes.tick_params(labelsize=6)
    axes.grid(alpha=0.25)
    return lines
