"""Tables of the study as Markdown, from ``results.json`` alone."""

from __future__ import annotations

import operator
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.convergence import analysis, figures
from benchmarks.convergence.analysis import AXES, Cell, Ratio
from benchmarks.convergence.page import page
from benchmarks.convergence.plan import SCHEDULES
from disback_cli.files import write_bytes

# what each ratio isolates: the whole method, stage 1 alone, the path alone
_RATIOS = (("endpoint", "path"), ("endpoint", "warm_start"), ("warm_start", "path"))
# Reported factors against the loop without the path, a secondary source: other data, networks and metrics.
_PAPER = (("FFHQ-64", 2.46), ("CIFAR-10", 13.09), ("ImageNet-64", 2.57))


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    return [*lines, *("| " + " | ".join(row) + " |" for row in rows), ""]


def _shown(found: Ratio | None) -> str:
    if found is None:
        return "-"
    sign = {">=": "≥ ", "<=": "≤ "}.get(found.bound, "")
    late = (found.censored_slower, found.censored_faster)
    return f"{sign}{found.value:.2f} ({found.low:.2f} - {found.high:.2f})" + (f" [{late[0]}, {late[1]}]" * any(late))


def ratios(cells: Sequence[Cell], level: str, paper: bool = False) -> list[str]:
    """Per problem, student and law, over objectives and seeds: what the method, stage 1 and the path save.

    Args:
        cells: all of them.
        level: ``level`` or ``half_way``, what is raced to.
        paper: whether the paper's factors stand below.
    """
    heads = ["problem", "student", "law", "cells"]
    heads += [f"{slower}/{faster}, {axis}" for slower, faster in _RATIOS for axis in AXES]
    solved = [cell for cell in cells if cell.solved]
    groups = {
        **analysis.grouped(solved, lambda c: (c.problem, c.student, c.law)),
        **analysis.grouped(solved, lambda c: (c.problem, "all", "all")),
        **analysis.grouped(solved, lambda _: ("all", "all", "all")),
    }
    rows = []
    for key, group in groups.items():
        level_of = operator.attrgetter(level)
        values = [_shown(analysis.ratio(group, *pair, axis, level_of)) for pair in _RATIOS for axis in AXES]
        rows.append([*key, str(len(group)), *values])
    for name, factor in _PAPER if paper else ():
        rows.append([f"paper, {name}", "teacher", "", "", f"{factor}", *["-"] * (len(heads) - 5)])
    return _table(heads, rows)


def times(cells: Sequence[Cell]) -> list[str]:
    """Per cell: the level, and for every schedule updates and passes to it and the end."""
    heads = ["problem", "student", "objective", "law", "level", "schedule", "updates", "1000 passes", "end", "runs"]
    rows = []
    for cell in cells:
        for schedule, runs in cell.runs.items():
            ours = list(runs.values())
            reached = [r for r in ours if r.reached(cell.level) is not None]
            mark = "" if len(reached) == len(ours) else "> "
            updates, passes = (statistics.geometric_mean(r.time(cell.level, axis) for r in ours) for axis in AXES)
            ends = [r.end for r in ours]
            rows.append([
                cell.problem, cell.student, cell.objective, cell.law,
                f"{cell.level:.3g}" + ("" if cell.solved else ", no race"), schedule,
                f"{mark}{updates:.0f}", f"{mark}{passes / 1000:.0f}",
                f"{statistics.fmean(ends):.3g} ({min(ends):.3g} - {max(ends):.3g})", f"{len(reached)} of {len(ours)}",
            ])  # fmt: skip
    return _table(heads, rows)


def stability(cells: Sequence[Cell]) -> list[str]:
    """Per problem, student, law and schedule: how the runs ended and how much they still moved."""
    heads = ["problem", "student", "law", "schedule", "runs", "well", "stalled", "collapsed", "diverged", "last tenth"]
    rows = []
    for key, group in analysis.grouped(cells, lambda c: (c.problem, c.student, c.law)).items():
        for schedule in SCHEDULES:
            runs = [run for cell in group for run in cell.runs.get(schedule, {}).values()]
            if not runs:
                continue
            counts = analysis.fates(group, schedule)
            moved = statistics.geometric_mean(run.spread for run in runs if not run.diverged)
            rows.append([*key, schedule, str(len(runs)), *map(str, counts.values()), f"{moved:.2f}"])
    return _table(heads, rows)


def question(cells: Sequence[Cell]) -> list[str]:
    """Is a schedule never slower than ``endpoint`` by more than its recording, and better where that fails?"""
    heads = ["schedule", "cells", "fewer updates", "alike", "more updates", "fewer passes with recording",
             "runs endpoint fails in", "ended well instead", "ended badly where endpoint did well"]  # fmt: skip
    rows, named = [], []
    for schedule in SCHEDULES:
        found = analysis.verdict(cells, schedule)
        if schedule == "endpoint" or not found.cells:
            continue
        rows.append([
            schedule, str(found.cells), str(len(found.faster)), str(found.alike), str(len(found.slower)),
            str(len(found.cheaper)), str(found.endpoint_failures), str(found.rescued), str(found.lost),
        ])  # fmt: skip
        for what, names in (("updates", found.faster), ("passes", found.cheaper)):
            named += [f"{schedule} needs fewer {what} in {', '.join(names)}.", ""] if names else []
    return [*_table(heads, rows), *named]


