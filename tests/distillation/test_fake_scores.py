"""The fake score, trained whole or by adapters: what its nodes hold, where it starts, what it costs."""

import copy
import json
import sys

import pytest
import torch
from adapted_networks import inputs, network, teacher_of, trained_
from torch.utils.flop_counter import FlopCounterMode

from disback_cli.distillation import fake_scores
from disback_cli.distillation.adapters import plain_weights, settings_of
from disback_cli.distillation.backtracking import Backtracking
from disback_cli.distillation.costs import measure_costs
from disback_cli.distillation.interpolation import interpolated
from disback_cli.distillation.lora import lora as lora_student
from disback_cli.distillation.objectives.diff_instruct import DiffInstruct
from disback_cli.distillation.path import DegradationPath
from disback_cli.distillation.path_recorder import PathRecorder
from disback_cli.distillation.recording import Recording
from disback_cli.distillation.schedules import PathSchedule
from disback_cli.distillation.sigma_laws import LogNormal
from disback_cli.distillation.students import OneStepStudent
from disback_cli.errors import UserError
from disback_cli.runtime.optimizers import AdamSettings

LORA = {"rank": 4, "alpha": 4, "layers": "all"}


@pytest.fixture
def teacher():
    return teacher_of(network("mixture"))


def fake_of(teacher, kind: str = "lora", **options):
    return fake_scores.full(teacher) if kind == "full" else fake_scores.lora(teacher, **(LORA | options))


def recording(teacher, fake, **settings) -> Recording:
    defaults = {"law": LogNormal(), "batch_size": 16, "iterations": 12, "seed": 0}
    student = OneStepStudent(teacher.copy(), sigma_init=1.0)
    return Recording(student=student, fake=fake, optimizer=AdamSettings(), lr={"fake": 1e-2}, **(defaults | settings))


def facts(teacher, fake) -> dict:
    adapter = settings_of(fake)
    return {"teacher": teacher.identity()} | ({} if adapter is None else {"adapter": adapter.document()})


def recorder(tmp_path, teacher) -> PathRecorder:
    return PathRecorder(
        run_dir=tmp_path, teacher=teacher.denoiser, nodes=3, spacing="steps", iterations=12, probe_samples=16
    )


def finished(callback, teacher, kind: str, **options) -> DegradationPath:
    fresh = fake_of(teacher, kind, **options)
    callback.finish(fake_scores.node_weights(fresh), 16, facts(teacher, fresh))
    return DegradationPath(callback.path_folder)


@pytest.fixture
def recorded(tmp_path, teacher, fit):
    """Records a path with a kind of fake score."""

    def record(kind: str, **options) -> DegradationPath:
        callback = recorder(tmp_path / kind, teacher)
        fit(recording(teacher, fake_of(teacher, kind, **options)), callback)
        return finished(callback, teacher, kind, **options)

    return record


def full_weights_of(path, teacher):
    return lambda index: path.full_weights(index, teacher.denoiser.state_dict())


def same(first, second) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


# What a node holds -----------------------------------------------------------------------------------------------


def test_whole_fake_score_is_a_trainable_copy_of_the_teacher(teacher):
    fake = fake_of(teacher, "full")
    assert same(fake_scores.node_weights(fake), teacher.denoiser.state_dict())
    assert all(parameter.requires_grad for parameter in fake.parameters())


def test_nodes_of_adapters_are_small(teacher):
    teacher = teacher_of(network("song"))
    node = fake_scores.node_weights(fake_of(teacher))
    size = sum(tensor.numel() for tensor in node.values())
    assert all("lora_" in name for name in node)
    assert size < 0.25 * sum(p.numel() for p in teacher.denoiser.parameters())


