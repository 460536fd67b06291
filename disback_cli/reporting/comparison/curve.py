"""One run's quality over its cost, and what is read off it."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Axis = Literal["updates", "passes", "seconds"]
AXES: tuple[Axis, ...] = ("updates", "passes", "seconds")
# An end that is this many times worse than the run's own best is a collapse.
COLLAPSE = 2.0


@dataclass(frozen=True)
class Curve:
    """One measured number of one run over its cost.

    Attributes:
        variant: what is compared, e.g. the schedule.
        seed: of the run.
        updates: generator updates at which the number was measured, ascending.
        passes: network passes up to there, the recording's included where a path was used; None if unknown.
        quality: the measured number.
        seconds: wall time up to there, the recording's included; None if unknown.
        smaller_is_better: whether the number is a distance.
    """

    variant: str
    seed: int
    updates: tuple[int, ...]
    passes: tuple[float, ...] | None
    quality: tuple[float, ...]
    seconds: tuple[float, ...] | None = None
    smaller_is_better: bool = True

    def along(self, axis: Axis) -> Sequence[float] | None:
        """The places of the measurements on an axis; None if they are unknown."""
        return {"updates": self.updates, "passes": self.passes, "seconds": self.seconds}[axis]

    def is_as_good(self, value: float, level: float) -> bool:
        """Whether a value is at the level or better."""
        return value <= level if self.smaller_is_better else value >= level

    def reached(self, level: float, axis: Axis) -> float | None:
        """Where the quality first was at ``level`` or better, linear between measurements; None if it never was.

        Raises:
            ValueError: the run's places on this axis are unknown.
        """
        x = self.along(axis)
        if x is None:
            raise ValueError(f"the {axis} of {self.variant}, seed {self.seed}, are unknown")
        for i, value in enumerate(self.quality):
            if self.is_as_good(value, level):
                if i == 0:
                    return float(x[0])
                before = self.quality[i - 1]
                return x[i - 1] + (x[i] - x[i - 1]) * (before - level) / (before - value)
        return None

    @property
    def tail(self) -> tuple[float, ...]:
        """The last tenth of the measurements, at least one."""
        return self.quality[-max(1, len(self.quality) // 10) :]

    @property
    def end(self) -> float:
        """Mean of the last tenth, less noisy than the last measurement alone."""
        return statistics.fmean(self.tail)

    @property
    def unrest(self) -> float | None:
        """Standard deviation of the last tenth, how stable the end is; None where that is a single measurement."""
        return statistics.stdev(self.tail) if len(self.tail) > 1 else None

    @property
    def best(self) -> float:
        """The best measurement."""
        return min(self.quality) if self.smaller_is_better else max(self.quality)

    @property
    def collapsed(self) -> bool:
        """Whether the end is more than twice as bad as the run's own best, of a number that is positive."""
        if self.best <= 0:
            return False
        return self.end > COLLAPSE * self.best if self.smaller_is_better else self.end < self.best / COLLAPSE
