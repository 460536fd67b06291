"""What is read off a curve, and the band over seeds."""

import pytest

from disback_cli.reporting.comparison.bands import band, end_of
from disback_cli.reporting.comparison.curve import Curve


def curve(quality, *, every=10, start=0.0, seed=0, smaller=True, seconds=True):
    updates = tuple(every * i for i in range(len(quality)))
    passes = tuple(start + 8.0 * at for at in updates)
    return Curve("v", seed, updates, passes, tuple(quality), updates if seconds else None, smaller)


def test_a_level_is_reached_on_the_line_between_measurements():
    falling = curve([10.0, 6.0, 2.0], start=100.0)  # 10 - 0.4 u
    for level in (9.0, 6.0, 5.0, 2.0):
        assert falling.reached(level, "updates") == pytest.approx((10 - level) / 0.4)
        assert falling.reached(level, "passes") == pytest.approx(100 + 8 * (10 - level) / 0.4)
    assert falling.reached(1.9, "updates") is None


def test_the_first_time_counts_and_a_start_at_the_level_is_its_own_place():
    assert curve([8.0, 2.0, 9.0, 1.0]).reached(5.0, "updates") == pytest.approx(5.0)
    assert curve([3.0, 4.0], start=70.0).reached(3.5, "passes") == 70.0


def test_numbers_that_grow_with_quality():
    rising = curve([1.0, 3.0, 5.0], smaller=False)
    assert rising.reached(4.0, "updates") == pytest.approx(15.0)
    assert rising.reached(5.1, "updates") is None and rising.best == 5.0


def test_an_unknown_axis_is_never_guessed():
    with pytest.raises(ValueError, match="seconds of v, seed 0, are unknown"):
        curve([2.0, 1.0], seconds=False).reached(1.5, "seconds")


def test_the_end_is_the_last_tenth():
    values = [5.0] * 18 + [1.0, 3.0]
    assert (curve(values).end, curve(values).unrest) == (2.0, pytest.approx(2**0.5))
    assert (curve([4.0, 2.0]).end, curve([4.0, 2.0]).unrest) == (2.0, None)


@pytest.mark.parametrize(
    ("quality", "smaller", "collapsed"),
    [
        ([9, 1, 2.1], True, True),
        ([9, 1, 1.9], True, False),
        ([1, 8, 3.9], False, True),
        ([1, 8, 4.1], False, False),
        ([0.5, -0.001, 0.4], True, False),  # no multiple of a number that is not positive
    ],
)
def test_collapse_is_twice_the_own_best(quality, smaller, collapsed):
    assert curve(quality, smaller=smaller).collapsed is collapsed


def test_band_is_mean_and_extremes_where_all_runs_are():
    found = band([curve([4.0, 2.0, 1.0]), curve([8.0, 4.0], seed=1, start=10.0)], "passes")
    assert found is not None
    assert found.x == (5.0, 85.0)
    assert (found.mean, found.low, found.high) == ((6.0, 3.0), (4.0, 2.0), (8.0, 4.0))


def test_band_of_runs_measured_at_other_places_is_linear_between():
    found = band([curve([4.0, 0.0], every=20), curve([4.0, 4.0, 0.0], every=10)], "updates")
    assert found is not None and found.x == (0.0, 10.0, 20.0) and found.mean == (4.0, 3.0, 0.0)


def test_runs_without_an_axis_are_no_part_of_its_band():
    known, unknown = curve([4.0, 2.0]), curve([40.0, 20.0], seconds=False)
    found = band([known, unknown], "seconds")
    assert found is not None and found.mean == (4.0, 2.0)
    assert band([unknown], "seconds") is None


def test_how_a_variant_ends():
    found = end_of([curve([9.0, 2.0]), curve([9.0, 1.0, 4.0], seed=7)])
    assert (found.mean, found.low, found.high, found.best) == (3.0, 2.0, 4.0, 1.0)
    assert found.collapsed == (7,) and found.unrest is None
