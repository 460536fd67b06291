"""Stage 1 through a real Trainer."""

import pytest
import torch

from disback_cli.distillation.losses import mismatch
from disback_cli.distillation.recording import MismatchProbe


def bits(module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def same(first, second) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_student_stays_as_it_was_to_the_bit_and_the_copy_moves(make_recording, fit):
    stage = make_recording()
    student, fake = bits(stage.student), bits(stage.fake)
    fit(stage)
    assert stage.iteration == 5
    assert same(bits(stage.student), student)
    moved = [name for name, tensor in stage.fake.state_dict().items() if not torch.equal(tensor, fake[name])]
    assert {name.split(".")[0] for name in moved} == {"correction"}
    assert len(moved) == len(list(stage.fake.correction.parameters()))


def test_only_the_copy_is_optimised(make_recording, fit):
    stage = make_recording(iterations=1)
    fit(stage)
    optimised = {id(p) for optimizer in stage.trainer.optimizers for g in optimizer.param_groups for p in g["params"]}
    assert optimised == {id(p) for p in stage.fake.parameters()}


def test_student_is_frozen_and_keeps_no_graph(make_recording):
    stage = make_recording()
    calls = []
    stage.student.register_forward_pre_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    stage.losses(0)
    assert calls == [False]
    assert not any(p.requires_grad for p in stage.student.parameters())


def test_copy_approaches_the_untrained_students_distribution(make_recording, fit, teacher, watch):
    """The mismatch to the teacher rises, and the denoising loss on the student's samples falls."""
    stage = make_recording(iterations=60, batch_size=128)
    losses: list[float] = []
    fit(stage, watch(lambda s: losses.append(s.read_scalars()["fake_loss"])))
    assert MismatchProbe(stage, teacher, 256).measure(stage.fake) > 0.05
    assert sum(losses[-15:]) < 0.9 * sum(losses[:15])


def test_probe_measures_zero_at_the_teacher_and_the_mismatch_on_its_set_elsewhere(
    make_recording, teacher, node_weights
):
    stage = make_recording()
    probe = MismatchProbe(stage, teacher, 64)
    assert probe.measure(stage.fake) == 0.0
    stage.fake.load_state_dict(node_weights(2))
    with torch.no_grad():
        expected = mismatch(stage.fake(probe.noisy, probe.sigma), probe.answer, probe.sigma, 0.5)
    assert probe.measure(stage.fake) == float(expected) > 0


def test_probe_asks_for_few_samples_at_a_time_if_it_must(make_recording, teacher, node_weights):
    stage = make_recording()
    whole, parts = MismatchProbe(stage, teacher, 50), MismatchProbe(stage, teacher, 50, at_once=16)
    torch.testing.assert_close(parts.noisy, whole.noisy)
    stage.fake.load_state_dict(node_weights(2))
    asked = []
    stage.fake.register_forward_hook(lambda module, given, answer: asked.append(len(given[0])))
    assert parts.measure(stage.fake) == pytest.approx(whole.measure(stage.fake), rel=1e-5)
    assert asked == [16, 16, 16, 2, 50]


def test_probe_is_the_same_set_whenever_it_is_made(make_recording, teacher):
    first, second = (MismatchProbe(make_recording(seed=3), teacher, 40) for _ in range(2))
    assert torch.equal(first.noisy, second.noisy)
    assert torch.equal(first.sigma, second.sigma)
    assert not torch.equal(first.noisy, MismatchProbe(make_recording(seed=4), teacher, 40).noisy)


def test_same_seed_same_weights_other_seed_other_weights(make_recording, fit):
    stages = [make_recording(seed=seed) for seed in (0, 0, 1)]
    for stage in stages:
        fit(stage)
    assert same(bits(stages[0]), bits(stages[1]))
    assert not same(bits(stages[0]), bits(stages[2]))


@pytest.mark.parametrize("at", [1, 4])
def test_resumed_recording_is_the_uninterrupted_one_to_the_bit(make_recording, fit, save_at, tmp_path, at):
    whole = make_recording(iterations=6)
    fit(whole)
    saver = save_at(tmp_path, [at])
    fit(make_recording(iterations=6), saver)
    resumed = make_recording(iterations=6)
    fit(resumed, checkpoint=saver.store.newest_whole())
    assert resumed.iteration == 6
    assert same(bits(resumed), bits(whole))


def test_finished_stage_can_be_made_longer(make_recording, fit, save_at, tmp_path):
    """A checkpoint of the last iteration goes on when more iterations are asked for."""
    whole = make_recording(iterations=6)
    fit(whole)
    saver = save_at(tmp_path, [4])
    fit(make_recording(iterations=4), saver)
    longer = make_recording(iterations=6)
    fit(longer, checkpoint=saver.store.newest_whole())
    assert longer.iteration == 6
    assert same(bits(longer), bits(whole))


def test_resuming_a_finished_stage_does_nothing(make_recording, fit, save_at, tmp_path):
    saver = save_at(tmp_path, [4])
    done = make_recording(iterations=4)
    fit(done, saver)
    again = make_recording(iterations=4)
    fit(again, checkpoint=saver.store.newest_whole())
    assert again.iteration == 4
    assert same(bits(again), bits(done))
