"""From the folders of the runs to ``results.json``: curves, costs, ends, chosen rates."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.convergence import analysis, plan, tuning
from benchmarks.convergence.jobs import SUMMARY, TIMES, Job, diverged
from benchmarks.convergence.plan import Cell, Rates
from disback_cli.runtime.csv_logger import read_metrics


def curve(folder: Path, prefix: str) -> tuple[list[int], list[float]]:
    """Updates and quality of a run, from its metrics.csv.

    Args:
        folder: the run's.
        prefix: of the column that holds the quality.
    """
    updates, quality = [], []
    for row in read_metrics(folder / "metrics.csv"):
        for name, value in row.items():
            if name.startswith(prefix):
                updates.append(int(row["iteration"]))
                quality.append(float(f"{value:.5g}"))
    return updates, quality


def trials(work: Path, cell: Cell) -> dict[Rates, dict[str, float]]:
    """Scores of the runs that choose a cell's rates; a run that failed has none."""
    found: dict[Rates, dict[str, float]] = {}
    for rates in cell.problem.rates:
        found[rates] = {}
        for schedule in plan.TUNED_WITH:
            folder = work / plan.tuning_run(cell, schedule, rates).name
            if (folder / SUMMARY).is_file():
                found[rates][schedule] = tuning.score(curve(folder, cell.problem.quality)[1])
    return found


def result(work: Path, cell: Cell, schedule: str, seed: int, rates: Rates) -> dict[str, Any] | None:
    """One run as plain values; None if it has not been run."""
    job = plan.run(cell, schedule, seed, rates)
    folder = work / job.name
    facts: dict[str, Any] = {
        "problem": cell.problem.name, "student": cell.student.name, "objective": cell.objective.name,
        "law": cell.law.name, "schedule": schedule, "seed": seed,
    }  # fmt: skip
    updates, quality = curve(folder, cell.problem.quality)
    if (folder / SUMMARY).is_file():
        cost = json.loads((folder / SUMMARY).read_text())["cost"]
        recorded = cost["network_passes_with_recording"] - cost["network_passes"]
        each = cost["network_passes"] / cell.problem.updates
        seconds = cost["seconds"]
    elif diverged(folder):
        recorded, each, seconds = 0, math.nan, math.nan
        facts["diverged"] = True
    else:
        return None
    facts |= {"updates": updates, "quality": quality, "passes_per_update": each, "recording_passes": recorded}
    return facts | {"seconds": seconds}


def collected(work: Path, cells: dict[Cell, tuple[str, ...]]) -> dict[str, Any]:
    """Everything that has been measured: rates by cell, runs.

    Cells of which the rates have not been chosen yet are left out.
    """
    rates_of: dict[str, Any] = {}
    runs: list[dict[str, Any]] = []
    for cell, schedules in cells.items():
        tried = trials(work, cell)
        if not any(tried.values()):
            continue
        rates = tuning.chosen(tried)
        rates_of[cell.name] = {
            "chosen": list(rates),
            "tried": [{"rates": list(pair), "scores": scores} for pair, scores in tried.items()],
        }
        for schedule in schedules:
            seeds = (*plan.SEEDS, *plan.FURTHER_SEEDS)
            runs += [r for seed in seeds if (r := result(work, cell, schedule, seed, rates)) is not None]
    problems = {
        p.name: {"good": p.good, "quality": p.quality.rstrip("_"), "updates": p.updates}
        for p in dict.fromkeys(cell.problem for cell in cells)
    }
    return {"problems": problems, "rates": rates_of, "runs": runs}


def close(work: Path, cells: dict[Cell, tuple[str, ...]]) -> dict[Cell, tuple[str, ...]]:
    """Those of the cells whose answer the first seeds leave open, with their schedules."""
    curves = [cell.of_seeds(plan.SEEDS) for cell in analysis.cells(collected(work, cells))]
    names = {cell.name for cell in curves if analysis.undecided(cell)}
    return {cell: schedules for cell, schedules in cells.items() if cell.name in names}


def median_seconds(work: Path, jobs: Iterable[Job]) -> float:
    """Median CPU time of those jobs that have been run; nan if none has."""
    times = [folder / TIMES for job in jobs if ((folder := work / job.name) / SUMMARY).is_file()]
    return statistics.median(json.loads(t.read_text())["cpu"] for t in times) if times else math.nan
