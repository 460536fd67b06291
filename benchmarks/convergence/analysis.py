"""What the curves of ``results.json`` say: levels, times, ratios with intervals, failures. Numbers in, numbers out."""

from __future__ import annotations

import math
import operator
import random
import statistics
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

Axis = Literal["updates", "passes"]
AXES: tuple[Axis, Axis] = ("updates", "passes")
RESAMPLES = 1000


@dataclass(frozen=True)
class Run:
    """One run's curve.

    Attributes:
        schedule: its schedule.
        seed: of recording and run.
        updates: generator updates at which quality was measured, rising from 0.
        quality: measured there; smaller is better.
        passes_per_update: forward passes of the teacher that an update costs.
        recording_passes: those of the recording, 0 for a schedule that reads none.
        diverged: the run ended with numbers that are not finite.
    """

    schedule: str
    seed: int
    updates: tuple[int, ...]
    quality: tuple[float, ...]
    passes_per_update: float
    recording_passes: float
    diverged: bool = False

    @property
    def last_tenth(self) -> tuple[float, ...]:
        """The last tenth of the measurements, three at least."""
        return self.quality[-max(3, len(self.quality) // 10) :]

    @property
    def end(self) -> float:
        """Geometric mean of the last tenth; infinite for a run that diverged."""
        return math.inf if self.diverged else statistics.geometric_mean(self.last_tenth)

    @property
    def spread(self) -> float:
        """Largest over smallest quality of the last tenth."""
        return max(self.last_tenth) / min(self.last_tenth)

    def reached(self, level: float) -> float | None:
        """Updates at which quality first was at ``level`` or better, linear between measurements; 1 at least."""
        for i, value in enumerate(self.quality):
            if value <= level:
                if i == 0:
                    return 1.0
                before, x, since = self.quality[i - 1], self.updates[i], self.updates[i - 1]
                return max(1.0, since + (x - since) * (before - level) / (before - value))
        return None

    def cost(self, updates: float, axis: Axis) -> float:
        """Updates as they are, or the network passes up to there, the recording counted."""
        return updates if axis == "updates" else self.recording_passes + updates * self.passes_per_update

    def time(self, level: float, axis: Axis) -> float:
        """Cost of reaching ``level``; of a run that never does, that of its whole length, which is too little."""
        found = self.reached(level)
        return self.cost(self.updates[-1] if found is None else found, axis)

    def fate(self, level: float) -> str:
        """How the run ended: ``diverged``, ``collapsed``, ``stalled`` or ``well``.

        Collapsed: ends above twice ``level`` though it was there, or worse than it began. Stalled: never at the level.
        """
        if self.diverged:
            return "diverged"
        reached = self.reached(level) is not None
        if self.end > 2 * level and (reached or self.end > self.quality[0]):
            return "collapsed"
        return "well" if reached else "stalled"


@dataclass(frozen=True)
class Cell:
    """The runs of one problem, student, objective and law, by schedule and seed.

    Attributes:
        problem, student, objective, law: what is held fixed.
        good: quality below which a student of the problem is worth having.
        runs: by schedule, then seed.
    """

    problem: str
    student: str
    objective: str
    law: str
    good: float
    runs: dict[str, dict[int, Run]]

    @property
    def name(self) -> str:
        """As in the plan."""
        return f"{self.problem}-{self.student}-{self.objective}-{self.law}"

    def of_seeds(self, seeds: Collection[int]) -> Cell:
        """The same cell with the runs of these seeds alone."""
        runs = {name: {seed: run for seed, run in of.items() if seed in seeds} for name, of in self.runs.items()}
        return replace(self, runs={name: of for name, of in runs.items() if of})

    @property
    def best_end(self) -> float:
        """The best schedule's end: geometric mean over its seeds."""
        return min(_mean(run.end for run in runs.values()) for runs in self.runs.values())

    @property
    def level(self) -> float:
        """The quality that is raced to: 1.5 times the best end."""
        return 1.5 * self.best_end

    @property
    def bar(self) -> float:
        """What a run must reach to have ended well: the level, or in a cell that is not solved what is good."""
        return self.level if self.solved else self.good

    @property
    def untrained(self) -> float:
        """Quality before the first update."""
        return _mean(run.quality[0] for runs in self.runs.values() for run in runs.values())

    @property
    def half_way(self) -> float:
        """The quality in the geometric middle between the untrained student and the best end."""
        return math.sqrt(self.untrained * self.best_end)

    @property
    def solved(self) -> bool:
        """Whether some schedule ends well and far better than it began; if not, times mean nothing."""
        return self.best_end <= min(self.good, self.untrained / 2)


def cells(results: dict[str, Any]) -> list[Cell]:
    """The cells of ``results.json``, in its order."""
    found: dict[tuple[str, ...], Cell] = {}
    for facts in results["runs"]:
        key = tuple(facts[name] for name in ("problem", "student", "objective", "law"))
        good = results["problems"][facts["problem"]]["good"]
        cell = found.setdefault(key, Cell(*key, good, {}))  # type: ignore[arg-type]
        run = Run(
            facts["schedule"],
            facts["seed"],
            tuple(facts["updates"]),
            tuple(facts["quality"]),
            facts["passes_per_update"],
            facts["recording_passes"],
            facts.get("diverged", False),
        )
        cell.runs.setdefault(run.schedule, {})[run.seed] = run
    return list(found.values())


@dataclass(frozen=True)
class Ratio:
    """How many times less ``faster`` needs than ``slower``, with a 95 % bootstrap interval.

    Attributes:
        value: geometric mean.
        low, high: 2.5 and 97.5 per cent of the resamples.
        censored_slower, censored_faster: runs that never reached the level and count with their whole length; of the
            slower ones that makes the ratio too small, of the faster ones too large.
        pairs: pairs of runs.
    """

    value: float
    low: float
    high: float
    censored_slower: int
    censored_faster: int
    pairs: int

    @property
    def bound(self) -> str:
        """How the true ratio stands to the value: ``=``, ``>=``, ``<=``, or ``?`` where both sides are censored."""
        return {(0, 0): "=", (1, 0): ">=", (0, 1): "<="}.get(
            (min(1, self.censored_slower), min(1, self.censored_faster)), "?"
        )


def ratio(
    group: Iterable[Cell],
    slower: str,
    faster: str,
    axis: Axis,
    level_of: Callable[[Cell], float] = operator.attrgetter("level"),
) -> Ratio | None:
    """Time of ``slower`` over time of ``faster`` to a cell's level, paired by seed; None if no cell has both.

    Geometric mean over a cell's seeds, then over cells; a resample draws cells, and in each of them seeds. With one
    cell it draws seeds alone.
    """
    logs: list[list[float]] = []
    late = [0, 0]
    for cell in group:
        level = level_of(cell)
        mine, other = cell.runs.get(slower, {}), cell.runs.get(faster, {})
        seeds = sorted(mine.keys() & other.keys())
        if not seeds:
            continue
        logs.append([math.log(mine[s].time(level, axis) / other[s].time(level, axis)) for s in seeds])
        for i, runs in enumerate((mine, other)):
            late[i] += sum(runs[s].reached(level) is None for s in seeds)
    if not logs:
        return None
    low, high = _interval(logs)
    value = math.exp(statistics.fmean(map(statistics.fmean, logs)))
    return Ratio(value, low, high, *late, sum(map(len, logs)))


def _interval(logs: list[list[float]]) -> tuple[float, float]:
    draw = random.Random(0)
    means = []
    for _ in range(RESAMPLES):
        chosen = draw.choices(logs, k=len(logs)) if len(logs) > 1 else logs
        means.append(statistics.fmean(statistics.fmean(draw.choices(seeds, k=len(seeds))) for seeds in chosen))
    means.sort()
    return math.exp(means[int(0.025 * RESAMPLES)]), math.exp(means[int(0.975 * RESAMPLES) - 1])


def undecided(cell: Cell) -> bool:
    """Whether a race is too close to call: the interval of endpoint/path in updates has a 1 in it."""
    found = ratio([cell], "endpoint", "path", "updates")
    return cell.solved and found is not None and found.low <= 1 <= found.high


def fates(group: Iterable[Cell], schedule: str) -> dict[str, int]:
    """How the runs of a schedule ended, counted."""
    counts = dict.fromkeys(("well", "stalled", "collapsed", "diverged"), 0)
    for cell in group:
        for run in cell.runs.get(schedule, {}).values():
            counts[run.fate(cell.bar)] += 1
    return counts


@dataclass(frozen=True)
class Verdict:
    """A schedule against ``endpoint`` over many cells.

    Attributes:
        cells: compared.
        faster: names of cells in which it needs fewer updates than ``endpoint`` by more than ``TOLERANCE``.
        alike: cells within it.
        slower: names of cells in which it needs more: there it is slower by more than its recording.
        cheaper: names of cells in which it needs fewer passes, the recording counted.
        endpoint_failures: runs of ``endpoint`` that did not end well.
        rescued: of those, how many of the same cell and seed ended well with the schedule.
        lost: runs that ended well with ``endpoint`` and did not with the schedule.
    """

    schedule: str
    cells: int
    faster: tuple[str, ...]
    alike: int
    slower: tuple[str, ...]
    cheaper: tuple[str, ...]
    endpoint_failures: int
    rescued: int
    lost: int


TOLERANCE = 1.15  # ratio of updates within which two schedules count as alike: about a measurement's interval


def verdict(group: Iterable[Cell], schedule: str) -> Verdict:
    """How a schedule does against ``endpoint``; in cells that have both, and in which one of all schedules is good."""
    count = alike = failures = rescued = lost = 0
    faster, slower, cheaper = [], [], []
    for cell in group:
        updates = ratio([cell], "endpoint", schedule, "updates")
        passes = ratio([cell], "endpoint", schedule, "passes")
        if not cell.solved or updates is None or passes is None:
            continue
        count += 1
        cheaper += [cell.name] if passes.value > 1 else []
        if updates.value > TOLERANCE:
            faster.append(cell.name)
        elif updates.value >= 1 / TOLERANCE:
            alike += 1
        else:
            slower.append(cell.name)
        for seed, run in cell.runs[schedule].items():
            if seed in cell.runs["endpoint"]:
                plain = cell.runs["endpoint"][seed].fate(cell.level) == "well"
                well = run.fate(cell.level) == "well"
                failures += not plain
                rescued += well and not plain
                lost += plain and not well
    return Verdict(schedule, count, tuple(faster), alike, tuple(slower), tuple(cheaper), failures, rescued, lost)


@dataclass(frozen=True)
class Trials:
    """The runs that chose rates, once more: ``endpoint`` and ``path`` at each pair of rates.

    Attributes:
        pairs: pairs of rates with which both ended, over cells.
        endpoint_ahead, path_ahead: pairs at which the score of one is better by more than ``TOLERANCE``.
        own_best: geometric mean over cells of endpoint's best score over path's best, each at its own rates.
        endpoint_loss, path_loss: geometric mean of scores over the cell's best of that schedule: what a badly chosen
            pair costs it.
    """

    pairs: int
    endpoint_ahead: int
    path_ahead: int
    own_best: float
    endpoint_loss: float
    path_loss: float


def trials(tried_in_cells: Iterable[Sequence[Mapping[str, Any]]]) -> Trials:
    """Compare the two schedules that chose rates, over all rates that were tried.

    Args:
        tried_in_cells: of each cell its ``tried`` entries of ``results.json``.
    """
    ahead = [0, 0]
    own: list[float] = []
    losses: tuple[list[float], list[float]] = [], []
    pairs = 0
    for tried in tried_in_cells:
        scores = [entry["scores"] for entry in tried if {"endpoint", "path"} <= entry["scores"].keys()]
        if not scores:
            continue
        pairs += len(scores)
        best = [min(score[name] for score in scores) for name in ("endpoint", "path")]
        own.append(best[0] / best[1])
        for score in scores:
            ahead[0] += score["path"] > TOLERANCE * score["endpoint"]
            ahead[1] += score["endpoint"] > TOLERANCE * score["path"]
            for i, name in enumerate(("endpoint", "path")):
                losses[i].append(score[name] / best[i])
    return Trials(pairs, *ahead, _mean(own), _mean(losses[0]), _mean(losses[1]))


def grouped(group: Iterable[Cell], key: Callable[[Cell], tuple[str, ...]]) -> dict[tuple[str, ...], list[Cell]]:
    """Cells by a key, in order of first appearance."""
    found: dict[tuple[str, ...], list[Cell]] = {}
    for cell in group:
        found.setdefault(key(cell), []).append(cell)
    return found


def _mean(values: Iterable[float]) -> float:
    """Geometric mean; infinite if one value is, nan of none."""
    numbers = list(values)
    if not numbers:
        return math.nan
    return statistics.geometric_mean(numbers) if all(map(math.isfinite, numbers)) else math.inf