def every_rate(results: dict[str, Any]) -> list[str]:
    """endpoint and path at all rates that were tried: each at its own best, and how much worse the others are."""
    heads = ["problem", "student", "law", "pairs of rates", "endpoint ahead", "path ahead", "own best, endpoint/path",
             "endpoint, all/best", "path, all/best"]  # fmt: skip
    found: dict[tuple[str, ...], list[Any]] = {}
    for name, entry in results["rates"].items():
        problem, student, _, law = name.split("-")
        found.setdefault((problem, student, law), []).append(entry.get("tried", []))
    rows = []
    for key, tried in found.items():
        t = analysis.trials(tried)
        if t.pairs:
            numbers = [f"{x:.2f}" for x in (t.own_best, t.endpoint_loss, t.path_loss)]
            rows.append([*key, str(t.pairs), str(t.endpoint_ahead), str(t.path_ahead), *numbers])
    return _table(heads, rows)


def rates(results: dict[str, Any]) -> list[str]:
    """The learning rates that were chosen."""
    rows = [[cell, *(f"{rate:g}" for rate in found["chosen"])] for cell, found in results["rates"].items()]
    return _table(["cell", "student", "fake score"], rows)


def markdown(results: dict[str, Any]) -> str:
    """The whole summary."""
    cells = analysis.cells(results)
    bare = [c for c in cells if not c.solved]
    limits = ", ".join(f"{name} {p['quality']} {p['good']:g}" for name, p in results["problems"].items())
    lines = [
        "# Does the path converge faster?", "",
        f"`{results['command']}`  ({results['measured']}, {results['machine']}; {len(results['runs'])} runs in "
        f"{len(cells)} cells)", "",
        "A cell is a problem, student, objective and noise law; its schedules share recordings, seeds and learning "
        "rates. The level of a cell is 1.5 times the end of its best schedule (an end is the geometric mean of the "
        "last tenth of a run's measurements). A run that never reaches it counts with its whole length, so such a "
        "ratio is a bound (≥, ≤), or with such runs on both sides neither; [a, b] counts them on either side. "
        f"Intervals are 95 % of {analysis.RESAMPLES} bootstrap resamples over cells and seeds. Passes are forward "
        "passes of the teacher's network, the recording counted in full for every run that reads one. Cells in which "
        f"no schedule ends with a good student ({limits}, and half of the untrained one's) are no race: "
        f"{len(bare)} of {len(cells)}.", "",
        "## What is saved", "", "endpoint/path is the method, endpoint/warm_start stage 1's share, warm_start/path "
        "the path's. Above 1: the second needs less.", "", *ratios(cells, "level", paper=True),
        "The paper's factors are against its loop without the path, as a secondary source reports them; other data, "
        "networks and metrics, and how its rates were chosen is not known.", "",
        "The same races to half way: the geometric middle between the untrained student and the best end.", "",
        *ratios(cells, "half_way"),
        "## A schedule that is never much slower and wins where endpoint fails?", "",
        f"Alike: the updates to the level differ by less than a factor {analysis.TOLERANCE}. A schedule that needs "
        "more updates than endpoint is slower by more than its recording.", "", *question(cells),
        "## How runs end", "",
        "Stalled: never at the level (in a cell without a good student: never good). Collapsed: ends above twice the "
        "level though it was there, or worse than it began. Last tenth: largest over smallest measurement in it, "
        "geometric mean.", "", *stability(cells),
        "## Cells", "", *times(cells), "## Learning rates", "",
        "One pair for all schedules of a cell, chosen on a seed of its own with endpoint and path alike (see "
        "`benchmarks/convergence/tuning.py`).", "", *rates(results),
        "The same trials at every pair of rates, by their scores (geometric mean of the quality over the run, smaller "
        f"is better). Ahead: better by more than a factor {analysis.TOLERANCE}.", "", *every_rate(results),
    ]  # fmt: skip
    return "\n".join([*lines, *(f"![{name}]({name})" for name in figures.names(cells)), ""])


def summarise(results: dict[str, Any], folder: Path) -> None:
    """Write tables, pictures and the page; print the tables that answer the question."""
    text = markdown(results)
    write_bytes(folder / "summary.md", text.encode())
    cells = analysis.cells(results)
    figures.draw(cells, {name: facts["quality"] for name, facts in results["problems"].items()}, folder)
    write_bytes(folder / "index.html", page(text, folder).encode())
    print("\n".join([*ratios(cells, "level", paper=True), *question(cells), *stability(cells)]))
