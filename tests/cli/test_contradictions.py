"""Options that are right one by one and cannot work: refused before torch is imported."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import pytest
from omegaconf import OmegaConf

from disback_cli.configuration import check
from disback_cli.errors import UserError

FEW_STEP = "disback_cli.distillation.students.factories.few_step"
CRITIC = {"_target_": "disback_cli.distillation.objectives.critic.Critic"}
TEACHER = {"name": "ring"}


def checked(**nodes: Any) -> None:
    check.check(OmegaConf.create({"teacher": TEACHER, **nodes}), "none of the verbs")


@pytest.mark.parametrize(
    ("sigmas", "message"),
    [
        ([2.0], "has 2 to 4 noise levels, this has 1; student=one_step student.sigma_init=2 is the student of one"),
        ([2, 12.0, 80.0], "must fall strictly .* type student.sigmas=[80,12,2]"),
        ([12.0, 12.0], "must fall strictly .* give levels that differ"),
    ],
)
def test_levels_that_no_network_can_have(sigmas: list[float], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message).replace(r"\.\*", ".*") + "|" + re.escape(message)):
        checked(student={"_target_": FEW_STEP, "sigmas": sigmas})
    checked(student={"_target_": "mine.Student", "sigmas": sigmas})
    checked(student={"_target_": FEW_STEP, "sigmas": [80, 12.0]})


def test_a_critic_without_data_is_told_what_to_name() -> None:
    for nodes in ({}, {"dataset": None}):
        with pytest.raises(UserError, match="the objective has a critic, which needs real data: .* teacher ring .*"):
            checked(objective={"_target_": "mine.Objective", "critic": CRITIC}, **nodes)
    checked(objective={"_target_": "mine.Objective", "critic": CRITIC}, dataset={"_target_": "mine.data"})
    checked(objective={"_target_": "mine.Objective", "critic": None}, dataset=None)


def test_both_are_judged_without_torch() -> None:
    program = "import sys; import disback_cli.configuration.contradictions; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)
