"""Everything the page and the machine form say, worked out once."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from disback_cli.errors import UserError
from disback_cli.evaluation.comparable import smaller_is_better
from disback_cli.reporting.comparison.alike import require_alike
from disback_cli.reporting.comparison.bands import End, end_of
from disback_cli.reporting.comparison.curve import AXES, Axis, Curve
from disback_cli.reporting.comparison.places import find_runs
from disback_cli.reporting.comparison.races import Arrivals, SpeedUp, arrivals, levels, speed_up
from disback_cli.reporting.comparison.runs import RunRecord, in_order, read_run
from disback_cli.reporting.comparison.samples import EqualBudget, equal_budget
from disback_cli.reporting.comparison.starts import apart
from disback_cli.reporting.comparison.variants import (
    Difference,
    Variant,
    baselines,
    differences,
    flat,
    group,
)

# iterations told one by one
_NAMED = 4


@dataclass(frozen=True)
class Race:
    """One variant on its way to one level, on one axis; ``speed_up`` is over its baseline, None for a baseline."""

    level: float
    axis: Axis
    variant: int
    arrivals: Arrivals
    speed_up: SpeedUp | None


@dataclass(frozen=True)
class NumberReport:
    """One measured number.

    Attributes:
        name: its column.
        curves: of each variant; empty for a variant that was not measured by it.
        levels: qualities raced to, from easy to hard.
        races: by level, axis and variant; absent where the axis is unknown.
        ends: how each variant ends; None where it was not measured.
        teacher: the teacher's own number, mean over the runs that measured it.
    """

    name: str
    curves: tuple[tuple[Curve, ...], ...]
    levels: tuple[float, ...]
    races: Mapping[tuple[float, Axis, int], Race]
    ends: tuple[End | None, ...]
    teacher: float | None

    @property
    def axes(self) -> list[Axis]:
        """The axes on which some variant's places are known."""
        return [axis for axis in AXES if any(c.along(axis) is not None for curves in self.curves for c in curves)]

    @property
    def interval(self) -> float | None:
        """Most updates between two measurements of a run; None where each was measured once."""
        places = [curve.along("updates") for curves in self.curves for curve in curves]
        return max((b - a for x in places if x is not None for a, b in pairwise(x)), default=None)


@dataclass(frozen=True)
class Comparison:
    """The runs side by side.

    Attributes:
        variants: in the order in which their runs were named.
        baselines: for every variant the number of the one it is compared with; itself for a baseline.
        numbers: the one to select by first.
        differences: keys that differ between variants.
        budgets: sample grids at equal updates and at equal network passes, where there are grids.
        notes: sentences a reader should know.
        home: the folder of the sweep, if one sweep was compared.
    """

    variants: tuple[Variant, ...]
    baselines: tuple[int, ...]
    numbers: tuple[NumberReport, ...]
    differences: tuple[Difference, ...]
    budgets: tuple[EqualBudget, ...]
    notes: tuple[str, ...]
    home: Path | None = None

    @property
    def runs(self) -> list[RunRecord]:
        """All runs, variant by variant."""
        return [run for variant in self.variants for run in variant.runs]

    @property
    def teachers(self) -> list[str]:
        """Names of the teachers, usually one."""
        return list(dict.fromkeys(run.teacher[0] for run in self.runs))

    @property
    def measured_with(self) -> Mapping[str, object] | None:
        """Provenance of the numbers, as the first run that states it does."""
        return next((run.measured_with for run in self.runs if run.measured_with is not None), None)


@dataclass(frozen=True)
class Wishes:
    """What the command line asks for besides runs; ``levels`` are (number or None for the first, level)."""

    baseline: str | None = None
    number: str | None = None
    levels: tuple[tuple[str | None, float], ...] = field(default=())


def compare(places: Sequence[str], wishes: Wishes) -> Comparison:
    """Read, group, race.

    Raises:
        UserError: there is nothing to compare, or the numbers must not be compared.
    """
    found = find_runs(places)
    notes = list(found.notes)
    runs = _with_rows([read_run(folder) for folder in found.folders], notes)
    notes += require_alike(runs)
    variants = group(runs, notes)
    runs = [run for variant in variants for run in variant.runs]
    notes += _about_runs(runs)
    against = baselines(variants, wishes.baseline)
    names = _names(runs, wishes)
    reports = [_report(name, variants, against, _extra(name, names, wishes)) for name in names]
    budgets = (equal_budget(variants, "updates"), equal_budget(variants, "passes"))
    return Comparison(
        tuple(variants), tuple(against), tuple(reports),
        tuple(differences([variant.settings for variant in variants])),
        tuple(budget for budget in budgets if budget is not None), tuple(notes), found.home,
    )  # fmt: skip


def _with_rows(runs: Sequence[RunRecord], notes: list[str]) -> list[RunRecord]:
    silent = [run for run in runs if not run.rows]
    if silent:
        notes.append(f"left out, nothing has been logged yet: {_listed(silent)}")
    if len(silent) == len(runs):
        raise UserError(f"there is nothing to compare yet: {_listed(runs)} have no rows in metrics.csv")
    return [run for run in runs if run.rows]


