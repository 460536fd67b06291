"""Every objective in stage 2: it runs, resumes to the bit, counts its cost, and keeps its gradients apart."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp
from objective_stages import OBJECTIVES, SCHEDULES, WITH_CRITIC, backtracking

from disback_cli.distillation.objectives.dmd2 import ImprovedDistributionMatching
from disback_cli.runtime.launch import Launch
from disback_cli.runtime.optimizers import AdamSettings


def bits(module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def same(first, second) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_trains_and_resumes_to_the_bit(name, schedule, fit, save_at, tmp_path):
    """The checkpoint lies before the path's last switch, hence before the critic acts."""
    whole, saver = backtracking(OBJECTIVES[name](), schedule=schedule), save_at(tmp_path, [1])
    before = {part: bits(network) for part, network in whole.trained().items()}
    fit(whole, saver)
    assert all(not same(bits(network), before[part]) for part, network in whole.trained().items())
    resumed = backtracking(OBJECTIVES[name](), schedule=schedule)
    fit(resumed, checkpoint=saver.store.newest_whole())
    assert same(bits(resumed), bits(whole))
    assert resumed.network_passes == whole.network_passes
    assert resumed.read_scalars() == whole.read_scalars()


@pytest.mark.parametrize("name", WITH_CRITIC)
def test_terms_on_real_data_wait_for_the_teacher(name, fit, watch):
    stage = backtracking(OBJECTIVES[name](), schedule="path", iterations=4)
    head, acted, costs = bits(stage.critic), [], []

    def look(stage):
        scalars = stage.read_scalars()
        acted.append("critic_loss" in scalars)
        assert ("adversarial_loss" in scalars) == (acted[-1] and stage.objective.critic.generator_weight > 0)
        assert same(bits(stage.critic), head) != acted[-1], "the head stands still until the critic acts"
        costs.append(stage.network_passes)

    fit(stage, watch(look))
    assert [target for _, target in stage.switches] == [2, 1, 0]
    assert acted == [False, False, True, True]
    each = [costs[0], *(after - before for before, after in zip(costs, costs[1:], strict=False))]
    assert each[0] == each[1] < each[2] == each[3]


@pytest.mark.parametrize("name", WITH_CRITIC)
def test_an_option_lets_them_act_from_the_start(name, fit):
    stage = backtracking(OBJECTIVES[name](when="always"), schedule="path", iterations=1)
    head = bits(stage.critic)
    fit(stage)
    assert stage.switches[0][1] == 2
    assert "critic_loss" in stage.read_scalars()
    assert not same(bits(stage.critic), head)


def test_warm_up_is_counted_from_the_start_of_the_run(fit, watch):
    stage, acted = backtracking(OBJECTIVES["dmd2"](warmup=2), iterations=4), []
    fit(stage, watch(lambda stage: acted.append("critic_loss" in stage.read_scalars())))
    assert acted == [False, False, True, True]


@pytest.mark.parametrize("name", WITH_CRITIC)
def test_before_the_critic_acts_the_student_is_that_of_the_objective_without_its_terms(name, fit):
    waiting = backtracking(OBJECTIVES[name](warmup=10), iterations=3)
    twin = backtracking(OBJECTIVES[name](warmup=10, generator_weight=7.0, critic_weight=5.0), iterations=3)
    acting = backtracking(OBJECTIVES[name](), iterations=3)
    for stage in (waiting, twin, acting):
        fit(stage)
    assert same(bits(waiting.student), bits(twin.student))
    assert not same(bits(waiting.student), bits(acting.student))


def test_dmd2_without_a_critic_needs_no_data_and_no_head(fit):
    stage = backtracking(ImprovedDistributionMatching(critic=None), iterations=2)
    assert list(stage.trained()) == ["student", "fake"]
    fit(stage)
    assert "critic_loss" not in stage.read_scalars()


# Gradients --------------------------------------------------------------------------------------------------------


def gradients(stage, loss: torch.Tensor) -> dict[str, set[str]]:
    """Which parameters of each trained network a loss moves."""
    reached = {}
    for name, network in stage.trained().items():
        parameters = dict(network.named_parameters())
        found = torch.autograd.grad(loss, list(parameters.values()), retain_graph=True, allow_unused=True)
        reached[name] = {
            key for key, g in zip(parameters, found, strict=True) if g is not None and bool((g != 0).any())
        }
    return reached


