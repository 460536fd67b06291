"""A teacher's option that got another kind of file or folder: it is told what that is, and what to type."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from nvidia_files import tiny_denoiser, write_nvidia_pickle
from tiny_pipelines import latent, unconditional

from disback_cli.denoisers import teachers
from disback_cli.denoisers.folder import load_model
from disback_cli.denoisers.open_source import find_network
from disback_cli.distillation.student_folder import save_student
from disback_cli.distillation.students import OneStepStudent
from disback_cli.errors import UserError
from disback_cli.verbs.convert import main as convert


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of each: net.pkl, pipe/, model/, one.safetensors, run/student/, text, page.pkl, empty/, data.pkl."""
    root = tmp_path_factory.mktemp("places")
    write_nvidia_pickle(root / "net.pkl", tiny_denoiser())
    unconditional(root / "pipe")
    teacher = teachers.edm(name="t", path=str(root / "net.pkl"))
    for folder in ("run/student", "recording/untrained_student"):
        save_student(root / folder, OneStepStudent(teacher.copy(), sigma_init=2.5), teacher, {})
    assert convert([str(root / "net.pkl"), str(root / "model")]) == 0
    assert convert([str(root / "net.pkl"), str(root / "one.safetensors"), "to=safetensors"]) == 0
    (root / "recording" / "path").mkdir()
    (root / "recording" / "path" / "path.json").write_text("{}")
    (root / "text").write_bytes(b"abc")
    (root / "page.pkl").write_text("<!DOCTYPE html><html>")
    (root / "data.pkl").write_bytes(pickle.dumps({"data": [1, 2]}))
    (root / "empty").mkdir()
    return root


@pytest.fixture(autouse=True)
def typed_there(places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(places)


TAKEN: dict[str, Callable[[str], Any]] = {
    "edm": lambda place: teachers.edm(name="t", path=str(Path(place).absolute())),
    "diffusers": lambda place: teachers.diffusers(name="t", path=str(Path(place).absolute())),
    "folder": lambda place: teachers.folder(name="t", folder=str(Path(place).absolute())),
}


@pytest.mark.parametrize(
    ("option", "place", "words"),
    [
        ("edm", "pipe", "a folder in diffusers' format: type teacher=diffusers teacher.path=pipe"),
        ("edm", "model", "a model folder of this program: type teacher=folder teacher.folder=model"),
        ("edm", "run", "is a one-step student"),
        ("edm", "empty", "is no folder with a network: it is empty"),
        ("edm", ".", "is a folder, give the file: teacher.path=data.pkl"),
        ("edm", "text", "holds no network (its content is of no format known here)"),
        ("edm", "page.pkl", "is a web page, not a model"),
        ("edm", "one.safetensors", "`disback convert one.safetensors FOLDER` makes a model folder of it"),
        ("edm", "model/model.safetensors", "give the folder"),
        ("diffusers", "net.pkl", "a pickle in NVIDIA's format: type teacher=edm teacher.path=net.pkl"),
        ("diffusers", "data.pkl", "holds no network (content: pickle)"),
        ("diffusers", "model", "type teacher=folder teacher.folder=model"),
        ("diffusers", "run", "is a one-step student"),
        ("diffusers", "empty", "it is empty"),
        ("diffusers", "pipe/model_index.json", "give the folder: teacher.path=pipe"),
        ("folder", "net.pkl", "type teacher=edm teacher.path=net.pkl"),
        ("folder", "pipe", "type teacher=diffusers teacher.path=pipe"),
        ("folder", "text", "holds no network"),
        ("folder", "empty", "it is empty"),
        ("folder", "recording", "is a recording, not a teacher: `disback backtrack path=recording`"),
    ],
)
def test_what_it_is_and_what_to_type(option: str, place: str, words: str) -> None:
    with pytest.raises(UserError, match=re.escape(words)):
        TAKEN[option](place)


@pytest.mark.parametrize(("option", "key"), [("edm", "path"), ("diffusers", "path"), ("folder", "folder")])
def test_a_file_that_was_moved(option: str, key: str) -> None:
    with pytest.raises(UserError, match=rf"there is no such file or folder\. If it was moved.*teacher\.{key}=NEW"):
        TAKEN[option]("gone")


@pytest.mark.parametrize("place", ["run", "run/student", "recording/untrained_student"])
def test_a_one_step_student_is_no_teacher(place: str) -> None:
    for option in ("folder", "edm"):
        with pytest.raises(UserError, match="is a one-step student, which has no denoiser at other noise levels"):
            TAKEN[option](place)
    found = find_network(place)
    assert found is not None
    _, config = load_model(found.path)
    with pytest.raises(UserError, match="is a one-step student"):
        teachers.shipped(name="t", folder=place, denoiser=config["denoiser"])


def test_the_right_places_are_taken() -> None:
    hashes = {TAKEN[option](place).hash for option, place in (("edm", "net.pkl"), ("folder", "model"))}
    assert len(hashes) == 1
    assert TAKEN["diffusers"]("pipe").hash == TAKEN["diffusers"]("pipe/unet").hash


def test_parts_of_a_pipeline_that_are_not_its_network(tmp_path: Path) -> None:
    pipe = latent(tmp_path / "pipe")
    for name, kind in (("vae", "AutoencoderKL"), ("scheduler", r"\w+Scheduler")):
        with pytest.raises(UserError, match=rf"is the {name} \({kind}\) of the pipeline in .*teacher\.path=.*pipe"):
            teachers.diffusers(name="t", path=str(pipe / name))
    (pipe / "transformer").rename(pipe / "unet")
    with pytest.raises(UserError, match="is the unet of the pipeline in"):
        teachers.diffusers(name="t", path=str(pipe / "unet"))