def _names(runs: Sequence[RunRecord], wishes: Wishes) -> list[str]:
    """The measured numbers, the wished one first."""
    names = in_order({name for run in runs for name in run.numbers})
    asked = [("--number", wishes.number), *(("--level", name) for name, _ in wishes.levels)]
    for option, name in asked:
        if name is not None and name not in names:
            raise UserError(f"{option} {name}: measured were {', '.join(names) or 'no numbers'}")
    if wishes.levels and not names:
        raise UserError("--level: no quality was measured in these runs")
    return sorted(names, key=lambda name: name != wishes.number)


def _extra(name: str, names: Sequence[str], wishes: Wishes) -> list[float]:
    return [level for number, level in wishes.levels if (number or names[0]) == name]


def _report(name: str, variants: Sequence[Variant], against: Sequence[int], extra: Sequence[float]) -> NumberReport:
    curves = tuple(
        tuple(curve for run in variant.runs if (curve := run.curve(name, variant.label)) is not None)
        for variant in variants
    )
    aims = tuple(sorted({*levels([c for c in curves if c]), *extra}, reverse=smaller_is_better(name)))
    races: dict[tuple[float, Axis, int], Race] = {}
    for level in aims:
        for axis in AXES:
            races |= _races(curves, against, level, axis)
    teacher = [run.teacher_metrics[name] for v in variants for run in v.runs if name in run.teacher_metrics]
    ends = tuple(end_of(mine) if mine else None for mine in curves)
    return NumberReport(name, curves, aims, races, ends, statistics.fmean(teacher) if teacher else None)


def _races(
    curves: Sequence[Sequence[Curve]], against: Sequence[int], level: float, axis: Axis
) -> dict[tuple[float, Axis, int], Race]:
    times = [arrivals(mine, level, axis) for mine in curves]
    found = {}
    for i, (mine, j) in enumerate(zip(times, against, strict=True)):
        if mine is not None:
            base = times[j]
            faster = speed_up(base, mine) if base is not None and i != j else None
            found[level, axis, i] = Race(level, axis, i, mine, faster)
    return found


def _listed(runs: Sequence[RunRecord], among: Sequence[RunRecord] = ()) -> str:
    """Names of runs; all of several are called that."""
    return "all runs" if len(runs) == len(among) > 1 else ", ".join(run.name for run in runs)


def _about_runs(runs: Sequence[RunRecord]) -> list[str]:
    notes = [
        f"{run.name} is not finished ({run.state}, {run.last_iteration:,} of {run.iterations:,} updates): its curve "
        "ends there, and levels it has not reached count as censored there"
        for run in runs
        if run.state != "finished"
    ]
    without = [run for run in runs if not run.numbers]
    if len(without) == len(runs):
        notes.append("no quality was measured in any of these runs (metrics=none?): mismatch and samples only")
    elif without:
        notes.append(f"no quality was measured in: {_listed(without)}")
    measured = [run for run in runs if run.numbers]
    notes += [note for run in measured for note in _about_measurements(run)]
    return notes + _about_paths(runs) + _about_costs(measured)


def _about_measurements(run: RunRecord) -> list[str]:
    """What a run's curve does not show."""
    notes = []
    if dropped := run.not_finite:
        shown = ", ".join(f"{at:,}" for at in dropped[:_NAMED]) + (", ..." if len(dropped) > _NAMED else "")
        notes.append(f"{run.name}: measurements that are not finite are left out, at update {shown}")
    last, interval = run.last_measured, run.measuring_interval
    if last is not None and interval is not None and run.last_iteration - last > interval:
        notes.append(
            f"{run.name}: last measured at update {last:,} and logged until {run.last_iteration:,}, which is more than "
            f"the {interval:,.0f} updates between two measurements: its numbers do not tell how it went on"
        )
    return notes


def _about_paths(runs: Sequence[RunRecord]) -> list[str]:
    """Which runs walk a path of another student than theirs."""
    told: dict[str, list[RunRecord]] = {}
    for run in runs:
        if found := apart(run):
            told.setdefault("; ".join(found), []).append(run)
    return [
        f"the path was recorded for another untrained student ({what}), so its last node does not fit that of: "
        f"{_listed(users, runs)}"
        for what, users in told.items()
    ]


def _about_costs(runs: Sequence[RunRecord]) -> list[str]:
    notes = []
    without = [run for run in runs if run.passes_at([0.0]) is None]
    if without:
        notes.append(
            "network passes are unknown (no such column, and no summary or recording to tell): "
            f"{_listed(without, runs)}"
        )
    timed = [run for run in runs if run.seconds_at([0.0]) is not None]
    untimed = [run for run in runs if run.seconds_at([0.0]) is None]
    if untimed:
        notes.append(
            "wall time left out (no column seconds in metrics.csv, or the recording's is unknown): "
            f"{_listed(untimed, runs)}"
        )
    changed = [d.key for d in differences([flat(run.config.get("trainer", {}), "trainer") for run in timed])]
    if changed:
        notes.append(f"wall times are of runs that were launched differently: {', '.join(changed)}")
    for name, cost in (("student.weights", "making its start"), ("pairs", "making the pairs")):
        users = [run for run in runs if flat(run.config).get(name) is not None]
        if users:
            notes.append(f"{name}=: {cost} is not counted in the costs of {_listed(users, runs)}")
    return notes
