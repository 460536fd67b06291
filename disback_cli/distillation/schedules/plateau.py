"""Leaves a node when the mismatch does not fall measurably any more; how noisy it is, is estimated on the way."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from disback_cli.distillation.schedules.base import Progress, Schedule

# Fewer measurements than this tell nothing about their noise.
FEWEST = 6


class PlateauSchedule(Schedule):
    """The path's order, each switch as soon as staying brings no measurable progress.

    Progress is the fall of the mismatch between D_fake and D_target on the student's noisy samples, which the
    generator step computes anyway: no extra network pass. Neither the noise of the mismatch nor the floor that it
    falls to is assumed; both are estimated on the last ``window`` iterations on the node (see :func:`at_rest`).

    Args:
        settle: iterations on a node before the first look, at least 6.
        window: iterations that are looked at, at least 6; the whole time on the node where that is shorter.
        z: how many standard errors the fall must exceed to count as progress.
        within: the node is left, too, when the mismatch is at most this factor above the floor it falls to.
        max_interval: iterations after which a node is left in any case.
    """

    uses_mismatch = True

    def __init__(
        self, *, settle: int = 10, window: int = 15, z: float = 2.0, within: float = 1.05, max_interval: int
    ) -> None:
        if not FEWEST <= settle < max_interval:
            raise ValueError(f"schedule needs {FEWEST} <= settle < max_interval, got {settle} and {max_interval}")
        if window < FEWEST:
            raise ValueError(f"schedule.window must be at least {FEWEST}, got {window}")
        if z < 0:
            raise ValueError(f"schedule.z must not be negative, got {z}")
        if within < 1:
            raise ValueError(f"schedule.within must be at least 1, got {within}")
        self.settle, self.window, self.z, self.within, self.max_interval = settle, window, z, within, max_interval
        self._since = 0
        self._measured: list[float] = []

    def first_target(self, last: int) -> float:
        """Node N-1."""
        return float(last - 1)

    def next_target(self, progress: Progress) -> float:
        """The next node when the mismatch is at rest, or after ``max_interval`` iterations."""
        if progress.target == 0 or progress.mismatch is None:
            return progress.target
        self._measured = [*self._measured, progress.mismatch][-self.window :]
        spent = progress.iteration - self._since
        if spent < self.settle or (spent < self.max_interval and not at_rest(self._measured, self.z, self.within)):
            return progress.target
        self._since, self._measured = progress.iteration, []
        return progress.target - 1

    def teacher_from(self, last: int) -> int:
        """After N-1 intervals of ``max_interval``, the slowest case."""
        return self.max_interval * (last - 1)

    def state(self) -> dict[str, Any]:
        """Where the present node began and what was measured on it."""
        return {"since": self._since, "measured": list(self._measured)}

    def restore(self, state: dict[str, Any]) -> None:
        """Take the measurements up again."""
        self._since, self._measured = state["since"], list(state["measured"])


def at_rest(values: Sequence[float], z: float, within: float) -> bool:
    """Whether a noisy, falling series has come to rest: it falls by no more than noise does, or is near its floor.

    Args:
        values: in order of time, at least 6.
        z: standard errors that a fall must exceed to count.
        within: factor above the floor that counts as near.
    """
    noise = noise_of(values)
    count = len(values)
    middle = (count - 1) / 2
    spread = count * (count * count - 1) / 12  # sum of (t - middle)^2
    slope = sum((t - middle) * value for t, value in enumerate(values)) / spread
    if slope >= -z * noise / math.sqrt(spread):
        return True
    floor, level = floor_of(values, z * noise)
    return floor is not None and level <= within * floor


def noise_of(values: Sequence[float]) -> float:
    """Standard deviation of the noise in a series, from its second differences, which no straight trend enters.

    The second difference of independent noise has six times its variance (1 + 4 + 1).
    """
    bends = [values[t] - 2 * values[t + 1] + values[t + 2] for t in range(len(values) - 2)]
    return math.sqrt(sum(bend * bend for bend in bends) / len(bends) / 6)


def floor_of(values: Sequence[float], doubt: float) -> tuple[float | None, float]:
    """The floor that an exponential decay in the series tends to, and the present level.

    The means of three blocks of one length, A, B, C in order, of f + a exp(-t / tau) fall by a constant factor
    r = (B - C) / (A - B), so what is left to fall is (B - C) r / (1 - r) (Aitken's extrapolation). Each fall is taken
    at the end of its doubt where more is left, so that noise makes the floor lower and never nearer.

    Args:
        values: in order of time, at least 3.
        doubt: of a single value.

    Returns:
        The floor, None where the falls do not tell one; the mean of the last block.
    """
    size = len(values) // 3
    blocks = [values[len(values) - size * k : len(values) - size * (k - 1)] for k in (3, 2, 1)]
    first, second, third = (sum(block) / size for block in blocks)
    of_difference = doubt * math.sqrt(2 / size)
    before, now = first - second - of_difference, second - third + of_difference
    if not 0 <= now < before:
        return None, third
    return third - now * now / (before - now), third
