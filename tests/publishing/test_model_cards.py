"""Cards: which teacher, which settings, which licence; for people and in the header for catalogues."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from disback_cli.publishing.cards import folder_card, pipeline_card
from disback_cli.publishing.model import Model

SOURCE = {"name": "edm-cifar10-32x32-uncond-vp.pkl", "sha256": "5e" * 32, "format": "edm-pickle", "network": "SongUNet"}
FACTS: dict[str, Any] = {
    "kind": "disback-student",
    "student": {"kind": "one_step", "sigma_init": 2.5},
    "teacher": {"name": "edm", "hash": "ab" * 32, "licence": "CC BY-NC-SA 4.0 (NVIDIA)", "source": SOURCE},
    "objective": {"_target_": "disback_cli.distillation.objectives.dmd.DMD"},
    "path": "2025-01-01_00-00-00",
    "training": {
        "batch_size": 256,
        "iterations": 70000,
        "lr": {"student": 1e-5, "fake": 2e-5},
        "noise": {"fake": {"_target_": "disback_cli.distillation.sigma_laws.LogNormal", "mean": -1.2}},
    },
}
WEIGHTS = {"a": torch.zeros(3)}


def student(facts: dict[str, Any] | None = None, label_dim: int = 0, shape: tuple[int, ...] = (3, 8, 8)) -> Model:
    return Model(
        Path("x"), "model-folder", {"shape": list(shape), "label_dim": label_dim}, WEIGHTS, FACTS | (facts or {})
    )


def header(card: str) -> dict[str, Any]:
    begin, text, _ = card.split("---\n", 2)
    assert begin == ""
    found = yaml.safe_load(text)
    assert isinstance(found, dict)
    return found


def teacher(**changed: Any) -> dict[str, Any]:
    return {"teacher": FACTS["teacher"] | changed}


@pytest.mark.parametrize("card", [folder_card, lambda model, weights: pipeline_card(model, weights, "pipe()")])
def test_a_students_card_names_its_teachers_file_and_its_settings(card: Any) -> None:
    text = card(student(), WEIGHTS)
    assert "\n# One-step student of edm-cifar10-32x32-uncond-vp.pkl\n" in text
    for told in (
        "- teacher: edm: edm-cifar10-32x32-uncond-vp.pkl", f"- teacher's file: sha256 {'5e' * 32}",
        "SongUNet (edm-pickle)", "- batch size: 256", "- iterations: 70000",
        "- learning rates: student=1e-05, fake=2e-05", "- noise laws: fake=(class=LogNormal, mean=-1.2)",
        "- degradation path: recorded beforehand", "teacher's weights: CC BY-NC-SA 4.0 (NVIDIA)",
    ):  # fmt: skip
        assert told in text, told
    assert header(text)["license"] == "cc-by-nc-sa-4.0"


@pytest.mark.parametrize(
    ("licence", "expected"),
    [
        ("Apache-2.0", {"license": "apache-2.0"}),
        ("CC BY-NC 4.0", {"license": "cc-by-nc-4.0"}),
        (None, {"license": "other", "license_name": "unknown"}),
        ("Ours: 1.0\ntags: [x]", {"license": "other", "license_name": "ours-1.0-tags-x"}),
        ("1.0", {"license": "other", "license_name": "1.0"}),
    ],
)
def test_the_licence_in_the_header(licence: str | None, expected: dict[str, str]) -> None:
    text = folder_card(student(teacher(licence=licence)), WEIGHTS)
    assert {key: value for key, value in header(text).items() if key.startswith("license")} == expected
    assert header(text)["tags"] == ["one-step"]
    assert ("unknown: ask the teacher's owner" in text) == (licence is None)


def test_only_unconditional_generators_of_images_are_tagged_as_such() -> None:
    tag = {"pipeline_tag": "unconditional-image-generation"}.items()
    assert tag <= header(pipeline_card(student(), WEIGHTS, "")).items()
    for other in (student(label_dim=10), student(shape=(2,))):
        assert "pipeline_tag" not in header(pipeline_card(other, WEIGHTS, ""))


def test_the_file_a_teacher_was_converted_from_names_it() -> None:
    source = {"name": "cifar10", "sha256": "00" * 32, "format": "model-folder", "network": "x", "origin": SOURCE}
    assert "# One-step student of edm-cifar10-32x32-uncond-vp.pkl\n" in folder_card(
        student(teacher(source=source)), WEIGHTS
    )


def test_a_teacher_without_a_file_goes_by_its_name() -> None:
    for source in (None, {}, {"name": None}, "x", {"name": "gmm_2d"}):
        text = folder_card(student(teacher(name="gmm_2d", source=source)), WEIGHTS)
        assert "# One-step student of gmm_2d\n" in text and "- teacher: gmm_2d\n" in text


def test_a_teachers_card_has_a_header_too() -> None:
    facts = {"kind": "disback-teacher", "name": "net", "origin": {"licence": "MIT", "file": "net.pkl", "format": "x"}}
    text = folder_card(Model(Path("x"), "edm-pickle", {"shape": [3, 8, 8]}, WEIGHTS, facts), WEIGHTS)
    assert header(text) == {"license": "mit"} and "\n# net\n" in text and "weights: MIT" in text
