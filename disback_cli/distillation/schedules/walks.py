"""Walks along the path whose pace is fixed before they begin: functions of the iteration, without a state."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from disback_cli.distillation.schedules.base import Progress, Schedule, require_interval


class PathSchedule(Schedule):
    """The paper's: fake score from node N, targets N-1, ..., 1, 0, a fixed number of iterations each.

    Args:
        interval: iterations on each node before the next one; the teacher gets all that remain.
    """

    def __init__(self, *, interval: int) -> None:
        self.interval = require_interval(interval)

    def first_target(self, last: int) -> float:
        """Node N-1."""
        return float(last - 1)

    def next_target(self, progress: Progress) -> float:
        """One node on after every ``interval`` iterations."""
        if progress.target > 0 and progress.iteration > 0 and progress.iteration % self.interval == 0:
            return progress.target - 1
        return progress.target

    def teacher_from(self, last: int) -> int:
        """After N-1 full intervals."""
        return self.interval * (last - 1)


class InterpolatedSchedule(Schedule):
    """The path's, in smaller steps: between two nodes the target's weights are interpolated.

    The way from a node to the next one takes ``interval`` iterations and ``substeps`` targets: the node itself, then
    positions between the two. Every node is a target at the iteration at which it is one in :class:`PathSchedule`, and
    the teacher comes at the same iteration.

    Args:
        interval: iterations from a node to the next one.
        substeps: targets in that time; 1 is :class:`PathSchedule`.
    """

    def __init__(self, *, interval: int, substeps: int = 4) -> None:
        self.interval = require_interval(interval)
        if not 1 <= substeps <= interval:
            raise ValueError(f"schedule.substeps must be from 1 to schedule.interval={interval}, got {substeps}")
        self.substeps = substeps

    def first_target(self, last: int) -> float:
        """Node N-1."""
        return float(last - 1)

    def next_target(self, progress: Progress) -> float:
        """``1 / substeps`` of a node on, ``substeps`` times an interval, as evenly as iterations allow."""
        within = progress.iteration % self.interval
        moves = within * self.substeps // self.interval != (within - 1) * self.substeps // self.interval
        if progress.target <= 0 or progress.iteration == 0 or not moves:
            return progress.target
        # counted in whole substeps: positions that are nodes come out as integers, whatever a substep rounds to
        return (round(progress.target * self.substeps) - 1) / self.substeps

    def teacher_from(self, last: int) -> int:
        """After N-1 full intervals."""
        return self.interval * (last - 1)


class ProportionalSchedule(Schedule):
    """The path's, each node for a time in proportion to the way to it.

    Node i, the target after node i+1, is held for a share of ``interval * (N-1)`` iterations in proportion to the
    function distance between the two nodes, at least one iteration; the teacher gets all that remain.

    Args:
        interval: iterations on a node on average.
    """

    def __init__(self, *, interval: int) -> None:
        self.interval = require_interval(interval)
        self._ends: frozenset[int] = frozenset()

    def prepare(self, distances: Sequence[float]) -> None:
        """Share the iterations out over the nodes N-1, ..., 1."""
        ways = [abs(distances[node + 1] - distances[node]) for node in range(len(distances) - 2, 0, -1)]
        self._ends = frozenset(accumulate(shared_out(self.interval * len(ways), ways)))

    def first_target(self, last: int) -> float:
        """Node N-1.

        Raises:
            RuntimeError: the path was never shown to :meth:`prepare`.
        """
        if len(self._ends) != last - 1:
            raise RuntimeError(f"prepared for a path of {len(self._ends) + 1} nodes, asked about one of {last}")
        return float(last - 1)

    def next_target(self, progress: Progress) -> float:
        """One node on at the end of each node's share."""
        if progress.target > 0 and progress.iteration in self._ends:
            return progress.target - 1
        return progress.target

    def teacher_from(self, last: int) -> int:
        """When the other nodes have had their shares, which add up to N-1 intervals."""
        return self.interval * (last - 1)


def shared_out(total: int, weights: Sequence[float]) -> list[int]:
    """``total`` in whole parts, at least 1 each, as nearly in proportion to the weights as whole numbers allow.

    Args:
        total: at least ``len(weights)``.
        weights: not negative; shares are equal where all are 0.
    """
    whole = sum(weights)
    wanted = [total * (w / whole if whole > 0 else 1 / len(weights)) for w in weights]
    parts = [max(1, int(share)) for share in wanted]
    while sum(parts) != total:
        step = 1 if sum(parts) < total else -1
        # one more to who lacks most, one less to who has most too many and not just one; the first of equals
        needs = [step * (w - p) if p + step >= 1 else float("-inf") for w, p in zip(wanted, parts, strict=True)]
        parts[needs.index(max(needs))] += step
    return parts
