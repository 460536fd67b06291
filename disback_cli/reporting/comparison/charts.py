"""The pictures: quality over cost, mismatch along the run. Colours that the colour-blind can tell apart."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from disback_cli.reporting.comparison.bands import band
from disback_cli.reporting.comparison.curve import Axis, Curve

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette without its yellow, which is hard to see on white
COLOURS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (6, 1.5, 1.2, 1.5)))
AXIS_TITLES: dict[Axis, str] = {
    "updates": "generator updates",
    "passes": "network passes, the recording's included",
    "seconds": "seconds, the recording's included",
}
_LEGEND_WIDTH = 44
_MOST_MARKS = 24

Series = tuple[Sequence[float], Sequence[float]]


def style(variant: int) -> dict[str, Any]:
    """Colour and dashes of a variant by its number, told apart by both; 28 of them."""
    return {"color": COLOURS[variant % len(COLOURS)], "linestyle": DASHES[variant // len(COLOURS) % len(DASHES)]}


def quality_chart(
    number: str, axis: Axis, variants: Sequence[tuple[str, Sequence[Curve]]], teacher: float | None = None
) -> bytes:
    """A number over an axis: lines are means over seeds, bands reach from the least to the greatest, dots are starts.

    Where there are several seeds the single runs are faint lines.

    Args:
        number: name of the number.
        axis: what it is drawn over.
        variants: label and curves, in the order that fixes their colours.
        teacher: the teacher's own number, drawn as a level.
    """
    figure, axes = _figure(len(variants) + (teacher is not None))
    values = [value for _, curves in variants for curve in curves for value in curve.quality]
    for i, (label, curves) in enumerate(variants):
        _draw_variant(axes, curves, axis, label, style(i))
    if teacher is not None:
        axes.axhline(teacher, color="0.45", linestyle=":", linewidth=1.2, label="teacher, many steps")
    _scale(axes, values)
    _finish(figure, axes, AXIS_TITLES[axis], number)
    return _png(figure)


def _draw_variant(axes: Axes, curves: Sequence[Curve], axis: Axis, label: str, look: dict[str, Any]) -> None:
    found = band(curves, axis)
    if found is None:
        return
    if len(curves) > 1:
        for curve in curves:
            if (places := curve.along(axis)) is not None:
                axes.plot(places, curve.quality, linewidth=0.5, alpha=0.35, color=look["color"])
        axes.fill_between(found.x, found.low, found.high, color=look["color"], alpha=0.13, linewidth=0)
    axes.plot(found.x, found.mean, linewidth=1.7, label=_wrapped(label), **look)
    axes.plot(found.x[:1], found.mean[:1], marker="o", markersize=4, color=look["color"], clip_on=False)


def mismatch_chart(
    label: str,
    to_target: Sequence[Series],
    to_teacher: Sequence[Series],
    switches: Sequence[tuple[int, float]],
    limits: tuple[float, float],
) -> bytes:
    """One variant: mismatch to the present target and to the teacher, a line a seed; grey lines are switches.

    Args:
        label: of the variant.
        to_target, to_teacher: iterations and values of each seed; either may be empty.
        switches: (iteration, node) of the first seed's changes of the target.
        limits: of the vertical axis, the same for all variants.
    """
    figure, axes = _figure(2)
    for name, colour, many in (("to the target", COLOURS[1], to_target), ("to the teacher", COLOURS[2], to_teacher)):
        for i, (iterations, values) in enumerate(many):
            axes.plot(iterations, values, color=colour, linewidth=1.2, alpha=0.75, label=None if i else name)
    _scale(axes, limits)
    if limits[0] < limits[1]:
        axes.set_ylim(*limits)
    _mark(axes, switches)
    axes.set_title(_wrapped(label, 60), fontsize=10)
    _finish(figure, axes, "generator updates", "mismatch")
    return _png(figure)


def _mark(axes: Axes, switches: Sequence[tuple[int, float]]) -> None:
    """Thin lines with the node that becomes the target; of many switches those to whole nodes, of too many none."""
    shown = switches if len(switches) <= _MOST_MARKS else [s for s in switches if float(s[1]).is_integer()]
    for iteration, node in shown if len(shown) <= _MOST_MARKS else ():
        axes.axvline(iteration, color="0.72", linewidth=0.8, zorder=0)
        axes.annotate(
            f"{node:g}", (iteration, 1), xycoords=("data", "axes fraction"), xytext=(2, -3),
            textcoords="offset points", va="top", fontsize=7, color="0.35",
        )  # fmt: skip


def along_chart(column: str, title: str, variants: Sequence[tuple[str, Sequence[Series]]]) -> bytes:
    """A column of the metrics file over updates, for all variants: thick lines the first seed, thin ones the others."""
    figure, axes = _figure(len(variants))
    for i, (label, many) in enumerate(variants):
        for j, (iterations, values) in enumerate(many):
            width, alpha = (1.6, 1.0) if j == 0 else (0.7, 0.5)
            axes.plot(
                iterations, values, linewidth=width, alpha=alpha, label=None if j else _wrapped(label), **style(i)
            )
    _scale(axes, [value for _, many in variants for _, values in many for value in values])
    axes.set_title(title, fontsize=10)
    _finish(figure, axes, "generator updates", column)
    return _png(figure)


def _figure(entries: int) -> tuple[Figure, Axes]:
    """A figure that grows with the lines of its legend."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.9 + 0.22 * -(-entries // 2)), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots()


def _scale(axes: Axes, values: Sequence[float]) -> None:
    """Logarithmic where values span much, with plain numbers at 1, 2, 5, 10, ..."""
    if not values or min(values) <= 0 or max(values) <= 8 * min(values):
        return
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _finish(figure: Figure, axes: Axes, across: str, up: str) -> None:
    from matplotlib.ticker import EngFormatter

    axes.set(xlabel=across, ylabel=up)
    axes.set_xlim(left=0)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        columns = 1 if max(map(len, labels)) > _LEGEND_WIDTH // 2 + 8 and len(labels) < 5 else 2
        figure.legend(
            handles, labels, loc="outside lower center", ncols=min(columns, len(labels)), fontsize=8, frameon=False,
            handlelength=3.2,
        )  # fmt: skip


def _wrapped(label: str, width: int = _LEGEND_WIDTH) -> str:
    return "\n".join(textwrap.wrap(label, width)) or label


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
