"""Mean and spread over the seeds of a variant."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from disback_cli.reporting.comparison.curve import COLLAPSE, Axis, Curve


@dataclass(frozen=True)
class Band:
    """Mean, least and greatest quality over seeds along an axis; all of one length."""

    x: tuple[float, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


def band(curves: Sequence[Curve], axis: Axis) -> Band | None:
    """The band of a variant, where all of its runs have measurements; None where that is nowhere.

    Runs are put side by side at equal numbers of updates, linear between measurements; the place on the axis is the
    mean of theirs. Runs without this axis are left out.
    """
    known = [(curve, places) for curve in curves if (places := curve.along(axis)) is not None]
    if not known:
        return None
    begin, end = (f(curve.updates[i] for curve, _ in known) for f, i in ((max, 0), (min, -1)))
    shared = sorted({at for curve, _ in known for at in curve.updates if begin <= at <= end})
    if not shared:
        return None
    quality = np.stack([np.interp(shared, curve.updates, curve.quality) for curve, _ in known])
    x = np.stack([np.interp(shared, curve.updates, places) for curve, places in known]).mean(axis=0)
    rows = (x, quality.mean(axis=0), quality.min(axis=0), quality.max(axis=0))
    return Band(*(tuple(map(float, row)) for row in rows))


@dataclass(frozen=True)
class End:
    """How the runs of a variant end.

    Attributes:
        mean, low, high: over seeds, of the mean of each run's last tenth of measurements.
        unrest: mean over seeds of the standard deviation within that tenth; None where it is one measurement.
        best: the best measurement of any run.
        collapsed: seeds of the runs whose end is more than twice as bad as their own best.
    """

    mean: float
    low: float
    high: float
    unrest: float | None
    best: float
    collapsed: tuple[int, ...]


COLLAPSE_RULE = f"a run has collapsed if its end is more than {COLLAPSE:g} times as bad as its own best measurement"


def end_of(curves: Sequence[Curve]) -> End:
    """How these runs of one variant end."""
    ends = [curve.end for curve in curves]
    unrest = [curve.unrest for curve in curves if curve.unrest is not None]
    bests = [curve.best for curve in curves]
    return End(
        mean=statistics.fmean(ends),
        low=min(ends),
        high=max(ends),
        unrest=statistics.fmean(unrest) if unrest else None,
        best=min(bests) if curves[0].smaller_is_better else max(bests),
        collapsed=tuple(curve.seed for curve in curves if curve.collapsed),
    )
