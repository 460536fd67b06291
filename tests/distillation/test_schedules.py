"""Schedules, simulated: the teacher is reached, is last, and a resume changes nothing."""

import math
import random
from collections.abc import Callable

import pytest

from disback_cli.distillation.schedules import (
    AdaptiveSchedule,
    EndpointSchedule,
    InterpolatedSchedule,
    PathSchedule,
    PlateauSchedule,
    Progress,
    ProportionalSchedule,
    RerecordSchedule,
    Schedule,
    WarmStartSchedule,
)
from disback_cli.distillation.schedules.plateau import at_rest, floor_of, noise_of
from disback_cli.distillation.schedules.walks import shared_out


def simulate(
    schedule: Schedule,
    last: int,
    iterations: int,
    mismatch: Callable[[int], float] | None = None,
    replace_after: tuple[int, Callable[[Schedule], Schedule]] | None = None,
) -> list[float]:
    """Target of every iteration, and of the one after the end; as a stage asks."""
    target = schedule.first_target(last)
    targets = [target]
    for iteration in range(1, iterations + 1):
        value = mismatch(iteration) if mismatch else None
        target = schedule.next_target(Progress(iteration, target, value))
        targets.append(target)
        if replace_after and iteration == replace_after[0]:
            schedule = replace_after[1](schedule)
    return targets


def runs(targets: list[float]) -> list[tuple[float, int]]:
    """(node, how long) in order."""
    found: list[tuple[float, int]] = []
    for node in targets:
        if found and found[-1][0] == node:
            found[-1] = (node, found[-1][1] + 1)
        else:
            found.append((node, 1))
    return found


@pytest.mark.parametrize("last", [1, 2, 3, 5, 9])
@pytest.mark.parametrize("interval", [1, 2, 7])
def test_path_visits_every_node_once_in_order_and_ends_with_the_teacher(last, interval):
    schedule = PathSchedule(interval=interval)
    targets = simulate(schedule, last, interval * last + 20)
    visited = runs(targets)
    assert schedule.first_fake(last) == last
    assert [node for node, _ in visited] == list(range(last - 1, -1, -1))
    assert all(length == interval for node, length in visited[:-1])
    assert targets.index(0) == schedule.teacher_from(last)
    assert set(targets[schedule.teacher_from(last) :]) == {0}


def test_path_counts_iterations_on_the_stage_and_needs_no_state_of_its_own():
    half = simulate(PathSchedule(interval=3), 4, 20, replace_after=(7, lambda _: PathSchedule(interval=3)))
    assert half == simulate(PathSchedule(interval=3), 4, 20)


@pytest.mark.parametrize("schedule", [WarmStartSchedule(), EndpointSchedule()], ids=lambda s: type(s).__name__)
def test_controls_have_the_teacher_as_their_only_target(schedule):
    assert set(simulate(schedule, 5, 30)) == {0}
    assert schedule.teacher_from(5) == 0


def test_controls_differ_in_what_the_fake_score_starts_from():
    assert WarmStartSchedule().first_fake(5) == 5
    assert WarmStartSchedule().needs_path
    assert EndpointSchedule().first_fake(0) == 0
    assert not EndpointSchedule().needs_path


def adaptive(**settings) -> AdaptiveSchedule:
    return AdaptiveSchedule(**({"ratio": 0.8, "settle": 2, "smoothing": 0.0, "max_interval": 10} | settings))


@pytest.mark.parametrize("last", [1, 2, 4, 8])
@pytest.mark.parametrize("cap", [3, 10])
def test_adaptive_leaves_every_node_at_the_cap_when_the_mismatch_stays(last, cap):
    schedule = adaptive(max_interval=cap)
    targets = simulate(schedule, last, cap * last + 5, lambda _: 1.0)
    visited = runs(targets)
    assert [node for node, _ in visited] == list(range(last - 1, -1, -1))
    assert all(length == cap for _, length in visited[:-1])
    assert targets.index(0) == schedule.teacher_from(last)


