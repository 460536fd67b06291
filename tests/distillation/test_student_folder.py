"""A student's folder must say at which of its network's noise levels it is asked."""

import json
import math

import pytest

from disback_cli.denoisers.folder import save_model
from disback_cli.denoisers.gaussian_mixture import MixtureDenoiser
from disback_cli.denoisers.kinds import STUDENT
from disback_cli.distillation.student_folder import load_student
from disback_cli.errors import UserError
from disback_cli.publishing.model import read_model

SPEC = {"_target_": "disback_cli.denoisers.gaussian_mixture.MixtureDenoiser", "hidden": 8}


@pytest.fixture
def folder(tmp_path):
    config = {"kind": STUDENT, "student": {"kind": "one_step", "sigma_init": 2.5}}
    return save_model(tmp_path / "student", SPEC, MixtureDenoiser(hidden=8).state_dict(), config)


def test_a_good_level(folder):
    assert load_student(str(folder))[0].sigma_init == read_model(str(folder)).sigma_init == 2.5


@pytest.mark.parametrize("value", ["a", None, True, [1.0], 1e9, 0, -1.0, math.nan, math.inf, "missing"])
@pytest.mark.parametrize("read", [load_student, read_model])
def test_a_level_that_cannot_be(folder, read, value):
    document = json.loads((folder / "config.json").read_text())
    document["student"] = {"kind": "one_step"} | ({} if value == "missing" else {"sigma_init": value})
    (folder / "config.json").write_text(json.dumps(document))
    with pytest.raises(UserError, match=r"student/config\.json: student\.sigma_init is .*; need one of the network's"):
        read(str(folder))
