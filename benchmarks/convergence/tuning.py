"""Learning rates, chosen alike for all schedules of a cell.

Every pair of rates of the problem's grid is tried with ``endpoint`` and with ``path``, on a seed of its own and for a
part of the length. A trial's score is the geometric mean of its quality over all measurements after the start: early,
good and steady all lower it. The cell's rates are the pair with the smallest geometric mean of the two schedules'
scores: exchanging the two changes nothing, and all schedules of the cell then use the one pair.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

from benchmarks.convergence.plan import TUNED_WITH, Rates


def score(quality: Sequence[float]) -> float:
    """Geometric mean of the quality of a trial, the start left out; smaller is better."""
    return statistics.geometric_mean(quality[1:])


def standing(scores: Mapping[str, float]) -> float:
    """Geometric mean of the scores of the schedules that choose; infinite if one of them did not end.

    Args:
        scores: by schedule, > 0; a trial that did not end has none.
    """
    if not all(schedule in scores for schedule in TUNED_WITH):
        return math.inf
    return statistics.geometric_mean(scores[schedule] for schedule in TUNED_WITH)


def chosen(trials: Mapping[Rates, Mapping[str, float]]) -> Rates:
    """The pair of rates with the smallest standing; of equal ones the smaller rates.

    Args:
        trials: of every pair (student, fake score) the scores by schedule.

    Raises:
        ValueError: there is none.
    """
    if not trials:
        raise ValueError("no rates were tried")
    return min(trials, key=lambda rates: (standing(trials[rates]), rates))