@pytest.mark.parametrize("layers", ["all", ["hidden.*", "output"]])
def test_a_recorded_path_of_adapters_gives_the_recorded_networks_back(tmp_path, teacher, fit, watch, layers):
    states = {}
    fake, callback = fake_of(teacher, layers=layers), recorder(tmp_path, teacher)
    fit(recording(teacher, fake), callback, watch(lambda s: states.update({s.iteration: copy.deepcopy(s.fake)})))
    path = finished(callback, teacher, "lora", layers=layers)
    assert path.adapter == settings_of(fake)
    own = teacher.denoiser.state_dict()
    assert {n: t.numpy().tobytes() for n, t in path.full_weights(0, own).items()} == {
        n: t.numpy().tobytes() for n, t in own.items()
    }
    for node in path.nodes[1:]:
        was = states[node.iteration]
        assert path.weights(node.index).keys() == was.state_dict().keys()
        full = path.full_weights(node.index, own)
        assert same(full, plain_weights(was))
        whole = teacher.copy()
        whole.load_state_dict(full, strict=True)
        torch.testing.assert_close(whole(*inputs(was)), was(*inputs(was)), rtol=1e-4, atol=1e-5)
        assert node.mismatch > 0.001


def test_a_path_of_whole_networks_has_no_adapter(recorded, teacher):
    path = recorded("full")
    assert path.adapter is None
    assert same(path.full_weights(2, {}), path.weights(2))


def test_a_path_of_adapters_is_walked_without_peft(recorded, teacher, monkeypatch):
    path = recorded("lora")
    monkeypatch.setitem(sys.modules, "peft", None)
    monkeypatch.delitem(sys.modules, "disback_cli.distillation.lora_layers", raising=False)
    fake = fake_of(teacher, "full")
    fake_scores.start_from(fake, path, 3, full_weights_of(path, teacher))
    assert same(fake.state_dict(), path.full_weights(3, teacher.denoiser.state_dict()))


# Where it starts -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["full", "lora"])
def test_a_fake_score_starts_from_a_node_of_its_own_kind(recorded, teacher, kind):
    path, fake = recorded(kind), fake_of(teacher, kind)
    fake_scores.start_from(fake, path, 3, full_weights_of(path, teacher))
    assert same(fake_scores.node_weights(fake), path.weights(3))


def test_adapters_on_a_path_of_whole_networks_are_refused_with_what_to_type(recorded, teacher):
    path = recorded("full")
    with pytest.raises(UserError) as caught:
        fake_scores.start_from(fake_of(teacher), path, 3, full_weights_of(path, teacher))
    assert "Type fake=full" in str(caught.value)
    assert "disback record fake=lora fake.rank=4 fake.alpha=4 fake.layers=all" in str(caught.value)


@pytest.mark.parametrize("options", [{"rank": 2}, {"alpha": 8}, {"layers": ["hidden.*"]}])
def test_other_adapters_than_the_paths_are_refused_with_what_to_type(recorded, teacher, options):
    path = recorded("lora")
    with pytest.raises(UserError) as caught:
        fake_scores.start_from(fake_of(teacher, **options), path, 3, full_weights_of(path, teacher))
    for words in ("Type fake=lora fake.rank=4 fake.alpha=4 fake.layers=all", "fake=full", "disback record"):
        assert words in str(caught.value)


@pytest.mark.parametrize(
    "damage",
    [[], {"kind": "dora"}, {"kind": "lora", "rank": 4}, {"kind": "lora", "rank": "4", "alpha": 4, "layers": 0}],
)
def test_a_damaged_description_of_adapters_is_named(recorded, damage):
    manifest = recorded("lora").folder / "path.json"
    content = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(content | {"adapter": damage}))
    with pytest.raises(UserError, match=r"path\.json is damaged"):
        DegradationPath(manifest)


# Training --------------------------------------------------------------------------------------------------------


def test_an_interrupted_recording_of_adapters_leaves_the_same_path(tmp_path, teacher, recorded, fit, save_at):
    whole = recorded("lora")
    saver = save_at(tmp_path / "checkpoints", [7])
    # Runs on behind its checkpoint, as a run does that is killed later.
    fit(recording(teacher, fake_of(teacher)), recorder(tmp_path / "parts", teacher), saver)
    second = recorder(tmp_path / "parts", teacher)
    fit(recording(teacher, fake_of(teacher)), second, checkpoint=saver.store.newest_whole())
    assert finished(second, teacher, "lora").nodes == whole.nodes


