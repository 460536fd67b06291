"""The students that an option alone gives: which network suits which teacher, and what both stages share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from disback_cli.configuration import check
from disback_cli.configuration.arguments import CommandLine
from disback_cli.configuration.pathsource import with_path
from disback_cli.configuration.run_id import register_run_id
from disback_cli.denoisers.build import build
from disback_cli.denoisers.protocol import Denoiser
from disback_cli.errors import UserError

CONF = Path(__file__).parents[2] / "conf"
VERBS = ("record", "backtrack", "regress")
KNOWN = [
    (kind, file.stem)
    for kind in ("compact", "generator")
    for file in sorted((CONF / "student" / "of" / kind).iterdir())
]


def composed(verb: str, *words: str) -> dict[str, Any]:
    """The student of a command, checked."""
    register_run_id()
    with initialize_config_module("disback_cli.conf", version_base="1.3"):
        cfg = compose(verb, list(words))
    check.check(cfg, verb)
    student = OmegaConf.to_container(cfg.student, resolve=True)
    assert isinstance(student, dict)
    return {str(key): value for key, value in student.items()}


@pytest.mark.parametrize(("kind", "teacher"), KNOWN)
def test_a_network_that_is_known_for_a_teacher_is_taken_and_can_be_built(kind: str, teacher: str) -> None:
    students = [composed(verb, f"student={kind}", f"teacher={teacher}") for verb in VERBS]
    assert students[0] == students[1] == students[2]
    network = build(students[0]["denoiser" if kind == "compact" else "network"])
    assert isinstance(network, Denoiser) == (kind == "compact")


def test_levels_near_the_data_for_the_shipped_teachers_and_published_ones_elsewhere() -> None:
    for teacher in ("gmm_2d", "edm_digits", "edm_digits_cond"):
        assert composed("record", "student=few_step", f"teacher={teacher}")["sigmas"] == [2.5, 0.8, 0.25]
    assert composed("record", "student=few_step", "teacher=edm_cifar")["sigmas"] == [80.0, 12.0, 2.0]
    assert composed("record", "student=few_step", "student.sigmas=[9,1]")["sigmas"] == [9, 1]


def test_a_users_own_network_takes_the_place_of_the_known_one() -> None:
    own = "student.network={_target_: torch.nn.Linear, in_features: 2, out_features: 2}"
    student = composed("record", "teacher=gmm_2d", "student=generator", "~student/of@student", own)
    assert student["network"] == {"_target_": "torch.nn.Linear", "in_features": 2, "out_features": 2}
    assert composed("record", "teacher=edm", "teacher.path=x", "student=compact")["denoiser"] is None
    with pytest.raises(UserError, match="student.sigmas=80.0: must be a list, each item a number"):
        composed("record", "student=few_step", "student.sigmas=80.0")
    with pytest.raises(UserError, match="few_step has no option 'sigma_init'"):
        composed("record", "student=few_step", "+student.sigma_init=80.0")


def a_recording(student: dict[str, Any], *words: str) -> Path:
    """The folder of a recording with this student in its path.json."""
    folder = Path("runs/record/gmm_2d/one/path")
    folder.mkdir(parents=True)
    manifest = {
        "teacher": {"name": "gmm_2d"}, "teacher_choice": "gmm_2d", "created": "2024", "student": student,
        "choices": {"teacher": "gmm_2d", "student": str(student.get("kind"))}, "overrides": list(words),
    }  # fmt: skip
    (folder / "path.json").write_text(json.dumps(manifest))
    return folder.parent


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_backtrack_takes_over_the_levels_of_a_few_step_student() -> None:
    path = a_recording({"kind": "few_step", "sigmas": [40.0, 4.0], "sha256": "0"})
    words = with_path(CommandLine(()), Path("runs"), []).words()
    taken = [word for word in words if word.startswith(("student", "teacher="))]
    assert taken == ["teacher=gmm_2d", "student=few_step", "student.sigmas=[40.0, 4.0]"]
    assert composed("backtrack", *taken)["sigmas"] == [40.0, 4.0]
    own = with_path(CommandLine.parse(["student.sigmas=[9,1]"]), Path("runs"), []).words()
    assert [word for word in own if word.startswith("student.sigmas")] == ["student.sigmas=[9,1]"]
    other = with_path(CommandLine.parse(["student=one_step", f"path={path}"]), Path("runs"), []).words()
    assert not any(word.startswith("student.") for word in other)


def test_backtrack_takes_over_the_network_and_the_start_of_a_student() -> None:
    words = ["student=generator", "student.network.shift=3.0", "student.seed=7", "student.weights=/somewhere/run"]
    a_recording({"kind": "generator", "shape": [2], "label_dim": 0, "sha256": "0"}, *words)
    taken = with_path(CommandLine(()), Path("runs"), []).words()
    student = composed("backtrack", *[word for word in taken if word.startswith(("student", "teacher="))])
    assert (student["network"]["shift"], student["network"]["seed"], student["seed"]) == (3.0, 7, 7)
    assert student["weights"] == "/somewhere/run"


@pytest.mark.parametrize("levels", [[80.0, "x"], "80", [None]])
def test_levels_of_a_damaged_manifest(levels: Any) -> None:
    folder = a_recording({"kind": "few_step", "sigmas": levels})
    with pytest.raises(UserError, match="is damaged"):
        with_path(CommandLine.parse([f"path={folder}"]), Path("runs"), [])