def test_adaptive_switches_in_the_iteration_that_falls_to_the_ratio():
    values = [1.0, 1.0, 0.9, 0.81, 0.8, 1.0, 1.0, 0.5]
    targets = simulate(adaptive(), 3, len(values), lambda i: values[i - 1])
    assert targets == [2, 2, 2, 2, 2, 1, 1, 1, 0]


def test_adaptive_compares_with_the_mean_over_the_first_iterations_on_the_node():
    values = [2.0, 1.0, 1.21, 1.19]  # first mismatch 1.5, threshold 1.2
    assert simulate(adaptive(), 2, 4, lambda i: values[i - 1]) == [1, 1, 1, 1, 0]


def test_adaptive_never_switches_while_it_settles():
    values = [1.0, 0.01, 0.01, 0.01, 0.01, 0.01]
    targets = simulate(adaptive(settle=4), 2, 6, lambda i: values[i - 1])
    assert targets[:5] == [1] * 5


def test_adaptive_smooths_a_single_low_measurement_away():
    values = [1.0, 1.0, 0.5, 1.0, 1.0]
    assert 0 in simulate(adaptive(smoothing=0.0), 2, 5, lambda i: values[i - 1])
    assert 0 not in simulate(adaptive(smoothing=0.8), 2, 5, lambda i: values[i - 1])


def test_adaptive_teacher_comes_at_the_latest_when_promised_whatever_the_mismatch():
    wave = [1.0, 0.2, 3.0, 0.7, 0.75, 0.1, 2.0, 1.1, 0.4]
    for last in (1, 2, 5):
        for stride in (1, 2, 4):
            schedule = adaptive(max_interval=6)
            targets = simulate(schedule, last, 60, lambda i, k=stride: wave[i * k % len(wave)])
            assert [node for node, _ in runs(targets)] == list(range(last - 1, -1, -1))
            assert targets.index(0) <= schedule.teacher_from(last)


@pytest.mark.parametrize("at", range(1, 25))
def test_adaptive_restored_in_the_middle_switches_as_if_never_interrupted(at):
    wave = [1.0, 0.9, 1.1, 0.7, 0.95, 0.6, 0.9]
    mismatch = lambda i: wave[i % len(wave)]  # noqa: E731

    def resumed(old: Schedule) -> Schedule:
        fresh = adaptive(smoothing=0.6)
        fresh.restore(dict(old.state()))
        return fresh

    whole = simulate(adaptive(smoothing=0.6), 5, 30, mismatch)
    assert len(runs(whole)) >= 4
    assert len({length for _, length in runs(whole)[:-1]}) > 1
    assert simulate(adaptive(smoothing=0.6), 5, 30, mismatch, (at, resumed)) == whole


def test_a_schedule_that_forgot_its_state_would_switch_elsewhere():
    wave = [1.0, 0.9, 1.1, 0.7, 0.95, 0.6, 0.9]
    mismatch = lambda i: wave[i % len(wave)]  # noqa: E731
    whole = simulate(adaptive(smoothing=0.6), 5, 30, mismatch)
    forgetful = [
        simulate(adaptive(smoothing=0.6), 5, 30, mismatch, (at, lambda _: adaptive(smoothing=0.6)))
        for at in (8, 12, 14)
    ]
    assert any(targets != whole for targets in forgetful)


def test_schedule_state_is_plain():
    schedule = adaptive()
    simulate(schedule, 3, 4, lambda _: 1.0)
    assert all(type(value) in (int, float) for value in schedule.state().values())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ratio": 0.0}, "ratio"),
        ({"ratio": 1.0}, "ratio"),
        ({"smoothing": 1.0}, "smoothing"),
        ({"smoothing": -0.1}, "smoothing"),
        ({"settle": 0}, "settle"),
        ({"settle": 10}, "settle"),
    ],
)
def test_adaptive_refuses_settings_out_of_range(settings, message):
    with pytest.raises(ValueError, match=message):
        adaptive(**settings)


