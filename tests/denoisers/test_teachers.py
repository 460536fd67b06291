"""Teachers from files: where they are looked for, what is refused, and what a copy may learn."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from nvidia_files import NCSNPP, tiny_denoiser, write_nvidia_pickle
from tiny_pipelines import latent, unconditional
from torch import Tensor, nn

from disback_cli.denoisers import teachers
from disback_cli.denoisers.folder import load_decoder, save_model, weights_hash
from disback_cli.distillation.assembling import open_snapshot
from disback_cli.distillation.student_folder import load_student, save_student
from disback_cli.distillation.students import OneStepStudent
from disback_cli.errors import UserError

OWN = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)

    def forward(self, x, t, labels=None):
        return self.linear(x.flatten(1)).reshape(x.shape) + t[:, None, None, None]
"""


def official(parameters: int | None, name: str = "net.pkl") -> dict[str, Any]:
    files = [{"name": name, "url": f"https://example.org/{name}", "sha256": None, "bytes": None}]
    return {"files": files, "parameters": parameters, "licence": "CC0"}


def count(denoiser: nn.Module) -> int:
    return sum(parameter.numel() for parameter in denoiser.parameters())


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of the user's own with a network class."""
    (tmp_path / "own_network_of_a_user.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_network_of_a_user", raising=False)
    return "own_network_of_a_user"


def flow_of(module: str) -> dict[str, Any]:
    return {
        "_target_": "disback_cli.denoisers.flow.FlowDenoiser", "shape": [2, 1, 1], "direction": "data_at_1",
        "time_scale": 1.0, "network": {"_target_": f"{module}.Net"},
    }  # fmt: skip


def test_an_official_file_is_found_by_its_name_and_known_by_its_size(tmp_path: Path) -> None:
    denoiser = tiny_denoiser()
    write_nvidia_pickle(tmp_path / "net.pkl", denoiser)
    teacher = teachers.edm(name="t", folder=str(tmp_path), official=official(count(denoiser)), sampler={"steps": 5})
    assert teacher.hash == weights_hash(denoiser.state_dict())
    assert teacher.sampler == {"steps": 5}
    assert not any(parameter.requires_grad for parameter in teacher.denoiser.parameters())
    with pytest.raises(UserError, match="another file lies under the official name"):
        teachers.edm(name="t", folder=str(tmp_path), official=official(55_733_891))
    own = teachers.edm(name="t", path=str(tmp_path / "net.pkl"), official=official(55_733_891))
    assert own.hash == teacher.hash


def test_a_missing_official_file_says_where_it_is_to_be_had(tmp_path: Path) -> None:
    with pytest.raises(UserError) as refusal:
        teachers.edm(name="edm_cifar", folder=str(tmp_path), official=official(55_733_891))
    for text in ("https://example.org/net.pkl", str(tmp_path / "net.pkl"), "disback fetch teacher=edm_cifar", "CC0"):
        assert text in str(refusal.value)
    with pytest.raises(UserError, match="teacher.path=gone.pkl: there is no such file"):
        teachers.edm(name="edm_cifar", path="gone.pkl", official=official(1))


def test_a_copy_learns_what_is_used_and_drops_nothing_out(tmp_path: Path) -> None:
    write_nvidia_pickle(tmp_path / "net.pkl", tiny_denoiser(NCSNPP, augment_dim=9, dropout=0.5))
    copy = teachers.edm(name="t", path=str(tmp_path / "net.pkl")).copy()
    still = {name for name, parameter in copy.named_parameters() if not parameter.requires_grad}
    assert still == {"model.map_augment.weight"}
    assert not any(module.training for module in copy.modules())
    x, sigma = torch.randn(2, *copy.shape), torch.tensor([0.5, 2.0])
    assert torch.equal(copy(x, sigma), copy(x, sigma))


