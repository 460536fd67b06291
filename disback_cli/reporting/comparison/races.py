"""Time to quality over seeds, with right-censored runs, and speed-ups with bootstrap intervals."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from disback_cli.reporting.comparison.curve import Axis, Curve

RESAMPLES = 10_000
RESAMPLING_SEED = 0
CONFIDENCE = 0.95
# levels of a distance: multiples of the best end
MULTIPLES = (4.0, 2.0, 1.5, 1.1)
# levels of any other number: shares of the way from the worst start to the best end
SHARES = (0.5, 0.75, 0.9, 0.95)

Kind = Literal["exact", "at least", "at most"]


def levels(variants: Sequence[Sequence[Curve]]) -> list[float]:
    """Qualities to race to, from easy to hard, chosen from the data.

    For distances the `MULTIPLES` of the best end of any variant (mean over its seeds), otherwise, and for a distance
    whose best end is not positive, the `SHARES` of the way there from the worst first measurement. A level at which
    every run already starts is left out.

    Args:
        variants: the curves of each variant, all of one number.
    """
    curves = [curve for variant in variants for curve in variant]
    smaller = curves[0].smaller_is_better
    ends = [statistics.fmean(curve.end for curve in variant) for variant in variants if variant]
    starts = [curve.quality[0] for curve in curves]
    best, worst = (min(ends), max(starts)) if smaller else (max(ends), min(starts))
    found = [worst + share * (best - worst) for share in SHARES]
    if smaller and best > 0:
        found = [multiple * best for multiple in MULTIPLES]
    return [level for level in found if not all(c.is_as_good(c.quality[0], level) for c in curves)]


@dataclass(frozen=True)
class Arrivals:
    """When the runs of a variant first were at a level, on one axis.

    Attributes:
        times: of every run; of one that never got there the place of its last measurement, which is a lower bound.
        reached: whether it got there.
    """

    times: tuple[float, ...]
    reached: tuple[bool, ...]

    @property
    def count(self) -> int:
        """Runs that got there."""
        return sum(self.reached)

    @property
    def complete(self) -> bool:
        """Whether all runs got there."""
        return all(self.reached)

    @property
    def mean(self) -> float:
        """Mean time; a lower bound of it unless :attr:`complete`."""
        return statistics.fmean(self.times)


def arrivals(curves: Sequence[Curve], level: float, axis: Axis) -> Arrivals | None:
    """When these runs reached a level; runs whose places on this axis are unknown are left out, None without any."""
    times, reached = [], []
    for curve in curves:
        x = curve.along(axis)
        if x is None:
            continue
        found = curve.reached(level, axis)
        times.append(float(x[-1]) if found is None else found)
        reached.append(found is not None)
    return Arrivals(tuple(times), tuple(reached)) if times else None


@dataclass(frozen=True)
class SpeedUp:
    """Mean time of the baseline over mean time of the variant; above 1 the variant is faster.

    Attributes:
        value: the ratio, a bound where runs are censored.
        kind: ``exact``; ``at least`` where runs of the baseline alone never got there, ``at most`` where runs of the
            variant alone did not.
        low, high: bootstrap percentile interval over seeds; None on the side on which nothing is known, and both None
            where the baseline or the variant has a single seed.
    """

    value: float
    kind: Kind
    low: float | None = None
    high: float | None = None


def speed_up(baseline: Arrivals, variant: Arrivals) -> SpeedUp | None:
    """The ratio and its interval.

    None where both have runs that never got there (nothing can be said), or where one of them was there from the
    start.
    """
    if not (baseline.complete or variant.complete) or min(*baseline.times, *variant.times) <= 0:
        return None
    kind: Kind = "exact"
    if not baseline.complete:
        kind = "at least"
    elif not variant.complete:
        kind = "at most"
    value = baseline.mean / variant.mean
    if len(baseline.times) < 2 or len(variant.times) < 2:
        return SpeedUp(value, kind)
    low, high = bootstrap_ratio(baseline.times, variant.times)
    return SpeedUp(value, kind, None if kind == "at most" else low, None if kind == "at least" else high)


def bootstrap_ratio(above: Sequence[float], below: Sequence[float]) -> tuple[float, float]:
    """Percentile interval of mean(above) / mean(below): both groups are resampled on their own, `RESAMPLES` times."""
    draws = np.random.default_rng(RESAMPLING_SEED)
    ratios = _resampled_means(above, draws) / _resampled_means(below, draws)
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(ratios, [tail, 100 - tail])
    return float(low), float(high)


def _resampled_means(values: Sequence[float], draws: np.random.Generator) -> NDArray[np.float64]:
    chosen = draws.integers(0, len(values), (RESAMPLES, len(values)))
    means: NDArray[np.float64] = np.asarray(values, dtype=np.float64)[chosen].mean(axis=1)
    return means
