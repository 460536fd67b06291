"""Every option of every group composes and passes the checks, in every verb that has the group."""

from __future__ import annotations

from pathlib import Path

import pytest
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from disback_cli.configuration import check
from disback_cli.configuration.run_id import register_run_id

CONF = Path(__file__).parents[2] / "conf"
VERBS = ("pretrain", "record", "backtrack", "sample", "evaluate", "stats")
# What a user must add to an option that cannot work without it.
NEEDED = {
    "teacher=folder": ["teacher.folder=somewhere"],
    "teacher=edm": ["teacher.path=mine.pkl"],
    "teacher=diffusers": ["teacher.path=mine"],
    "teacher=flow": [
        "teacher.weights=mine.pt",
        "teacher.denoiser.shape=[3,32,32]",
        "teacher.denoiser.network._target_=disback_cli.denoisers.mlp.NoiseConditionedMLP",
    ],
    "dataset=npz": ["dataset.path=mine.npz"],
    "dataset=edm": ["dataset.path=mine.zip"],
    "dataset=image_folder": ["dataset.path=mine"],
    "dataset=webdataset": ["dataset.path=mine.tar"],
    "dataset=huggingface": ["dataset.path=mine"],
    "metrics=inception": ["metrics.extractor.weights=file.pth"],
}


def _groups(verb: str) -> list[str]:
    defaults = OmegaConf.load(CONF / f"{verb}.yaml")["defaults"]
    entries = [str(key) for entry in defaults if not isinstance(entry, str) for key in entry]
    names = [entry.removeprefix("optional ") for entry in entries if not entry.startswith("override")]
    return [name for name in names if not name.startswith("recipe/")]


CASES = [
    (verb, f"{group}={option.stem}")
    for verb in VERBS
    for group in _groups(verb)
    for option in sorted((CONF / group).glob("*.yaml"))
]


@pytest.mark.parametrize(("verb", "choice"), CASES)
def test_option_composes_and_is_well_typed(verb: str, choice: str) -> None:
    register_run_id()
    with initialize_config_module("disback_cli.conf", version_base="1.3"):
        cfg = compose(verb, [choice, *NEEDED.get(choice, [])])
    check.check(cfg, verb)
    group, option = choice.split("=")
    own = OmegaConf.load(CONF / group / f"{option}.yaml")
    if "_target_" in own:
        assert OmegaConf.select(cfg, group.replace("/", "."))._target_ == own._target_


def test_objectives_bring_their_own_law_unless_the_user_names_one() -> None:
    with initialize_config_module("disback_cli.conf", version_base="1.3"):
        own = compose("backtrack", ["objective=dmd"])
        named = compose("backtrack", ["objective=dmd", "noise/generator=narrow"])
    assert own.noise.generator._target_.endswith("KarrasUniform")
    assert named.noise.generator.mean == -2.5


@pytest.mark.parametrize("teacher", ["edm_digits", "edm_digits_cond", "gmm_2d"])
def test_a_shipped_teacher_brings_data_and_metrics_that_suit_it(teacher: str) -> None:
    with initialize_config_module("disback_cli.conf", version_base="1.3"):
        cfg = compose("backtrack", [f"teacher={teacher}"])
    points = teacher == "gmm_2d"
    assert cfg.dataset._target_.endswith("ring" if points else "digits")
    assert cfg.metrics.extractor._target_.endswith("PointFeatures" if points else "DigitsFeatures")