def test_path_refuses_an_empty_interval():
    with pytest.raises(ValueError, match=r"schedule\.interval"):
        PathSchedule(interval=0)


# Interpolated -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("last", [1, 2, 4])
@pytest.mark.parametrize(("interval", "substeps"), [(1, 1), (4, 4), (15, 4), (7, 3), (10, 7), (9, 1)])
def test_interpolated_is_the_path_at_nodes_and_between_them_in_equal_steps(last, interval, substeps):
    schedule = InterpolatedSchedule(interval=interval, substeps=substeps)
    iterations = interval * last + 3
    targets = simulate(schedule, last, iterations)
    path = simulate(PathSchedule(interval=interval), last, iterations)
    visited = runs(targets)
    steps = (last - 1) * substeps
    assert [position for position, _ in visited] == pytest.approx([last - 1 - k / substeps for k in range(steps + 1)])
    # a share is as long as another one, up to what does not divide
    assert all(length in (interval // substeps, -(-interval // substeps)) for _, length in visited[:-1])
    assert [node for node in targets if node.is_integer()] == [
        node for node, target in zip(path, targets, strict=True) if target.is_integer()
    ]
    assert targets[::interval] == path[::interval]
    assert targets.index(0) == schedule.teacher_from(last) == PathSchedule(interval=interval).teacher_from(last)
    if substeps == 1:
        assert targets == path


def test_interpolated_needs_no_state_of_its_own():
    whole = simulate(InterpolatedSchedule(interval=7, substeps=3), 4, 30)
    for at in range(1, 30):
        again = simulate(
            InterpolatedSchedule(interval=7, substeps=3), 4, 30,
            replace_after=(at, lambda _: InterpolatedSchedule(interval=7, substeps=3)),
        )  # fmt: skip
        assert again == whole


@pytest.mark.parametrize("substeps", [0, 6])
def test_interpolated_refuses_more_targets_than_iterations(substeps):
    with pytest.raises(ValueError, match=r"schedule\.substeps must be from 1 to schedule\.interval=5"):
        InterpolatedSchedule(interval=5, substeps=substeps)


# Proportional -----------------------------------------------------------------------------------------------------


def proportional(distances: list[float], interval: int = 10) -> ProportionalSchedule:
    schedule = ProportionalSchedule(interval=interval)
    schedule.prepare(distances)
    return schedule


def test_proportional_holds_a_node_as_long_as_the_way_to_it_is_far():
    schedule = proportional([0.0, 0.3, 0.4, 0.6, 1.0])
    # ways 4 -> 3, 3 -> 2, 2 -> 1: 0.4, 0.2, 0.1 of 30 iterations
    assert runs(simulate(schedule, 4, 40)) == [(3, 17), (2, 9), (1, 4), (0, 11)]
    assert schedule.teacher_from(4) == 30


@pytest.mark.parametrize("distances", [[0, 1], [0, 1, 1, 1], [0, 3, 2, 5, 5.5], [0, 1e-9, 1, 1 + 1e-9, 2]])
@pytest.mark.parametrize("interval", [1, 2, 13])
def test_proportional_visits_every_node_and_takes_as_long_as_the_path(distances, interval):
    last = len(distances) - 1
    schedule = proportional(distances, interval)
    targets = simulate(schedule, last, interval * last + 5)
    assert [node for node, _ in runs(targets)] == list(range(last - 1, -1, -1))
    assert targets.index(0) == schedule.teacher_from(last) == interval * (last - 1)


@pytest.mark.parametrize("seed", range(10))
def test_shares_are_whole_positive_and_nearly_proportional(seed):
    generator = random.Random(seed)
    weights = [generator.random() ** 4 for _ in range(1 + seed)]
    total = len(weights) + generator.randrange(60)
    parts = shared_out(total, weights)
    assert sum(parts) == total
    assert min(parts) >= 1
    wanted = [total * weight / sum(weights) for weight in weights]
    # who is owed more than another never gets less
    assert all(p >= q for p, a in zip(parts, wanted, strict=True) for q, b in zip(parts, wanted, strict=True) if a > b)
    assert all(part <= max(1, math.ceil(share)) for part, share in zip(parts, wanted, strict=True))


def test_proportional_that_was_not_shown_the_path_says_so():
    with pytest.raises(RuntimeError, match="prepared for a path of 1 nodes, asked about one of 4"):
        ProportionalSchedule(interval=3).first_target(4)


# Progress: the plateau --------------------------------------------------------------------------------------------


def plateau(**settings) -> PlateauSchedule:
    return PlateauSchedule(**({"max_interval": 400} | settings))


def stay(curve: Callable[[int], float], **settings) -> int:
    """Iterations on the first node when its mismatch follows the curve."""
    return runs(simulate(plateau(**settings), 3, 401, curve))[0][1]


def decay(tau: float, noise: float, seed: int) -> Callable[[int], float]:
    """From 1.3 to a floor of 0.3, each value with relative noise."""
    generator = random.Random(seed)
    values = [(0.3 + math.exp(-i / tau)) * (1 + generator.gauss(0, noise)) for i in range(402)]
    return values.__getitem__


@pytest.mark.parametrize("tau", [3, 8])
@pytest.mark.parametrize("noise", [0.0, 0.02, 0.05])
def test_plateau_leaves_soon_after_the_mismatch_has_reached_its_floor(tau, noise):
    stays = sorted(stay(decay(tau, noise, seed)) for seed in range(15))
    reached = tau * math.log(1 / (0.3 * 0.05))  # within 5% of the floor
    assert all(0.9 * reached < length < 1.5 * reached + 15 for length in stays)


def test_plateau_leaves_pure_noise_when_it_has_settled():
    generator = random.Random(0)
    stays = [stay(lambda _: 1 + generator.gauss(0, 0.1), settle=12) for _ in range(60)]
    assert min(stays) == 12
    assert stays.count(12) > 48
    assert max(stays) < 25


def test_plateau_leaves_what_does_not_move_at_all_when_it_has_settled():
    assert stay(lambda _: 0.7, settle=9) == 9


def test_plateau_stays_while_the_mismatch_falls_and_leaves_at_the_cap():
    assert stay(lambda i: math.exp(-i / 10), max_interval=30) == 30
    assert stay(lambda i: 5 - 0.01 * i, max_interval=77) == 77


def test_plateau_leaves_a_rising_mismatch():
    assert stay(lambda i: 1 + 0.1 * i) == 10


def test_plateau_measures_every_node_afresh():
    # after the switch at 10 the mismatch jumps, and falls for good from there
    values = [1.0] * 10 + [3 * math.exp(-i / 5) for i in range(30)]
    targets = simulate(plateau(max_interval=25), 3, 39, lambda i: values[i - 1])
    assert runs(targets)[:2] == [(2, 10), (1, 25)]


@pytest.mark.parametrize("at", range(1, 60, 4))
def test_plateau_restored_in_the_middle_switches_as_if_never_interrupted(at):
    curve = decay(4, 0.1, 3)

    def resumed(old: Schedule) -> Schedule:
        fresh = plateau(settle=7, window=8)
        fresh.restore(dict(old.state()))
        return fresh

    whole = simulate(plateau(settle=7, window=8), 5, 60, curve)
    assert len({length for _, length in runs(whole)[:-1]}) > 1
    assert runs(whole)[-1][0] == 0
    assert simulate(plateau(settle=7, window=8), 5, 60, curve, (at, resumed)) == whole


def test_noise_is_estimated_whatever_the_trend():
    generator = random.Random(1)
    values = [10 - 0.3 * i + generator.gauss(0, 0.05) for i in range(2000)]
    assert noise_of(values) == pytest.approx(0.05, rel=0.1)
    assert noise_of([10 - 0.3 * i for i in range(20)]) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("tau", [2.0, 5.0, 30.0])
def test_floor_of_an_exponential_decay_is_found_exactly_and_doubt_lowers_it(tau):
    values = [0.3 + 2 * math.exp(-i / tau) for i in range(15)]
    floor, level = floor_of(values, 0.0)
    assert floor == pytest.approx(0.3, rel=1e-6)
    assert level == pytest.approx(sum(values[-5:]) / 5)
    doubtful, _ = floor_of(values, 1e-3)
    assert doubtful is None or doubtful < 0.3


@pytest.mark.parametrize(
    "values", [[1.0] * 9, [9.0 - i for i in range(9)], [1.0 + i for i in range(9)], [9.0 - i * i / 9 for i in range(9)]]
)
def test_a_series_without_a_floor_in_sight_has_none(values):
    assert floor_of(values, 0.0)[0] is None


def test_rest_near_the_floor_is_seen_though_the_fall_is_beyond_doubt():
    values = [0.3 + 0.05 * math.exp(-i / 5) for i in range(15)]
    assert at_rest(values, 2.0, 1.05)
    assert not at_rest(values, 2.0, 1.0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"settle": 5}, "6 <= settle"),
        ({"settle": 400}, "settle < max_interval"),
        ({"window": 5}, "window"),
        ({"z": -1.0}, "z must not"),
        ({"within": 0.9}, "within"),
    ],
)
def test_plateau_refuses_settings_out_of_range(settings, message):
    with pytest.raises(ValueError, match=message):
        plateau(**settings)