def test_the_precision_of_the_file_or_of_the_user(tmp_path: Path) -> None:
    write_nvidia_pickle(tmp_path / "net.pkl", tiny_denoiser(use_fp16=True))
    asked = teachers.edm(name="t", path=str(tmp_path / "net.pkl"))
    told = teachers.edm(name="t", path=str(tmp_path / "net.pkl"), dtype="bf16")
    assert (asked.denoiser.network_dtype, told.denoiser.network_dtype) == ("fp16", "bf16")
    assert told.spec["network_dtype"] == "bf16"
    assert told.hash == asked.hash, "a path recorded in one precision serves the other"
    x, sigma = torch.randn(2, *told.denoiser.shape), torch.tensor([0.5, 2.0])
    difference = (told.denoiser(x, sigma) - asked.denoiser(x, sigma)).abs().max()
    assert 0 < difference < 0.5


def test_students_of_discrete_time_are_asked_at_a_trained_level(tmp_path: Path) -> None:
    teacher = teachers.diffusers(name="t", path=str(unconditional(tmp_path / "pipe")))
    student = OneStepStudent(teacher.copy(), sigma_init=2.5)
    assert student.sigma_init != 2.5
    assert student.sigma_init == pytest.approx(2.5, rel=0.01)
    assert OneStepStudent(teacher.copy(), sigma_init=student.sigma_init).sigma_init == student.sigma_init


def test_a_latent_student_takes_its_decoder_along(tmp_path: Path) -> None:
    teacher = teachers.diffusers(name="t", path=str(latent(tmp_path / "pipe")))
    assert teacher.decoder is not None
    save_student(tmp_path / "student", OneStepStudent(teacher.copy(), sigma_init=2.5), teacher, {})
    student, _ = load_student(str(tmp_path / "student"))
    decoder, spec = load_decoder(tmp_path / "student")
    assert decoder is not None and spec == teacher.decoder_spec
    latents = torch.randn(2, *student.denoiser.shape)
    labels = torch.eye(student.denoiser.label_dim)[:2]
    with torch.no_grad():
        samples = student(latents, labels)
        torch.testing.assert_close(decoder(samples), teacher.decoder(samples))
    assert weights_hash(decoder.state_dict()) == weights_hash(teacher.decoder.state_dict())


@pytest.mark.parametrize("form", ["bare", "key", "prefix", "whole"])
def test_a_network_of_the_users_own_class(tmp_path: Path, own_module: str, form: str) -> None:
    network = __import__(own_module).Net()
    tensors: dict[str, Tensor] = dict(network.state_dict())
    content: dict[str, Any] = {
        "bare": tensors,
        "key": {"step": 3, "ema": {"model": tensors}, "raw": {"x": torch.zeros(1)}},
        "prefix": {f"net.{name}": tensor for name, tensor in tensors.items()} | {"other": torch.zeros(1)},
        "whole": {f"model.{name}": tensor for name, tensor in tensors.items()},
    }[form]
    torch.save(content, tmp_path / "w.pt")
    words = {"key": {"key": "ema.model"}, "prefix": {"prefix": "net."}}.get(form, {})
    teacher = teachers.network(name="t", denoiser=flow_of(own_module), weights=str(tmp_path / "w.pt"), **words)
    x, sigma = torch.randn(3, 2, 1, 1), torch.tensor([0.5, 1.0, 4.0])
    time = (1 / (1 + sigma))[:, None, None, None]
    interpolated = x * time
    with torch.no_grad():
        expected = interpolated + (1 - time) * network(interpolated, time.flatten())
    torch.testing.assert_close(teacher.denoiser(x, sigma), expected)


