"""Schedules, simulated: the teacher is reached, is last, and a resume changes nothing."""

from collections.abc import Callable

import pytest

from disback_cli.distillation.schedules import (
    AdaptiveSchedule,
    EndpointSchedule,
    PathSchedule,
    Progress,
    Schedule,
    WarmStartSchedule,
)


def simulate(
    schedule: Schedule,
    last: int,
    iterations: int,
    mismatch: Callable[[int], float] | None = None,
    replace_after: tuple[int, Callable[[Schedule], Schedule]] | None = None,
) -> list[int]:
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


def runs(targets: list[int]) -> list[tuple[int, int]]:
    """(node, how long) in order."""
    found: list[tuple[int, int]] = []
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
