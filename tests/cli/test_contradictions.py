"""Options that are right one by one and cannot work together: refused before torch is imported."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from disback_cli.configuration.contradictions import check_together
from disback_cli.errors import UserError

FEW_STEP = "disback_cli.distillation.students.factories.few_step"
TEACHER = {"name": "ring"}


@pytest.mark.parametrize(
    ("sigmas", "message"),
    [
        ([2.0], "has 2 to 4 noise levels, this has 1; student=one_step student.sigma_init=2 is the student of one"),
        ([2, 12.0, 80.0], r"must fall strictly .* type student.sigmas=\[80,12,2\]"),
        ([12.0, 12.0], "must fall strictly .* give levels that differ$"),
    ],
)
def test_levels_that_no_network_can_have(sigmas: list[float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_together({"teacher": TEACHER, "student": {"_target_": FEW_STEP, "sigmas": sigmas}})
    check_together({"teacher": TEACHER, "student": {"_target_": "mine.student", "sigmas": sigmas}})
    check_together({"teacher": TEACHER, "student": {"_target_": FEW_STEP, "sigmas": [80, 12.0]}})


@pytest.mark.parametrize("data", [{}, {"dataset": None}])
def test_a_critic_without_data_is_told_what_to_name(data: dict[str, Any]) -> None:
    root = {"teacher": TEACHER, "objective": {"_target_": "mine.Objective", "critic": {"warmup": 0}}}
    with pytest.raises(UserError, match=r"a critic, which needs real data: .* teacher ring .*dataset=edm dataset.path"):
        check_together(root | data)
    check_together(root | {"dataset": {"_target_": "mine.data"}})
    check_together(root | data | {"objective": {"_target_": "mine.Objective", "critic": None}})
    check_together(root | data | {"objective": {"_target_": "mine.Objective"}})


def test_the_check_of_a_configuration_finds_them_without_torch() -> None:
    program = f"""
import sys
from omegaconf import OmegaConf
from disback_cli.configuration.check import check
from disback_cli.errors import UserError
try:
    check(OmegaConf.create({{"student": {{"_target_": {FEW_STEP!r}, "sigmas": [1.0, 2.0]}}}}), "a verb")
except UserError as error:
    assert "torch" not in sys.modules
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "type student.sigmas=[2,1]" in done.stdout, done.stderr