def backtracking(teacher, path) -> Backtracking:
    """Adapters everywhere: as the fake score, as the student, and as the nodes of the path."""
    weights = full_weights_of(path, teacher)
    fake = fake_of(teacher)
    fake_scores.start_from(fake, path, path.last, weights)
    return Backtracking(
        student=lora_student(teacher, sigma_init=1.0, **LORA),
        fake=fake,
        target=teacher.copy(),
        node_weights=lambda position: interpolated(weights, position),
        last=path.last,
        schedule=PathSchedule(interval=2),
        objective=DiffInstruct(),
        generator_law=LogNormal(),
        fake_law=LogNormal(),
        ema_halflife=40.0,
        ema_rampup=0.0,
        batch_size=16,
        iterations=7,
        seed=0,
        optimizer=AdamSettings(),
        lr={"student": 3e-3, "fake": 1e-2},
    )


def test_adapters_follow_a_path_of_adapters_and_resume_to_the_bit(tmp_path, teacher, recorded, fit, save_at):
    path = recorded("lora")
    saver = save_at(tmp_path / "checkpoints", [3])
    whole = backtracking(teacher, path)
    before = whole.student.export_weights()
    fit(whole, saver)
    assert [node for _, node in whole.switches] == [2, 1, 0]
    assert same(whole.target.state_dict(), teacher.denoiser.state_dict())
    resumed = backtracking(teacher, path)
    fit(resumed, checkpoint=saver.store.newest_whole())
    for name in ("student", "fake", "ema"):
        assert same(getattr(resumed, name).state_dict(), getattr(whole, name).state_dict())
    assert same(resumed.student.export_weights(), whole.student.export_weights())
    moved = [name for name, tensor in whole.student.export_weights().items() if not torch.equal(tensor, before[name])]
    assert moved and all(name.endswith(".weight") for name in moved)
    saved = torch.load(saver.store.newest_whole(), weights_only=True)["state_dict"]
    assert all("lora_" in name for name in saved)


def test_adapters_move_towards_the_students_distribution(teacher, fit, watch):
    losses = []
    stage = recording(teacher, fake_of(teacher), iterations=60, batch_size=128)
    fit(stage, watch(lambda s: losses.append(s.read_scalars()["fake_loss"])))
    assert sum(losses[-15:]) < 0.95 * sum(losses[:15])


# Cost ------------------------------------------------------------------------------------------------------------


def test_a_training_step_of_adapters_costs_one_backward_pass_instead_of_two(fit):
    teacher = teacher_of(network("song"))
    unit = teacher.denoiser
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        unit(*inputs(unit, batch=1))
    forward = counter.get_total_flops()
    for kind, wanted in (("full", 2.0), ("lora", 1.0)):
        fake, student = fake_of(teacher, kind, rank=1), OneStepStudent(teacher.copy(), sigma_init=1.0)
        costs = measure_costs(unit, student, fake)
        assert costs.fake_backward == pytest.approx(wanted, abs=0.15)
        assert 1 <= costs.fake < 1.15
        loss = fake(*inputs(unit, batch=1)).square().sum()
        with FlopCounterMode(display=False) as counter:
            loss.backward()
        assert counter.get_total_flops() / forward == pytest.approx(costs.fake_backward, abs=0.1)
        assert recording(teacher, fake, costs=costs).passes_per_sample == pytest.approx(2 + wanted, abs=0.3)


def test_the_network_trained_elsewhere_is_not_touched(teacher):
    before = {name: tensor.clone() for name, tensor in teacher.denoiser.state_dict().items()}
    trained_(fake_of(teacher))
    assert same(teacher.denoiser.state_dict(), before)
    assert not any(parameter.requires_grad for parameter in teacher.denoiser.parameters())
