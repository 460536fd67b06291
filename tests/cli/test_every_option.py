"""Every option of every group composes and passes the checks, in every verb that has the group."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from disback_cli.configuration import check, noise_laws
from disback_cli.configuration.arguments import CommandLine
from disback_cli.configuration.run_id import register_run_id
from disback_cli.configuration.sweep_files import with_sweep_file
from disback_cli.errors import UserError

CONF = Path(__file__).parents[2] / "conf"
VERBS = ("pretrain", "record", "assemble", "backtrack", "pairs", "regress", "sample", "evaluate", "stats")
# What a user must give a verb in any case.
ALWAYS = {"assemble": ["snapshots=[mine]"]}
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
        cfg = compose(verb, [choice, *ALWAYS.get(verb, []), *NEEDED.get(choice, [])])
    check.check(cfg, verb)
    group, option = choice.split("=")
    own = OmegaConf.load(CONF / group / f"{option}.yaml")
    if "_target_" in own:
        assert OmegaConf.select(cfg, group.replace("/", "."))._target_ == own._target_


@pytest.mark.parametrize("verb", ["pretrain", "record", "backtrack"])
def test_one_word_gives_a_law_to_all_that_draws_noise_levels(verb: str) -> None:
    register_run_id()
    law, others = "narrow", ["teacher=gmm_2d", *(["objective=dmd"] if verb == "backtrack" else [])]
    own = OmegaConf.load(CONF / "noise" / "fake" / f"{law}.yaml")
    for given in (law, f"{law},karras"):
        line = noise_laws.with_noise(verb, CommandLine.parse([f"noise={given}"]))
        # a job of a sweep has one value of each axis: there must be one axis
        words = [word.replace(given, law) for word in line.words()]
        assert len([word for word in words if law in word]) == (1 if "," in given else len(words))
        for order in ([*words, *others], [*others, *reversed(words)]):
            with initialize_config_module("disback_cli.conf", version_base="1.3"):
                cfg = compose(verb, order)
            for group in noise_laws.GROUPS[verb]:
                assert OmegaConf.select(cfg, group.replace("/", ".")) == own


@pytest.mark.parametrize("verb", ["pretrain", "backtrack", "regress"])
def test_the_ramp_of_the_average_is_switched_off_by_zero_and_not_by_null(verb: str) -> None:
    register_run_id()
    with initialize_config_module("disback_cli.conf", version_base="1.3"):
        off, null = (compose(verb, [f"ema.rampup={value}"]) for value in ("0", "null"))
    check.check(off, verb)
    with pytest.raises(UserError, match="ema.rampup=null: must be a number"):
        check.check(null, verb)


@pytest.mark.parametrize("name", [file.stem for file in sorted((CONF / "sweep").glob("*.yaml"))])
def test_every_sweep_that_is_written_down_composes(name: str) -> None:
    register_run_id()
    verb = str(OmegaConf.load(CONF / "sweep" / f"{name}.yaml").verb)
    line = noise_laws.with_noise(verb, with_sweep_file(verb, CommandLine.parse(["-m", f"sweep={name}"])))
    assert any(override.several for override in line.overrides)
    first = [re.sub(r"=([^,(]+),.*", r"=\1", o.word) for o in line.overrides if "(" not in o.word]
    with initialize_config_module("disback_cli.conf", version_base="1.3"):
        cfg = compose(verb, [word for word in first if not word.startswith("hydra")])
    check.check(cfg, verb)


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
