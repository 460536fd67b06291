"""Paths recorded inside stage 2: towards the present student, the same again after a resume, honestly counted."""

import copy
import shutil

import pytest
import torch
from omegaconf import OmegaConf

from disback_cli.distillation.losses import mismatch
from disback_cli.distillation.path import DegradationPath
from disback_cli.distillation.recording import MismatchProbe, Subject
from disback_cli.distillation.rerecording import Rerecorder
from disback_cli.distillation.schedules import PathSchedule, RerecordSchedule
from disback_cli.distillation.sigma_laws import LogNormal
from disback_cli.distillation.students import OneStepStudent
from disback_cli.errors import UserError
from disback_cli.runtime.health import NonFiniteError
from disback_cli.runtime.optimizers import AdamSettings
from disback_cli.runtime.randomness import CounterRandom
from disback_cli.verbs.backtrack_stage import open_path

CPU = torch.device("cpu")
FACTS = {"teacher": {"name": "gmm_2d", "hash": "a" * 64}}


def bits(module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def same(first, second) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture
def make_rerecorder(teacher, tmp_path):
    def make(folder="run", schedule=None, **settings) -> Rerecorder:
        defaults = {
            "law": LogNormal(), "optimizer": AdamSettings(), "lr": 1e-2, "batch_size": 32, "seed": 0,
            "facts": lambda student: {**FACTS, "student": student.settings()},
        }  # fmt: skip
        return Rerecorder(
            run_dir=tmp_path / folder,
            schedule=schedule or RerecordSchedule(interval=2, at=[3], nodes=2, steps=6, probe_samples=20),
            teacher=teacher,
            teacher_weights=bits(teacher),
            make_copy=lambda: copy.deepcopy(teacher).requires_grad_(True),
            **(defaults | settings),
        )

    return make


@pytest.fixture
def student(teacher, node_weights) -> OneStepStudent:
    """A student that has left the teacher's weights behind."""
    network = copy.deepcopy(teacher).requires_grad_(True)
    network.load_state_dict(node_weights(2))
    return OneStepStudent(network, sigma_init=1.0)


# The recording itself ---------------------------------------------------------------------------------------------


def test_a_path_leads_from_the_teacher_to_a_denoiser_that_fits_the_student(make_rerecorder, student, teacher):
    schedule = RerecordSchedule(interval=2, at=[3], nodes=3, steps=60, probe_samples=64)
    path = make_rerecorder(schedule=schedule, batch_size=128).record(3, student, CPU)
    assert path.last == 3
    assert same(path.weights(0), bits(teacher))
    assert path.nodes[-1].iteration == 60
    distances = [node.mismatch for node in path.nodes]
    assert distances == sorted(distances)
    # the last node denoises the student's samples better than the teacher does
    probe = MismatchProbe(Subject(student, LogNormal(), CounterRandom(9), CPU), teacher, 2000)
    with torch.no_grad():
        clean = student(CounterRandom(9).normal("probe z", 0, 0, 2000, (2,), CPU))
        fitted = copy.deepcopy(teacher)
        fitted.load_state_dict(path.weights(3))
        errors = [float(mismatch(net(probe.noisy, probe.sigma), clean, probe.sigma, 0.5)) for net in (teacher, fitted)]
    assert errors[1] < 0.97 * errors[0]


def test_student_and_teacher_stay_as_they_were(make_rerecorder, student, teacher):
    before = bits(student), bits(teacher)
    make_rerecorder().record(3, student, CPU)
    assert same(bits(student), before[0])
    assert same(bits(teacher), before[1])
    assert all(p.requires_grad and p.grad is None for p in student.parameters())


def test_the_same_path_is_recorded_again_whatever_was_drawn_meanwhile(make_rerecorder, student):
    first = make_rerecorder("a").record(3, student, CPU)
    torch.randn(7)
    again = make_rerecorder("b").record(3, student, CPU)
    later = make_rerecorder("c").record(4, student, CPU)
    assert [node.sha256 for node in first.nodes] == [node.sha256 for node in again.nodes]
    assert first.identity == again.identity != later.identity
    assert first.nodes[-1].mismatch == again.nodes[-1].mismatch


def test_recording_in_passes_is_recording_at_once(make_rerecorder, student):
    whole = make_rerecorder("a").record(3, student, CPU)
    parts = make_rerecorder("b", passes=4, at_once=7).record(3, student, CPU)
    for name, tensor in whole.weights(2).items():
        torch.testing.assert_close(parts.weights(2)[name], tensor, rtol=1e-3, atol=1e-5)
    assert parts.nodes[2].mismatch == pytest.approx(whole.nodes[2].mismatch, rel=1e-3)


def test_the_manifest_says_what_was_recorded_and_the_candidates_are_gone(make_rerecorder, student):
    rerecorder = make_rerecorder()
    path = rerecorder.record(3, student, CPU)
    assert path.folder == rerecorder.run_dir / "rerecorded_00000003"
    assert sorted(file.name for file in rerecorder.run_dir.iterdir()) == ["rerecorded_00000003"]
    assert path.facts["student"] == {"kind": "one_step", "sigma_init": 1.0}
    assert path.facts["objective"].endswith("after 3 iterations")
    assert path.facts["recording"]["iterations"] == 6
    assert path.facts["cost"]["network_passes"] == rerecorder.done[0].network_passes


def test_cost_is_every_pass_that_was_made(make_rerecorder, student, teacher):
    passes = {"student": 0, "copy": 0, "teacher": 0}

    def counted(network, name, and_backward=False):
        def count(module, inputs, output):
            passes[name] += len(inputs[0]) * (3 if and_backward and torch.is_grad_enabled() else 1)

        network.register_forward_hook(count)
        return network

    schedule = RerecordSchedule(interval=2, at=[3], nodes=2, steps=6, probe_samples=20)
    copied = counted(copy.deepcopy(teacher).requires_grad_(True), "copy", and_backward=True)
    counted(student.denoiser, "student")
    counted(teacher, "teacher")
    rerecorder = make_rerecorder(schedule=schedule)
    rerecorder.make_copy = lambda: copied
    rerecorder.record(3, student, CPU)
    assert sum(passes.values()) == rerecorder.done[0].network_passes
    # 4 F a sample and step, and the probe: the student's samples, the teacher's answers, those of five candidates
    assert rerecorder.done[0].network_passes == 4 * 32 * 6 + 20 * (2 + 5)


def test_mean_of_the_ranks_gradients_is_the_single_processs_gradient(make_rerecorder, student, teacher, monkeypatch):
    rerecorder, random = make_rerecorder(), CounterRandom(5)

    def gradient():
        network = copy.deepcopy(teacher).requires_grad_(True)
        rerecorder._backward(network, student, random, 2, CPU)
        return [p.grad for p in network.parameters()]

    alone = gradient()
    parts = []
    for rank in range(2):
        monkeypatch.setattr("disback_cli.distillation.rerecording.rank_and_world", lambda rank=rank: (rank, 2))
        parts.append(gradient())
    for whole, first, second in zip(alone, *parts, strict=True):
        torch.testing.assert_close((first + second) / 2, whole, rtol=1e-4, atol=1e-6)
    assert any(not torch.allclose(first, second) for first, second in zip(*parts, strict=True))


def test_a_recording_that_explodes_names_its_rate(make_rerecorder, student):
    with pytest.raises(NonFiniteError, match=r"after iteration 3 is not finite. Lower schedule\.lr"):
        make_rerecorder(lr=1e38).record(3, student, CPU)


# In stage 2 -------------------------------------------------------------------------------------------------------


@pytest.fixture
def make_stage(make_backtracking, make_rerecorder):
    def make(folder="run", at=(3,), **settings):
        schedule = RerecordSchedule(interval=2, at=list(at), nodes=2, steps=6, probe_samples=20)
        return make_backtracking(
            schedule=schedule, rerecorder=make_rerecorder(folder, schedule), **({"iterations": 7} | settings)
        )

    return make


def test_targets_walk_the_new_path_and_the_fake_score_goes_on(make_stage, make_backtracking, fit, watch):
    seen = {}
    stage = make_stage()
    fit(stage, watch(lambda s: seen.update({s.iteration: (s.target_node, bits(s.target), bits(s.fake))})))
    assert stage.switches == [(0, 2.0), (2, 1.0), (3, 1.0), (5, 0.0)]
    path = DegradationPath(stage.rerecorder.folder(3))
    for iteration in (3, 4, 5, 6, 7):
        node, target, _ = seen[iteration]
        assert same(target, path.weights(int(node)))
    assert not same(seen[2][1], seen[3][1])
    plain = make_backtracking(schedule=PathSchedule(interval=2), iterations=3)
    fit(plain)
    assert same(bits(plain.fake), seen[3][2])
    assert same(bits(plain.student), _student_at_the_recording(make_stage, fit, watch))


def _student_at_the_recording(make_stage, fit, watch):
    found = {}
    fit(make_stage("again", iterations=5), watch(lambda s: found.update({s.iteration: bits(s.student)})))
    return found[3]


def test_what_a_recording_costs_is_part_of_the_stages_cost(make_stage, fit):
    stage = make_stage()
    fit(stage)
    assert len(stage.rerecorder.done) == 1
    assert stage.network_passes == 7 * 16 * 8 + 4 * 32 * 6 + 20 * (2 + 5)


def test_recording_before_the_first_iteration_is_the_path_schedule_on_that_path(
    make_stage, make_backtracking, teacher, fit
):
    def no_path(index):
        assert index == 0
        return bits(teacher)

    stage = make_stage(at=[0], last=0, node_weights=no_path)
    fit(stage)
    path = DegradationPath(stage.rerecorder.folder(0))
    along = make_backtracking(schedule=PathSchedule(interval=2), node_weights=path.weights, last=path.last)
    fit(along)
    assert stage.switches == [(0, 1.0), (2, 0.0)]
    assert same(bits(stage), bits(along))


def test_a_run_that_would_end_on_a_new_path_is_refused():
    cfg = OmegaConf.create({"iterations": 48, "path": None})
    schedule = RerecordSchedule(interval=15, at=[0, 3], nodes=4)
    with pytest.raises(UserError, match=r"iteration 48 of 48 only: the path recorded last has 4 nodes.*schedule\.at"):
        open_path(cfg, None, schedule)
    assert open_path(OmegaConf.merge(cfg, {"iterations": 49}), None, schedule) is None


def content(saver, iteration: int) -> dict:
    checkpoint = torch.load(saver.store.path_for(iteration), weights_only=True)
    checkpoint["stage"].pop("seconds")
    for recording in checkpoint["stage"]["rerecordings"]:
        recording.pop("seconds")
    return {key: checkpoint[key] for key in ("state_dict", "optimizer_states", "stage")}


def assert_equal(first, second, where="checkpoint"):
    if isinstance(first, torch.Tensor):
        assert torch.equal(first, second), where
    elif isinstance(first, dict):
        assert first.keys() == second.keys(), where
        for key in first:
            assert_equal(first[key], second[key], f"{where}.{key}")
    elif isinstance(first, (list, tuple)):
        assert len(first) == len(second), where
        for index, (a, b) in enumerate(zip(first, second, strict=True)):
            assert_equal(a, b, f"{where}[{index}]")
    else:
        assert first == second, where


@pytest.mark.parametrize(("at", "saved"), [((3,), 2), ((3,), 3), ((3,), 6), ((0, 4), 3), ((0, 4), 4)])
def test_resumed_run_is_the_uninterrupted_one_to_the_bit(make_stage, fit, save_at, tmp_path, at, saved):
    """Killed behind its checkpoint, before or after a recording: what is missing is made again, what is there read."""
    whole, whole_saver = make_stage("whole", at), save_at(tmp_path / "whole_checkpoints", [7])
    fit(whole, whole_saver)
    saver = save_at(tmp_path / "checkpoints", [saved])
    fit(make_stage("parts", at), saver)
    resumed, resumed_saver = make_stage("parts", at), save_at(tmp_path / "resumed_checkpoints", [7])
    fit(resumed, resumed_saver, checkpoint=saver.store.newest_whole())
    assert_equal(content(whole_saver, 7), content(resumed_saver, 7))
    assert resumed.switches == whole.switches
    assert same(bits(resumed.target), bits(whole.target))


def test_a_path_that_the_checkpoint_is_behind_is_recorded_over(make_stage, fit, save_at, tmp_path):
    """The run was killed after a recording that no checkpoint knows of, and the folder was damaged besides."""
    saver = save_at(tmp_path / "checkpoints", [2])
    first = make_stage()
    fit(first, saver)
    node = first.rerecorder.folder(3) / "node_01.safetensors"
    content = node.read_bytes()
    node.write_bytes(b"torn")
    resumed = make_stage()
    fit(resumed, checkpoint=saver.store.newest_whole())
    assert node.read_bytes() == content
    assert same(bits(resumed.student), bits(first.student))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: shutil.rmtree(folder), "recorded after iteration 3 cannot be read: no recorded path"),
        (lambda folder: (folder / "node_02.safetensors").unlink(), "recorded after iteration 3 cannot be read: node 2"),
        (lambda folder: _replaced(folder), "is not the path that this run recorded after iteration 3"),
    ],
    ids=["gone", "damaged", "another"],
)
def test_a_path_that_is_not_what_the_checkpoint_says_is_refused(make_stage, fit, save_at, tmp_path, damage, message):
    saver = save_at(tmp_path / "checkpoints", [4])
    stage = make_stage()
    fit(stage, saver)
    damage(stage.rerecorder.folder(3))
    with pytest.raises(UserError, match=message) as caught:
        fit(make_stage(), checkpoint=saver.store.newest_whole())
    assert "resume=" in str(caught.value)


def _replaced(folder) -> None:
    """The same nodes in another order, each hash right: a whole path, and not this one."""
    import json

    document = json.loads((folder / "path.json").read_text())
    first, second = document["nodes"][1], document["nodes"][2]
    for key in ("file", "sha256"):
        first[key], second[key] = second[key], first[key]
    (folder / "path.json").write_text(json.dumps(document))
