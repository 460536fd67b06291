"""A student's folder gives the student back, and must say how its network makes samples."""

import json
import math
import sys

import pytest
import torch
from built_students import BUILT

from disback_cli.denoisers import teachers
from disback_cli.denoisers.folder import save_model
from disback_cli.denoisers.gaussian_mixture import MixtureDenoiser
from disback_cli.denoisers.kinds import STUDENT
from disback_cli.distillation.student_folder import load_student, save_student
from disback_cli.distillation.students import factories, fingerprint
from disback_cli.errors import UserError
from disback_cli.publishing.model import read_model

SPEC = {"_target_": "disback_cli.denoisers.gaussian_mixture.MixtureDenoiser", "hidden": 8}


@pytest.fixture
def folder(tmp_path):
    config = {"kind": STUDENT, "student": {"kind": "one_step", "sigma_init": 2.5}}
    return save_model(tmp_path / "student", SPEC, MixtureDenoiser(hidden=8).state_dict(), config)


def test_a_good_level(folder):
    assert load_student(str(folder))[0].sigma_init == 2.5 and read_model(str(folder)).sigmas == [2.5]


@pytest.mark.parametrize("value", ["a", None, True, [1.0], 1e9, 0, -1.0, math.nan, math.inf, "missing"])
@pytest.mark.parametrize("read", [load_student, read_model])
def test_a_level_that_cannot_be(folder, read, value):
    document = json.loads((folder / "config.json").read_text())
    document["student"] = {"kind": "one_step"} | ({} if value == "missing" else {"sigma_init": value})
    (folder / "config.json").write_text(json.dumps(document))
    with pytest.raises(UserError, match=r"student/config\.json: student\.sigma_init is .*; need one of the network's"):
        read(str(folder))


@pytest.fixture
def teacher():
    return teachers.closed_form(name="points", denoiser=SPEC)


@pytest.mark.parametrize("kind", BUILT)
def test_students_of_all_kinds_come_back(teacher, tmp_path, kind):
    student = BUILT[kind](teacher)
    save_student(tmp_path / "student", student, teacher, {"cost": {"images": 1}})
    loaded, config = load_student(str(tmp_path))
    assert type(loaded) is type(student) and loaded.settings() == student.settings() == config["student"]
    assert config["student"]["kind"] == kind and config["cost"] == {"images": 1}
    assert fingerprint(loaded) == fingerprint(student) == config["weights_hash"]
    z = torch.randn(3, 2)
    assert torch.equal(loaded(z, None, lambda step: z + step), student(z, None, lambda step: z + step))
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    # and once more from what was loaded
    save_student(tmp_path / "again", loaded, teacher, {})
    assert json.loads((tmp_path / "again" / "config.json").read_text())["denoiser"] == config["denoiser"]


OWN = """
import torch


class Shifted(torch.nn.Module):
    def __init__(self, size):
        super().__init__()
        self.shift = torch.nn.Parameter(torch.randn(size))

    def forward(self, z):
        return z + self.shift
"""


def test_a_generator_of_a_users_own_class_is_loaded_if_its_module_is_trusted(teacher, tmp_path, monkeypatch):
    (tmp_path / "own_generator.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "own_generator", raising=False)
    student = factories.generator(teacher, network={"_target_": "own_generator.Shifted", "size": 2}, seed=4)
    save_student(tmp_path / "student", student, teacher, {})
    with pytest.raises(UserError, match="set DISBACK_TRUST=own_generator"):
        load_student(str(tmp_path))
    monkeypatch.setenv("DISBACK_TRUST", "own_generator")
    assert fingerprint(load_student(str(tmp_path))[0]) == fingerprint(student)
    assert read_model(str(tmp_path)).kind_of_network is torch.nn.Module


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("few_step", {"sigmas": [2.0, 80.0]}, "must fall strictly"),
        ("few_step", {"sigmas": "80"}, r"student.sigmas is '80'; need a list"),
        ("few_step", {"sigmas": [80.0, True]}, "need a list of noise levels"),
        ("few_step", {"sigmas": [1e9, 2.0]}, "outside the network's noise levels"),
        ("generator", {"shape": [2.5]}, r"student.shape is \[2.5\]"),
        ("generator", {"shape": [10**9]}, "at most 16,777,216 numbers"),
        ("generator", {"shape": 2}, "student.shape is 2"),
        ("generator", {"label_dim": -1}, "student.label_dim is -1"),
        ("compact", {"sigma_init": None}, "student.sigma_init is None"),
        (
            "generator",
            {"kind": "one_step"},
            "a one_step student is made of a denoiser, not of a PointGenerator",
        ),
        ("one_step", {"kind": "lora"}, "student.kind is 'lora'; known here are one_step, few_step, compact, generator"),
    ],
)
@pytest.mark.parametrize("read", [load_student, read_model])
def test_settings_that_cannot_be(teacher, tmp_path, read, kind, changes, message):
    folder = tmp_path / "student"
    save_student(folder, BUILT[kind](teacher), teacher, {})
    document = json.loads((folder / "config.json").read_text())
    document["student"] |= changes
    (folder / "config.json").write_text(json.dumps(document))
    with pytest.raises(UserError, match=message):
        read(str(tmp_path))


def test_a_teachers_folder_is_no_student(teacher, tmp_path):
    save_model(tmp_path, SPEC, teacher.denoiser.state_dict(), {})
    with pytest.raises(UserError, match="but not of a student; use teacher=folder"):
        load_student(str(tmp_path))
