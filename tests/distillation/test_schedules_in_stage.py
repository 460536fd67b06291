"""The newer schedules through a real Trainer: what the target is, and resuming."""

import pytest
import torch

from disback_cli.distillation.interpolation import interpolated
from disback_cli.distillation.schedules import InterpolatedSchedule, PlateauSchedule, ProportionalSchedule


def bits(module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def same(first, second) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def interpolated_schedule() -> InterpolatedSchedule:
    return InterpolatedSchedule(interval=4, substeps=2)


def proportional() -> ProportionalSchedule:
    schedule = ProportionalSchedule(interval=4)
    schedule.prepare([0.0, 0.2, 0.3, 0.9])
    return schedule


def plateau() -> PlateauSchedule:
    return PlateauSchedule(settle=6, window=6, max_interval=9)


def test_the_target_is_the_node_at_integers_and_the_interpolation_between(make_backtracking, node_weights, fit, watch):
    stage = make_backtracking(schedule=interpolated_schedule(), iterations=9)
    seen = []
    fit(stage, watch(lambda s: seen.append((s.target_node, bits(s.target)))))
    assert stage.switches == [(0, 2.0), (2, 1.5), (4, 1.0), (6, 0.5), (8, 0.0)]
    for position, weights in seen:
        assert same(weights, interpolated(node_weights, position))
        assert same(weights, node_weights(round(position))) == position.is_integer()


def test_a_node_nearer_to_the_one_before_is_left_sooner(make_backtracking, fit):
    stage = make_backtracking(schedule=proportional(), iterations=9)
    fit(stage)
    assert stage.switches == [(0, 2.0), (7, 1.0), (8, 0.0)]


@pytest.mark.parametrize(
    ("schedule", "saved"), [(interpolated_schedule, 3), (proportional, 5), (plateau, 3), (plateau, 8)]
)
def test_resumed_run_is_the_uninterrupted_one_to_the_bit(make_backtracking, fit, save_at, tmp_path, schedule, saved):
    whole = make_backtracking(schedule=schedule(), iterations=14)
    fit(whole)
    saver = save_at(tmp_path, [saved])
    fit(make_backtracking(schedule=schedule(), iterations=14), saver)
    resumed = make_backtracking(schedule=schedule(), iterations=14)
    fit(resumed, checkpoint=saver.store.newest_whole())
    assert len(whole.switches) >= 3
    assert resumed.switches == whole.switches
    assert resumed.schedule.state() == whole.schedule.state()
    assert same(bits(resumed), bits(whole))
    assert same(bits(resumed.target), bits(whole.target))
