"""Paths of training snapshots: the snapshots themselves, measured, in order; or refused with a sentence that helps."""

import logging

import pytest
import torch

from disback_cli.denoisers.folder import save_model
from disback_cli.denoisers.kinds import STUDENT, TEACHER
from disback_cli.denoisers.teachers import Teacher, closed_form
from disback_cli.distillation.assembling import assemble, open_snapshot
from disback_cli.distillation.losses import mismatch
from disback_cli.distillation.path import DegradationPath
from disback_cli.distillation.recording import MismatchProbe, Subject
from disback_cli.distillation.sigma_laws import LogNormal
from disback_cli.distillation.students import OneStepStudent
from disback_cli.errors import UserError
from disback_cli.runtime.randomness import CounterRandom

FACTS = {"teacher": {"name": "gmm_2d", "hash": "a" * 64}}
SPEC = {
    "_target_": "disback_cli.denoisers.gaussian_mixture.MixtureDenoiser", "layout": "ring", "hidden": 16, "depth": 2,
}  # fmt: skip


@pytest.fixture
def origin() -> Teacher:
    return closed_form(name="gmm_2d", denoiser=SPEC)


@pytest.fixture
def probe(origin) -> MismatchProbe:
    student = OneStepStudent(origin.copy(), sigma_init=1.0)
    return MismatchProbe(Subject(student, LogNormal(), CounterRandom(0), torch.device("cpu")), origin.denoiser, 64)


@pytest.fixture
def write(tmp_path, origin):
    """Writes a model folder with the teacher's weights moved by so much; returns its place."""

    def make(name: str, by: float, spec=SPEC, kind=TEACHER, **facts) -> str:
        network = origin.copy()
        generator = torch.Generator().manual_seed(7)
        with torch.no_grad():
            for parameter in network.correction.parameters():
                parameter.add_(by * torch.randn(parameter.shape, generator=generator))
        save_model(tmp_path / name, spec, network.state_dict(), {"kind": kind, **facts})
        return str(tmp_path / name)

    return make


def weights_of(place: str, origin: Teacher) -> dict[str, torch.Tensor]:
    return open_snapshot(place, origin).network.state_dict()


def test_a_path_has_the_teacher_and_the_snapshots_as_nodes_in_their_order(tmp_path, origin, probe, write):
    places = [write("late", 0.05, iterations=900), write("early", 0.3)]
    nodes = assemble(tmp_path / "run" / "path", origin, places, probe, lambda: FACTS)
    path = DegradationPath(tmp_path / "run")
    assert path.nodes == nodes
    assert [file.name for file in (tmp_path / "run").iterdir()] == ["path"]
    for node, expected in zip(
        nodes, (origin.denoiser.state_dict(), *(weights_of(p, origin) for p in places)), strict=True
    ):
        found = path.weights(node.index)
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert [(told["place"], told["iteration"]) for told in path.facts["snapshots"]] == [
        (places[0], 900), (places[1], None),
    ]  # fmt: skip


def test_nodes_are_measured_against_the_teacher_and_against_the_one_before(tmp_path, origin, probe, write):
    places = [write("late", 0.05), write("early", 0.3)]
    nodes = assemble(tmp_path / "path", origin, places, probe, lambda: FACTS)

    def apart(first, second) -> float:
        networks = [origin.copy(), origin.copy()]
        with torch.no_grad():
            for network, index in zip(networks, (first, second), strict=True):
                network.load_state_dict(DegradationPath(tmp_path / "path").weights(index))
            answers = [network(probe.noisy, probe.sigma) for network in networks]
        return float(mismatch(*answers, probe.sigma, 0.5))

    assert [node.mismatch for node in nodes] == pytest.approx([apart(0, 0), apart(1, 0), apart(2, 0)])
    assert [node.arc for node in nodes] == pytest.approx([0, apart(1, 0), apart(1, 0) + apart(2, 1)])
    assert 0 < nodes[1].mismatch < nodes[2].mismatch


def test_a_run_of_pretrain_is_its_teacher(origin, write):
    write("run/teacher", 0.1)
    run = write("run/teacher", 0.1).removesuffix("/teacher")
    found = weights_of(run, origin)
    assert all(torch.equal(found[name], tensor) for name, tensor in weights_of(f"{run}/teacher", origin).items())


def test_snapshots_in_the_wrong_order_are_warned_of(tmp_path, origin, probe, write, caplog):
    places = [write("early", 0.3), write("late", 0.05)]
    with caplog.at_level(logging.WARNING):
        assemble(tmp_path / "path", origin, places, probe, lambda: FACTS)
    assert f"the snapshot {places[1]} is nearer to the teacher" in caplog.text
    assert "from the end of the teacher's training to its beginning" in caplog.text


def test_another_network_is_refused_and_nothing_is_left(tmp_path, origin, probe, write):
    place = write("other", 0.1, spec={**SPEC, "radius": 0.9})
    with pytest.raises(UserError, match=r"is of another network than teacher=gmm_2d: radius is None there, 0\.9 here"):
        assemble(tmp_path / "run" / "path", origin, [write("late", 0.1), place], probe, lambda: FACTS)
    assert list((tmp_path / "run").iterdir()) == []


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["same", "same"], "same weights as the snapshot"),
        (["teacher"], "same weights as teacher=gmm_2d"),
    ],
)
def test_weights_that_are_a_node_already_are_refused(tmp_path, origin, probe, write, names, message):
    write("same", 0.1)
    write("teacher", 0.0)
    with pytest.raises(UserError, match=message):
        assemble(tmp_path / "path", origin, [str(tmp_path / name) for name in names], probe, lambda: FACTS)


def test_a_student_is_no_snapshot(origin, write):
    with pytest.raises(UserError, match="is a (one-step )?student"):
        open_snapshot(write("student", 0.1, kind=STUDENT), origin)


def test_a_folder_without_a_network_is_named(tmp_path, origin):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no folder with a network: it is empty"):
        open_snapshot(str(tmp_path / "empty"), origin)
    with pytest.raises(UserError, match="there is nothing at"):
        open_snapshot(str(tmp_path / "nowhere"), origin)


def test_an_interrupted_assembly_leaves_an_earlier_path_as_it_was(tmp_path, origin, probe, write):
    assemble(tmp_path / "path", origin, [write("late", 0.05)], probe, lambda: FACTS)
    before = DegradationPath(tmp_path / "path").nodes
    with pytest.raises(UserError):
        assemble(tmp_path / "path", origin, [write("other", 0.2), str(tmp_path / "nowhere")], probe, lambda: FACTS)
    assert DegradationPath(tmp_path / "path").nodes == before
