"""What `disback inspect` says about students of every kind."""

from pathlib import Path

import pytest

from disback_cli.configuration import runfolder
from disback_cli.denoisers.teachers import closed_form
from disback_cli.distillation.student_folder import save_student
from disback_cli.distillation.students import Student, factories
from disback_cli.inspection.recognise import inspect
from disback_cli.verbs.convert import main as convert

MIXTURE = {"_target_": "disback_cli.denoisers.gaussian_mixture.MixtureDenoiser", "hidden": 8}
MLP = {"_target_": "disback_cli.denoisers.mlp_denoiser.MLPDenoiser", "dim": 2, "hidden": 8}
POINTS = {"_target_": "disback_cli.denoisers.point_generator.PointGenerator", "dim": 2, "hidden": 8}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def saved(kind: str) -> Student:
    """A student in ``run/student``."""
    teacher = closed_form(name="gmm", denoiser=MIXTURE)
    build = {
        "few_step": lambda: factories.few_step(teacher, sigmas=[80.0, 12.0, 2.0]),
        "compact": lambda: factories.compact(teacher, denoiser=MLP, sigma_init=2.5),
        "generator": lambda: factories.generator(teacher, network=POINTS),
    }
    student = build[kind]()
    save_student(Path("run/student"), student, teacher, {})
    return student


@pytest.mark.parametrize(
    ("kind", "title", "asked_at", "network", "to"),
    [
        ("few_step", "a few-step student of disback", [80.0, 12.0, 2.0], "MixtureDenoiser", " to=diffusers"),
        ("compact", "a compact one-step student of disback", 2.5, "MLPDenoiser", " to=diffusers"),
        ("generator", "a generator student of disback", None, "PointGenerator", ""),
    ],
)
def test_a_student_of_any_kind_is_described(kind, title, asked_at, network, to):
    count = sum(parameter.numel() for parameter in saved(kind).parameters())
    report = inspect("run/student")
    assert (report.kind, report.title) == ("student", title)
    assert report.facts["asked_at"] == asked_at and report.facts["network"] == network
    assert report.facts["parameters"] == count and report.facts["samples"] == {"kind": "points", "shape": [2]}
    assert report.next[-1] == f"disback convert run/student OUT{to}"
    words = {
        "few_step": "noise levels 80, 12, 2: 3 evaluations",
        "compact": "noise level 2.5, one",
        "generator": "turns",
    }
    assert words[kind] in report.as_text()
    runfolder.create(Path("run"), "backtrack", "gmm", [])
    runfolder.set_state(Path("run"), "finished")
    assert inspect("run").next[0] == "disback sample student=run"


def test_a_generator_passes_through_a_single_file(capsys):
    saved("generator")
    for words in (["run", "one.safetensors"], ["one.safetensors", "again"]):
        assert convert(words) == 0
    assert inspect("one.safetensors").title.startswith("a generator student of disback in one file")
    assert inspect("again").title == "a generator student of disback"
    assert "next: disback sample student=again n=64" in capsys.readouterr().out
    assert "x = G(z) with z ~ N(0, 1)" in Path("again/README.md").read_text()
