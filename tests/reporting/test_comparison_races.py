"""Levels, censored times, speed-ups and their intervals, against closed forms."""

import math

import numpy as np
import pytest
from test_comparison_curves import curve

from disback_cli.reporting.comparison.races import (
    Arrivals,
    SpeedUp,
    arrivals,
    bootstrap_ratio,
    levels,
    speed_up,
)


def all_of(*times):
    return Arrivals(times, (True,) * len(times))


def test_levels_of_a_distance_are_multiples_of_the_best_end():
    fast, slow = [curve([100.0, 2.0]), curve([100.0, 4.0])], [curve([100.0, 8.0])]
    assert levels([fast, slow]) == pytest.approx([12.0, 6.0, 4.5, 3.3])  # the best end is the mean of 2 and 4
    assert levels([[curve([5.0, 1.0])]]) == pytest.approx([4.0, 2.0, 1.5, 1.1])
    # every run starts below four times the best end: no race
    assert levels([[curve([3.0, 1.0])]]) == pytest.approx([2.0, 1.5, 1.1])


def test_other_levels_are_shares_of_the_way():
    rising = [[curve([1.0, 9.0], smaller=False)], [curve([2.0, 11.0], smaller=False)]]
    assert levels(rising) == pytest.approx([6.0, 8.5, 10.0, 10.5])
    assert levels([[curve([1.0, -1.0])]]) == pytest.approx([0.0, -0.5, -0.8, -0.9])


def test_runs_that_never_get_there_are_censored_at_their_last_measurement():
    found = arrivals([curve([4.0, 0.0]), curve([4.0, 4.0, 3.0, 2.0])], 1.0, "updates")
    assert found == Arrivals((7.5, 30.0), (True, False))
    assert (found.count, found.complete, found.mean) == (1, False, 18.75)
    assert arrivals([curve([4.0, 0.0], seconds=False)], 1.0, "seconds") is None


def test_speed_up_is_the_ratio_of_the_means():
    found = speed_up(all_of(10.0, 30.0), all_of(5.0, 5.0))
    assert found is not None and (found.value, found.kind) == (4.0, "exact")
    # the baseline's resampled mean is 10, 20 or 30 with chances 1/4, 1/2, 1/4
    assert (found.low, found.high) == (2.0, 6.0)


def test_the_interval_of_equal_times_is_a_point():
    assert bootstrap_ratio([12.0] * 3, [4.0] * 5) == (3.0, 3.0)


def test_the_interval_is_the_normal_one_for_many_seeds():
    draws = np.random.default_rng(1)
    above, below = draws.normal(100, 20, 400), draws.normal(50, 5, 300)
    low, high = bootstrap_ratio(above, below)
    ratio = above.mean() / below.mean()
    spread = ratio * math.hypot(above.std() / above.mean() / 20, below.std() / below.mean() / 300**0.5)
    assert (low, high) == (
        pytest.approx(ratio - 1.96 * spread, rel=0.01),
        pytest.approx(ratio + 1.96 * spread, rel=0.01),
    )


def test_the_interval_is_the_same_every_time():
    assert bootstrap_ratio([1.0, 2.0, 4.0], [3.0, 5.0]) == bootstrap_ratio([1.0, 2.0, 4.0], [3.0, 5.0])


def test_a_censored_baseline_gives_a_lower_bound_and_a_censored_variant_an_upper_one():
    half, full = Arrivals((10.0, 30.0), (True, False)), all_of(5.0, 5.0)
    assert speed_up(half, full) == SpeedUp(4.0, "at least", 2.0, None)
    below = speed_up(full, half)
    assert below is not None and (below.value, below.kind, below.low) == (0.25, "at most", None)
    assert below.high == pytest.approx(0.5)
    assert speed_up(half, half) is None


def test_a_single_seed_has_no_interval():
    assert speed_up(all_of(10.0), all_of(5.0, 5.0)) == SpeedUp(20 / 10, "exact", None, None)


def test_there_is_no_ratio_to_a_start_at_the_level():
    assert speed_up(all_of(10.0, 10.0), all_of(0.0, 5.0)) is None
