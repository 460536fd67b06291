"""The machine form: ``compare.json`` and what ``--json`` prints."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from disback_cli.reporting.comparison.bands import COLLAPSE_RULE
from disback_cli.reporting.comparison.comparison import Comparison, NumberReport
from disback_cli.reporting.comparison.races import CONFIDENCE, RESAMPLES, RESAMPLING_SEED

FORMAT = 1


def as_json(found: Comparison) -> dict[str, Any]:
    """Plain JSON values; variants are named by their labels."""
    labels = [variant.label for variant in found.variants]
    return {
        "format": FORMAT,
        "teachers": found.teachers,
        "measured_with": dict(found.measured_with) if found.measured_with is not None else None,
        "variants": [
            {
                "label": variant.label,
                "baseline": labels[found.baselines[i]],
                "runs": [
                    {
                        "folder": str(run.folder),
                        "seed": run.seed,
                        "state": run.state,
                        "updates": run.last_iteration,
                        "recording_passes": run.recording_passes,
                        "recording_seconds": run.recording_seconds,
                        "switches": [list(switch) for switch in run.switches],
                    }
                    for run in variant.runs
                ],
            }
            for i, variant in enumerate(found.variants)
        ],
        "numbers": {report.name: _number(report, labels) for report in found.numbers},
        "equal_budget": [
            {
                "axis": budget.axis,
                "budget": budget.budget,
                "samples": [
                    {
                        "variant": labels[grid.variant],
                        "seed": grid.seed,
                        "iteration": grid.iteration,
                        "spent": grid.spent,
                        "picture": str(grid.picture),
                    }
                    for grid in budget.grids
                ],
                "without_samples": [labels[i] for i in budget.without],
            }
            for budget in found.budgets
        ],
        "differences": [{"key": d.key, "values": dict(zip(labels, d.values, strict=True))} for d in found.differences],
        "bootstrap": {"resamples": RESAMPLES, "seed": RESAMPLING_SEED, "confidence": CONFIDENCE},
        "collapse_rule": COLLAPSE_RULE,
        "notes": list(found.notes),
    }


def _number(report: NumberReport, labels: list[str]) -> dict[str, Any]:
    measured = [curve for curves in report.curves for curve in curves]
    return {
        "smaller_is_better": measured[0].smaller_is_better,
        "teacher": report.teacher,
        "levels": list(report.levels),
        "curves": [
            {key: value for key, value in asdict(curve).items() if key != "smaller_is_better"} for curve in measured
        ],
        "end": [
            {"variant": label, **asdict(end)} for label, end in zip(labels, report.ends, strict=True) if end is not None
        ],
        "time_to_quality": [
            {
                "level": race.level,
                "axis": race.axis,
                "variant": labels[race.variant],
                "times": list(race.arrivals.times),
                "reached": list(race.arrivals.reached),
                "mean": race.arrivals.mean,
                "mean_is_bound": not race.arrivals.complete,
                "speed_up": None if race.speed_up is None else asdict(race.speed_up),
            }
            for race in report.races.values()
        ],
    }
