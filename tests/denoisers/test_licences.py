"""The licence of weights, through conversions and distillations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from nvidia_files import tiny_denoiser, write_nvidia_pickle
from tiny_pipelines import unconditional

from disback_cli.denoisers import teachers
from disback_cli.denoisers.folder import load_model, save_model
from disback_cli.denoisers.licences import identifier_of, licence_of
from disback_cli.denoisers.open_source import open_source
from disback_cli.distillation.student_folder import load_student, save_student
from disback_cli.distillation.students import OneStepStudent
from disback_cli.verbs.convert import main as convert

ASSETS = "pkg://disback_cli/assets"


@pytest.mark.parametrize(
    ("facts", "licence"),
    [
        ({"licence": "MIT"}, "MIT"),
        ({"licence": None, "origin": {"licence": "MIT"}}, "MIT"),
        ({"teacher": {"name": "x", "licence": "MIT"}}, "MIT"),
        ({"teacher": {"licence": None, "teacher": {"origin": {"licence": "MIT"}}}}, "MIT"),
        ({"licence": "A", "teacher": {"licence": "B"}}, "A"),
        ({"licence": "own\n# Heading " + "x" * 500}, ("own # Heading " + "x" * 500)[:200]),
        ({"teacher": {"licence": None}}, None),
        ({"licence": ["MIT"], "teacher": "MIT", "origin": 3}, None),
        ({}, None),
    ],
)
def test_where_a_licence_is_looked_for(facts: dict[str, Any], licence: str | None) -> None:
    assert licence_of(facts) == licence


def test_a_chain_without_an_end() -> None:
    facts: dict[str, Any] = {}
    facts["teacher"] = facts
    assert licence_of(facts) is None


@pytest.mark.parametrize(
    ("licence", "identifier"),
    [
        ("Apache-2.0", "apache-2.0"),
        ("CC BY-NC-SA 4.0 (NVIDIA)", "cc-by-nc-sa-4.0"),
        ("CC BY-NC 4.0", "cc-by-nc-4.0"),
        ("cc-by-nc-4.0", "cc-by-nc-4.0"),
        ("ours alone", None),
        ("unknown", None),
        (None, None),
    ],
)
def test_identifiers_of_model_cards(licence: str | None, identifier: str | None) -> None:
    assert identifier_of(licence) == identifier


def test_the_licence_goes_from_the_official_file_to_the_student_and_its_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_nvidia_pickle(tmp_path / "net.pkl", tiny_denoiser())
    files = [{"name": "net.pkl", "url": "https://example.org/net.pkl", "sha256": None, "bytes": None}]
    official = {"files": files, "parameters": None, "licence": "CC BY-NC-SA 4.0"}
    teacher = teachers.edm(name="t", folder=str(tmp_path), official=official)
    assert teacher.licence == "CC BY-NC-SA 4.0"
    own = teachers.edm(name="t", path=str(tmp_path / "net.pkl"), official=official)
    assert own.licence is None, "another file than the official one is not under its licence"
    save_student(tmp_path / "student", OneStepStudent(teacher.copy(), sigma_init=2.5), teacher, {})
    assert convert(["student", "copy"]) == 0
    assert licence_of(load_student("copy")[1]) == open_source("copy").facts["licence"] == "CC BY-NC-SA 4.0"


def test_a_converted_teacher_hands_its_licence_and_its_file_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    name = "edm-cifar10-32x32-uncond-vp.pkl"
    write_nvidia_pickle(tmp_path / name, tiny_denoiser())
    assert convert([name, "teacher"]) == 0
    teacher = teachers.folder(name="mine", folder="teacher")
    assert teacher.licence == "CC BY-NC-SA 4.0 (NVIDIA)"
    assert teacher.source is not None
    direct = teachers.edm(name="mine", path=name).source
    assert direct is not None and direct["name"] == name and len(direct["sha256"]) == 64
    assert (teacher.source["name"], teacher.source["origin"]) == ("teacher", direct)
    _, config = load_model("teacher")
    del config["licence"]
    save_model("teacher", config["denoiser"], teacher.denoiser.state_dict(), config)
    assert teachers.folder(name="mine", folder="teacher").licence == "CC BY-NC-SA 4.0 (NVIDIA)"


def test_the_licence_of_a_pipelines_card_wins_over_the_official_one(tmp_path: Path) -> None:
    place = unconditional(tmp_path / "pipe")
    files = [{"name": "pipe/model_index.json", "url": "https://example.org/x", "sha256": None, "bytes": None}]
    official = {"root": "pipe", "files": files, "parameters": None, "licence": "Apache-2.0"}
    found = teachers.diffusers(name="t", folder=str(tmp_path), official=official)
    assert found.licence == "Apache-2.0"
    (place / "README.md").write_text("---\nlicense: mit\n---\n")
    found = teachers.diffusers(name="t", folder=str(tmp_path), official=official)
    assert found.licence == "mit"
    assert found.source == {"name": "pipe", "sha256": None, "format": "diffusers", "network": "UNet2DModel"}
    inner = teachers.diffusers(name="t", path=str(place / "unet"))
    assert inner.source == found.source, "the pipeline's name, not that of a folder that all have"


@pytest.mark.parametrize("name", ["edm_digits", "edm_digits_cond"])
def test_shipped_weights_are_under_the_packages_licence(name: str, tmp_path: Path) -> None:
    place = f"{ASSETS}/{name}"
    loaded, config = load_model(place)
    for teacher in (
        teachers.shipped(name=name, folder=place, denoiser=config["denoiser"]),
        teachers.folder(name="mine", folder=place),
    ):
        assert teacher.licence == "Apache-2.0"
        assert teacher.source is not None and teacher.source["name"] == name
        assert teacher.source["network"] == "EDMDenoiser around SongUNet"
    assert open_source(place).facts["document"]["licence"] == "Apache-2.0"
    save_model(tmp_path / "own", config["denoiser"], loaded.state_dict(), {"kind": "disback-teacher"})
    assert teachers.shipped(name=name, folder=str(tmp_path / "own"), denoiser=config["denoiser"]).licence is None


def test_a_closed_form_of_ours_is_code_of_ours() -> None:
    mixture = {"_target_": "disback_cli.denoisers.gaussian_mixture.MixtureDenoiser", "hidden": 8}
    teacher = teachers.closed_form(name="points", denoiser=mixture)
    assert (teacher.licence, teacher.source) == ("Apache-2.0", None)
