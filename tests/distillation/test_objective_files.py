"""The files of conf/objective: what they build, the law they bring along, and what is refused at composition."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
import torch
from hydra import compose, initialize_config_module
from hydra.utils import instantiate
from objective_stages import OBJECTIVES, WITH_CRITIC
from omegaconf import DictConfig

from disback_cli.configuration import check
from disback_cli.configuration.run_id import register_run_id
from disback_cli.distillation.objectives.density_ratio import WEIGHTS
from disback_cli.distillation.objectives.f_distill import FDistill
from disback_cli.distillation.objectives.uni_instruct import UniInstruct
from disback_cli.errors import UserError

UNIFORM, KARRAS = (0.02, 0.98), (0.0, 0.8)
LAWS = {
    "vsd": UNIFORM, "dmd": UNIFORM, "dmd2": UNIFORM, "f_distill": UNIFORM,
    "sid": KARRAS, "sida": KARRAS, "uni_instruct": KARRAS,
}  # fmt: skip


def composed(*words: str) -> DictConfig:
    register_run_id()
    with initialize_config_module("disback_cli.conf", version_base="1.3"):
        return compose("backtrack", [*words])


def checked(*words: str) -> None:
    check.check(composed(*words), "backtrack")


@pytest.mark.parametrize("name", OBJECTIVES)
def test_files_numbers_are_those_the_objective_has_by_itself(name):
    built, own = instantiate(composed(f"objective={name}").objective), OBJECTIVES[name]()
    assert type(built) is type(own)
    facts = [
        {key: value for key, value in vars(o).items() if key not in ("critic", "regression")} for o in (built, own)
    ]
    assert facts[0] == facts[1]
    assert (built.critic is not None) == (name in WITH_CRITIC)
    if built.critic is not None:
        expected = vars(own.critic) | ({"warmup": 100} if name == "sida" else {})
        assert vars(built.critic) == expected


@pytest.mark.parametrize("name", sorted(WITH_CRITIC))
def test_the_page_says_how_much_a_critic_is_asked_where_it_was_not_trained(name):
    noise = composed(f"objective={name}").noise
    highest = instantiate(noise.fake).quantile(torch.tensor([0.999], dtype=torch.float64))
    asked = instantiate(noise.generator).quantile((torch.arange(10_000, dtype=torch.float64) + 0.5) / 10_000)
    share = f"{float((asked > highest).double().mean()):.0%}".replace("%", " %")
    law = {UNIFORM: "uniform", KARRAS: "karras"}[LAWS[name]]
    page = (Path(__file__).parents[2] / "docs" / "objectives.md").read_text()
    (said,) = (line for line in page.split("\n\n") if "99.9 % quantile" in line)
    assert re.search(rf"{share}[^)]*`{law}`[^)]*`{name}`", said), (share, said)
    assert f"σ = {float(highest):.1f}" in said


@pytest.mark.parametrize("name", LAWS)
def test_objective_brings_its_published_law_along_and_the_user_can_have_another(name):
    law = instantiate(composed(f"objective={name}").noise.generator)
    assert (law.u_min, law.u_max) == LAWS[name]
    u = torch.linspace(0, 0.999, 100, dtype=torch.float64)
    assert float(law.quantile(u).max()) < 80.01
    other = composed(f"objective={name}", "noise/generator=narrow").noise.generator
    assert other.mean == -2.5


@pytest.mark.parametrize("name", WITH_CRITIC)
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["+objective.critic.warmpu=3"], r"critic\.warmpu: Critic has no option 'warmpu'; did you mean 'warmup'"),
        (["objective.critic.when=never"], r"objective\.critic\.when=never: must be one of teacher, always"),
        (["objective.critic.warmup=soon"], r"objective\.critic\.warmup=soon: must be an int"),
        (["objective.critic.generator_weight=null"], r"objective\.critic\.generator_weight=null: must be a number"),
    ],
    ids=["key", "choice", "type", "null"],
)  # fmt: skip
def test_mistyped_options_of_the_critic_are_refused_at_composition(name, words, message):
    with pytest.raises(UserError, match=message):
        checked(f"objective={name}", *words)


@pytest.mark.parametrize("name", ["f_distill", "uni_instruct"])
def test_unknown_divergence_is_refused_at_composition(name):
    with pytest.raises(UserError, match=r"objective\.divergence=foo: must be one of rkl, kl, js, sf, neyman"):
        checked(f"objective={name}", "objective.divergence=foo")


@pytest.mark.parametrize("objective", [FDistill, UniInstruct], ids=lambda o: o.__name__)
def test_every_weight_can_be_asked_for(objective):
    assert get_args(get_type_hints(objective.__init__)["divergence"]) == tuple(WEIGHTS)


@pytest.mark.parametrize("words", [["objective=dmd2"], ["objective=f_distill", "objective.divergence=rkl"]], ids=str)
def test_critic_can_be_left_out(words):
    cfg = composed(*words, "objective.critic=null")
    check.check(cfg, "backtrack")
    assert instantiate(cfg.objective).critic is None