# Re-recording -----------------------------------------------------------------------------------------------------


def test_rerecord_walks_the_path_and_begins_again_on_every_new_one():
    schedule = RerecordSchedule(interval=2, at=[3, 9], nodes=3)
    target = schedule.first_target(4)
    targets = [target]
    for iteration in range(1, 16):
        if schedule.records_at(iteration):
            target = schedule.on_new_path(iteration, 3)
        else:
            target = schedule.next_target(Progress(iteration, target))
        targets.append(target)
    assert schedule.first_fake(4) == 4
    assert targets == [3, 3, 2, 2, 2, 1, 1, 0, 0, 2, 2, 1, 1, 0, 0, 0]
    assert targets.index(0, 9) == schedule.teacher_from(4) == 13


@pytest.mark.parametrize("at", range(5, 14))
def test_rerecord_restored_goes_on_where_it_was(at):
    schedule = RerecordSchedule(interval=3, at=[4], nodes=4)
    target, targets, expected = schedule.on_new_path(4, 4), [], []
    fresh = RerecordSchedule(interval=3, at=[4], nodes=4)
    for iteration in range(5, 20):
        target = schedule.next_target(Progress(iteration, target))
        if iteration == at:
            fresh.restore(schedule.state())
            resumed = target
        if iteration > at:
            resumed = fresh.next_target(Progress(iteration, resumed))
            targets.append(resumed)
            expected.append(target)
    assert targets == expected


def test_rerecord_needs_a_path_unless_it_begins_with_recording_one():
    assert RerecordSchedule(interval=1, at=[1]).needs_path
    schedule = RerecordSchedule(interval=1, at=[0, 5])
    assert not schedule.needs_path
    assert schedule.first_fake(0) == 0
    assert schedule.first_target(0) == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"at": []}, "ascending"),
        ({"at": [5, 3]}, "ascending"),
        ({"at": [3, 3]}, "ascending"),
        ({"at": [-1]}, "ascending"),
        ({"nodes": 0}, r"schedule\.nodes"),
        ({"steps": 0}, r"schedule\.steps"),
        ({"lr": 0.0}, r"schedule\.lr"),
        ({"batch_size": 0}, r"schedule\.batch_size"),
        ({"nodes": 9, "steps": 10}, "nodes=9 do not fit"),
    ],
)
def test_rerecord_refuses_settings_out_of_range(settings, message):
    with pytest.raises(ValueError, match=message):
        RerecordSchedule(**({"interval": 2, "at": [3]} | settings))
