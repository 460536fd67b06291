"""Distances, the regression term of an objective, and the stage that trains on pairs alone."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from disback_cli.denoisers.gaussian_mixture import MixtureDenoiser
from disback_cli.denoisers.sampling import heun
from disback_cli.denoisers.teachers import Teacher
from disback_cli.distillation import pair_making
from disback_cli.distillation.costs import NetworkCosts
from disback_cli.distillation.distances import PixelDistance, PseudoHuber
from disback_cli.distillation.objectives.regression import Regression, per_sample
from disback_cli.distillation.pair_making import PairsRequest
from disback_cli.distillation.pairs import Pairs
from disback_cli.distillation.regressing import Regressing
from disback_cli.distillation.students import OneStepStudent
from disback_cli.runtime.checkpoint import CheckpointStore
from disback_cli.runtime.optimizers import AdamSettings

N = 256


def test_pixel_distance_is_the_mean_square_of_each_sample():
    made, wanted = torch.zeros(3, 1, 2, 2), torch.zeros(3, 1, 2, 2)
    wanted[1] = 0.5
    wanted[2, 0, 0, 0] = 2.0
    assert PixelDistance()(made, wanted).tolist() == [0.0, 0.25, 1.0]


def test_pseudo_huber_is_squared_for_small_differences_and_linear_for_large_ones():
    distance = PseudoHuber(c=0.1)
    for d, expected in [(0.0, 0.0), (1e-3, 1e-6 / 0.2), (100.0, 99.9), (0.1, 0.1 * (math.sqrt(2) - 1))]:
        found = distance(torch.full((1, 4), d, dtype=torch.float64), torch.zeros(1, 4, dtype=torch.float64))
        assert float(found) == pytest.approx(expected, rel=1e-3, abs=1e-12)
    x = torch.zeros(2, 4, requires_grad=True)
    distance(x, torch.zeros(2, 4)).sum().backward()
    assert torch.equal(x.grad, torch.zeros(2, 4)), "no infinite slope where a sample is met exactly"
    with pytest.raises(ValueError, match=r"distance.c=0"):
        PseudoHuber(c=0)


def test_the_term_is_the_weighted_distance_of_each_sample_and_moves_only_what_was_made():
    made = torch.tensor([[1.0, 1.0], [0.0, 2.0]], requires_grad=True)
    wanted = torch.zeros(2, 2)
    found = Regression(weight=0.25, distance=PixelDistance()).loss(made, wanted)
    assert found.tolist() == [0.25, 0.5]
    found.sum().backward()
    assert torch.equal(made.grad, 0.25 * made.detach()), "d/dx mean (x - y)^2 = 2 (x - y) / elements"


def test_wrong_values_of_the_term_are_refused():
    with pytest.raises(ValueError, match="objective.regression.weight=-1"):
        Regression(weight=-1, distance=PixelDistance())
    with pytest.raises(ValueError, match="objective.regression.when='never'"):
        Regression(weight=1, distance=PixelDistance(), when="never")


def test_a_users_own_distance_must_give_one_number_a_sample():
    lpips_like = lambda made, wanted: (made - wanted).abs().mean((1, 2, 3), keepdim=True)  # noqa: E731
    made = torch.ones(3, 1, 2, 2)
    assert per_sample(lpips_like, made, 0 * made).tolist() == [1.0, 1.0, 1.0]
    with pytest.raises(ValueError, match=r"shape \(\) for 3 samples"):
        per_sample(lambda made, wanted: (made - wanted).mean(), made, 0 * made)


# --- the stage


def ring() -> MixtureDenoiser:
    return MixtureDenoiser("ring", hidden=16, depth=2)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> Pairs:
    folder, denoiser = tmp_path_factory.mktemp("pairs"), ring().requires_grad_(False)
    of = Teacher("ring", denoiser, {}, "hash", {"steps": 6, "sigma_max": 10.0})
    wanted = PairsRequest.of(of, seed=0, n=N, dtype="fp32", shard_size=N)
    list(pair_making.make_shard(folder, wanted, 0, of, N, torch.device("cpu")))
    pair_making.finish(folder, wanted, {"teacher": of.identity(), "shape": [2], "classes": 0})
    return Pairs(folder)


def regressing(pairs: Pairs, **settings: Any) -> Regressing:
    defaults: dict[str, Any] = {
        "ema_halflife": 0.0, "ema_rampup": 0.0, "batch_size": 32, "iterations": 6, "seed": 0,
        "optimizer": AdamSettings(), "lr": {"student": 3e-3},
    }  # fmt: skip
    student = OneStepStudent(ring().trainable_(), sigma_init=2.5)
    return Regressing(student=student, pairs=pairs, distance=PixelDistance(), **(defaults | settings))


def test_the_loss_is_the_distance_on_the_positions_of_the_iteration(pairs):
    stage = regressing(pairs)
    stage.iteration = 4
    losses, _ = stage.losses(4)
    z, _, x = pairs.batch(0, 4 * 32, 32, torch.device("cpu"))
    assert losses["regression_loss"] == PixelDistance()(stage.student(z), x).mean()


def test_the_student_learns_what_the_sampler_makes_of_a_latent(pairs, fit):
    stage = regressing(pairs, iterations=150, lr={"student": 1e-2})
    z, _, x = pairs.at(torch.arange(N), torch.device("cpu"))
    with torch.no_grad():
        before = float(PixelDistance()(stage.student(z), x).mean())
    fit(stage)
    fresh = torch.randn(N, 2, generator=torch.Generator().manual_seed(9))
    aim = heun(ring(), fresh, steps=6, sigma_max=10.0).float()
    with torch.no_grad():
        assert float(PixelDistance()(stage.ema.network(fresh), aim).mean()) < 0.3 * before
    assert stage.network_passes == 150 * 32 * 3


def test_the_cost_is_that_of_the_students_own_network(pairs):
    assert regressing(pairs, costs=NetworkCosts(student=0.25, student_backward=0.5)).passes_per_sample == 0.75


def test_a_resumed_regression_ends_in_the_same_bits(pairs, fit, save_at, tmp_path):
    whole = regressing(pairs)
    fit(whole, save_at(tmp_path, [3]))
    resumed = regressing(pairs)
    fit(resumed, checkpoint=CheckpointStore(tmp_path, keep=9).path_for(3))
    assert resumed.iteration == 6
    states = whole.state_dict(), resumed.state_dict()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
