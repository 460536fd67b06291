"""What stage 2 refuses: a critic that does nothing, and to go on with other things than the run was started with."""

from types import SimpleNamespace

import pytest
import torch

from disback_cli.distillation.objectives.critic import Critic
from disback_cli.distillation.objectives.dmd2 import ImprovedDistributionMatching
from disback_cli.distillation.objectives.f_distill import FDistill
from disback_cli.distillation.schedules import EndpointSchedule, PathSchedule
from disback_cli.errors import UserError
from disback_cli.verbs import backtrack_stage


@pytest.fixture
def require(monkeypatch):
    monkeypatch.setattr(backtrack_stage, "_chosen", lambda group: "some")

    def check(objective, schedule=None, iterations=40, last=3):
        cfg = SimpleNamespace(iterations=iterations)
        backtrack_stage._require_useful_critic(cfg, schedule or EndpointSchedule(), objective, last)

    return check


def test_a_critic_that_begins_after_the_end_is_refused(require):
    late = ImprovedDistributionMatching(critic=Critic(warmup=40))
    with pytest.raises(UserError, match=r"from iteration 40 of 40 only.*lower objective\.critic\.warmup"):
        require(late)
    require(late, iterations=41)


def test_a_critic_waits_for_the_teacher_unless_told_otherwise(require):
    with pytest.raises(UserError, match=r"from iteration 40 of 40 only.*lower schedule\.interval"):
        require(ImprovedDistributionMatching(critic=Critic()), PathSchedule(interval=20))
    require(ImprovedDistributionMatching(critic=Critic(when="always")), PathSchedule(interval=20))


def test_a_critic_that_nothing_comes_of_is_refused(require):
    idle = Critic(generator_weight=0.0)
    for objective in (ImprovedDistributionMatching(critic=idle), FDistill(critic=idle, divergence="rkl")):
        with pytest.raises(UserError, match="trained for nothing"):
            require(objective)
    require(FDistill(critic=idle, divergence="js"))
    require(ImprovedDistributionMatching(critic=None))


def test_a_run_does_not_go_on_with_another_path(make_backtracking, fit, save_at, tmp_path):
    saver = save_at(tmp_path, [2])
    fit(make_backtracking(iterations=3, made_of={"the path": "a", "the teacher": "t"}), saver)
    checkpoint = saver.store.newest_whole()
    fit(make_backtracking(iterations=3, made_of={"the path": "a", "the teacher": "t"}), checkpoint=checkpoint)
    with pytest.raises(UserError, match="the path changed since this run was started"):
        fit(make_backtracking(iterations=3, made_of={"the path": "b", "the teacher": "t"}), checkpoint=checkpoint)


def test_a_term_that_begins_inside_a_log_interval_is_a_mean_over_its_own_iterations(make_backtracking):
    stage = make_backtracking()
    for iteration in range(10):
        stage._accumulate({"loss": torch.tensor(2.0), **({"late": torch.tensor(1.0)} if iteration > 7 else {})})
    assert stage.read_scalars() == {"loss": 2.0, "late": 1.0}
    assert stage.read_scalars() == {}