@pytest.mark.parametrize(
    ("content", "words", "reason"),
    [
        ({"linear.weight": torch.zeros(2, 2)}, {}, "missing linear.bias"),
        ({"linear.weight": torch.zeros(3, 2), "linear.bias": torch.zeros(2)}, {}, "linear.weight has shape"),
        ({"a": {"x": torch.zeros(1)}, "b": {"x": torch.zeros(1)}}, {}, "several tables of tensors: a, b"),
        ({"a": {"x": torch.zeros(1)}}, {"key": "ema"}, "has no entry 'ema'; it holds a"),
        ({"a": torch.zeros(1)}, {"prefix": "net."}, "no tensor's name begins with 'net.'"),
        ({"a": 1}, {}, "holds no table of tensors"),
    ],
    ids=["missing", "shape", "several", "no entry", "prefix", "none"],
)
def test_weights_of_another_network_are_refused(
    tmp_path: Path, own_module: str, content: dict[str, Any], words: dict[str, str], reason: str
) -> None:
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(UserError, match=reason):
        teachers.network(name="t", denoiser=flow_of(own_module), weights=str(tmp_path / "w.pt"), **words)


def test_a_whole_pickled_network_is_not_executed(tmp_path: Path, own_module: str) -> None:
    torch.save(__import__(own_module).Net(), tmp_path / "w.pt")
    with pytest.raises(UserError, match="reading would run code, which is never done"):
        teachers.network(name="t", denoiser=flow_of(own_module), weights=str(tmp_path / "w.pt"))
    with pytest.raises(UserError, match="no weights at"):
        teachers.network(name="t", denoiser=flow_of(own_module), weights=str(tmp_path / "gone.pt"))


def test_a_students_folder_names_a_users_class_only_where_it_is_trusted(
    tmp_path: Path, own_module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(__import__(own_module).Net().state_dict(), tmp_path / "w.pt")
    teacher = teachers.network(name="t", denoiser=flow_of(own_module), weights=str(tmp_path / "w.pt"))
    save_student(tmp_path / "student", OneStepStudent(teacher.copy(), sigma_init=2.5), teacher, {})
    with pytest.raises(UserError, match=f"set DISBACK_TRUST={own_module}"):
        load_student(str(tmp_path / "student"))
    monkeypatch.setenv("DISBACK_TRUST", f"another, {own_module}")
    student, _ = load_student(str(tmp_path / "student"))
    assert weights_hash(student.denoiser.state_dict()) == teacher.hash
    monkeypatch.setenv("DISBACK_TRUST", own_module[:-1])
    with pytest.raises(UserError, match="is refused"):
        load_student(str(tmp_path / "student"))


def test_earlier_states_of_a_teacher_are_opened_from_every_format(tmp_path: Path) -> None:
    """Snapshots of a training, for `disback assemble`: NVIDIA's pickle, and a model folder of the same network."""
    denoiser = tiny_denoiser(NCSNPP)
    write_nvidia_pickle(tmp_path / "end.pkl", denoiser)
    with torch.no_grad():
        next(iter(denoiser.parameters())).add_(0.1)
    write_nvidia_pickle(tmp_path / "earlier.pkl", denoiser)
    teacher = teachers.edm(name="edm", path=str(tmp_path / "end.pkl"), dtype="fp32")
    earlier = teachers.edm(name="edm", path=str(tmp_path / "earlier.pkl"))
    save_model(tmp_path / "folder", earlier.spec, earlier.denoiser.state_dict(), {"kind": "teacher"})
    for place in ("earlier.pkl", "folder"):
        snapshot = open_snapshot(str(tmp_path / place), teacher)
        assert snapshot.weights_hash == earlier.hash != teacher.hash
        assert type(snapshot.network) is type(teacher.denoiser)


def test_an_earlier_state_of_a_network_of_the_users_own_is_opened_as_its_teacher_was(
    tmp_path: Path, own_module: str
) -> None:
    network = import_module(own_module).Net()
    places = [str(tmp_path / name) for name in ("end.pt", "earlier.pt")]
    for place in places:
        torch.save(network.state_dict(), place)
        with torch.no_grad():
            network.linear.bias.add_(1)

    def opened(place: str) -> teachers.Teacher:
        return teachers.network(name="own", denoiser=flow_of(own_module), weights=place)

    teacher = opened(places[0])
    with pytest.raises(UserError, match="snapshots: .*holds weights alone"):
        open_snapshot(places[1], teacher)
    assert open_snapshot(places[1], teacher, opened).weights_hash == opened(places[1]).hash != teacher.hash