@pytest.fixture(params=WITH_CRITIC)
def under_way(request, fit):
    """A stage whose head has learnt something, and the losses of its next iteration."""
    stage = backtracking(OBJECTIVES[request.param](generator_weight=0.1), iterations=3)
    fit(stage)
    losses, _ = stage.losses(3)
    return stage, losses


def test_the_generators_losses_move_the_student_alone(under_way):
    stage, losses = under_way
    for name in ("generator_loss", "adversarial_loss"):
        reached = gradients(stage, losses[name])
        assert reached["student"] and not reached["fake"] and not reached["critic"]
    assert not any(p.requires_grad or p.grad is not None for p in stage.target.parameters())


def test_the_critics_loss_moves_the_head_and_the_encoder_below_it(under_way):
    stage, losses = under_way
    reached = gradients(stage, losses["critic_loss"])
    assert not reached["student"]
    assert reached["critic"] == {name for name, _ in stage.critic.named_parameters()}
    encoder = ("correction.input.", "correction.hidden.")
    assert reached["fake"] and all(name.startswith(encoder) for name in reached["fake"])


def test_the_fake_scores_loss_moves_the_fake_score_alone(under_way):
    stage, losses = under_way
    reached = gradients(stage, losses["fake_loss"])
    assert reached["fake"] and not reached["student"] and not reached["critic"]


def test_adversarial_gradient_makes_samples_look_more_real(under_way):
    """A step of the student against the adversarial loss alone lowers it."""
    stage, losses = under_way
    parameters = list(stage.student.parameters())
    slopes = torch.autograd.grad(losses["adversarial_loss"], parameters)
    with torch.no_grad():
        for parameter, slope in zip(parameters, slopes, strict=True):
            parameter.sub_(1e-3 * slope)
    after = stage.losses(3)[0]["adversarial_loss"]
    assert float(after.detach()) < float(losses["adversarial_loss"].detach())


# Several processes ------------------------------------------------------------------------------------------------


def trained_weights(name: str, settings: dict[str, Any], processes: int = 1) -> dict[str, torch.Tensor]:
    """The weights of all networks after three iterations, on one process or as one of several."""
    # with an eps this large, Adam's steps are smooth in the gradients, which differ by rounding
    stage = backtracking(OBJECTIVES[name](), iterations=3, optimizer=AdamSettings(eps=0.01), **settings)
    strategy = "ddp" if processes > 1 else "single"
    Launch(accelerator="cpu", devices=processes, strategy=strategy, threads=1).trainer([], []).fit(stage)
    return bits(stage)


def worker(rank: int, folder: Path, port: int, jobs: list[tuple[str, dict[str, Any]]]) -> None:
    """One of two processes that a launcher has started."""
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "0",
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "test",
    }  # fmt: skip
    for number, (name, settings) in enumerate(jobs):
        torch.save(trained_weights(name, settings, processes=2), folder / f"{number}.{rank}.pt")


def agree(folder: Path, jobs: list[tuple[str, dict[str, Any]]]) -> None:
    """Two processes under plain data-parallel training do what one does."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mp.start_processes(worker, args=(folder, port, jobs), nprocs=2, start_method="spawn")
    for number, (name, settings) in enumerate(jobs):
        alone = trained_weights(name, settings)
        first, second = (torch.load(folder / f"{number}.{rank}.pt", weights_only=True) for rank in range(2))
        assert same(first, second), name
        for key, tensor in alone.items():
            assert torch.allclose(first[key], tensor, rtol=1e-3, atol=2e-5), f"{name}: {key}"
        start = bits(backtracking(OBJECTIVES[name](), **settings))
        assert not all(torch.equal(tensor, start[key]) for key, tensor in alone.items())


def test_two_processes_train_dmd2_with_its_critic_as_one_does(tmp_path):
    agree(tmp_path, [("dmd2", {"fake_updates": 3, "schedule": "path"})])


@pytest.mark.slow
def test_two_processes_train_every_objective_as_one_does(tmp_path):
    agree(tmp_path, [(name, {"schedule": schedule}) for name in OBJECTIVES for schedule in SCHEDULES])
