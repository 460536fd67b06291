"""The sample grids of the variants at equal budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from disback_cli.reporting.comparison.runs import RunRecord
from disback_cli.reporting.comparison.variants import Variant

BudgetAxis = Literal["updates", "passes"]


@dataclass(frozen=True)
class Grid:
    """The newest grid of a run within the budget; ``spent`` is what the run had cost by then, on the budget's axis."""

    variant: int
    seed: int
    iteration: int
    spent: float
    picture: Path


@dataclass(frozen=True)
class EqualBudget:
    """The grids of all variants within one budget: what the cheapest of their runs has spent at its last grid."""

    axis: BudgetAxis
    budget: float
    grids: tuple[Grid, ...]
    without: tuple[int, ...]


def equal_budget(variants: Sequence[Variant], axis: BudgetAxis) -> EqualBudget | None:
    """One grid a variant, of the smallest seed that all have (else of its first run), nearest below the budget.

    Runs without grids or without this axis have no part in it; None where no variant is left. Variants
    whose recording alone costs more than the budget are named in ``without``.
    """
    seed = _shared_seed(variants)
    found = {i: grids for i, variant in enumerate(variants) if (grids := _grids(i, variant.run_of(seed), axis))}
    if not found:
        return None
    budget = min(grids[-1].spent for grids in found.values())
    chosen = {i: [grid for grid in grids if grid.spent <= budget] for i, grids in found.items()}
    return EqualBudget(
        axis, budget, tuple(grids[-1] for grids in chosen.values() if grids), tuple(i for i in chosen if not chosen[i])
    )


def _shared_seed(variants: Sequence[Variant]) -> int | None:
    shared = set.intersection(*({run.seed for run in variant.runs} for variant in variants))
    return min(shared, default=None)


def _grids(variant: int, run: RunRecord, axis: BudgetAxis) -> list[Grid]:
    pictures = list(run.grids())
    spent = _spent(run, [iteration for iteration, _ in pictures], axis)
    return [
        Grid(variant, run.seed, iteration, cost, picture)
        for (iteration, picture), cost in zip(pictures, spent, strict=False)
    ]


def _spent(run: RunRecord, iterations: Sequence[int], axis: BudgetAxis) -> Sequence[float]:
    if axis == "updates":
        return [float(iteration) for iteration in iterations]
    return run.passes_at(iterations) or () if iterations else ()
