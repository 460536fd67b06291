"""Weights of f-divergences: closed forms, normalisation, and f-distill's loss."""

import math

import pytest
import torch

from disback_cli.distillation.objectives.critic import Critic
from disback_cli.distillation.objectives.density_ratio import (
    WEIGHTS,
    over_mean_of_bin,
    ramp_bin,
    ratio,
    ratio_weights,
)
from disback_cli.distillation.objectives.dmd import DistributionMatching
from disback_cli.distillation.objectives.f_distill import FDistill
from disback_cli.distillation.sigma_laws import KarrasUniform

DOUBLE = torch.float64

# f of D_f = E_student[f(r)], r = p_target / p_student. Terms linear in r - 1 do not change the divergence. The factors
# 1/2 and 4 are those that h leaves out.
DIVERGENCES = {
    "rkl": lambda r: -r.log(),
    "kl": lambda r: r * r.log(),
    "js": lambda r: r * r.log() - (r + 1) * ((r + 1) / 2).log(),
    "sf": lambda r: (r + 1) * ((r + 1) / (2 * r)).log(),
    "neyman": lambda r: (1 - r).square() / r / 2,
    "hellinger": lambda r: 4 * (1 - r.sqrt()),
    "jeffreys": lambda r: (r - 1) * r.log(),
}


def test_every_divergence_has_a_weight_and_the_other_way_round():
    assert WEIGHTS.keys() == DIVERGENCES.keys()
    assert len(WEIGHTS) == 7


@pytest.mark.parametrize("name", DIVERGENCES)
def test_weight_is_r_squared_times_the_second_derivative_of_f(name):
    r = torch.logspace(-1, math.log10(20.0), 41, dtype=DOUBLE, requires_grad=True)
    f = DIVERGENCES[name]
    assert float(f(torch.ones((), dtype=DOUBLE))) == pytest.approx(0.0, abs=1e-15)
    (first,) = torch.autograd.grad(f(r).sum(), r, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), r)
    torch.testing.assert_close(WEIGHTS[name](r.detach()), r.detach() ** 2 * second)


@pytest.mark.parametrize("name", DIVERGENCES)
def test_weight_turns_the_reverse_kl_gradient_into_that_of_the_divergence(name):
    """For Gaussians on a line: d/d mean of E_p[f(q/p)] is E_p[h(r) (score_p - score_q)], by quadrature."""
    y = torch.linspace(-12, 12, 20001, dtype=DOUBLE)
    mean = torch.tensor(0.2, dtype=DOUBLE, requires_grad=True)

    def log_normal(centre, std):
        return -((y - centre) ** 2) / (2 * std**2) - math.log(std * math.sqrt(2 * math.pi))

    student, target = log_normal(mean, 0.8), log_normal(0.5, 0.8)
    step = y[1] - y[0]
    (expected,) = torch.autograd.grad((student.exp() * DIVERGENCES[name]((target - student).exp())).sum() * step, mean)
    with torch.no_grad():
        r = (target - student).exp()
        scores = -(y - mean) / 0.8**2 + (y - 0.5) / 0.8**2
        got = (student.exp() * WEIGHTS[name](r) * scores).sum() * step
    assert float(got) == pytest.approx(float(expected), rel=1e-5)
    assert float(expected) < 0, "the target lies to the right"


def test_ratio_is_the_exponential_of_the_logit_within_its_bounds():
    logits = torch.tensor([-1000.0, -10.0, 0.0, 1.0, 2.5, 10.0, 1000.0])
    torch.testing.assert_close(ratio(logits), torch.tensor([0.1, 0.1, 1.0, math.e, math.exp(2.5), 20.0, 20.0]))


@pytest.mark.parametrize("bins", [1, 10])
def test_bins_are_equal_parts_of_the_ramp(bins):
    u = (torch.arange(1000, dtype=DOUBLE) + 0.5) / 1000
    sigma = KarrasUniform(u_min=0.0, u_max=1.0).quantile(u)
    index = ramp_bin(sigma, bins)
    assert torch.equal(index, (u * bins).floor().long())
    assert torch.equal(index.bincount(), torch.full((bins,), 1000 // bins))
    assert ramp_bin(torch.tensor([1e5, 80.0, 0.002, 1e-9]), 10).tolist() == [0, 0, 9, 9]


def test_values_over_the_mean_of_their_bin_have_mean_one_in_each_bin():
    values = torch.tensor([1.0, 3.0, 5.0, 7.0, 2.0])
    index = torch.tensor([0, 0, 2, 2, 3])
    torch.testing.assert_close(over_mean_of_bin(values, index, 4), torch.tensor([0.5, 1.5, 5 / 6, 7 / 6, 1.0]))


def test_mean_of_a_bin_is_that_of_all_processes():
    """Two processes hold parts of a batch: ``agree`` is what they exchange."""
    values, index = torch.tensor([1.0, 3.0, 5.0, 7.0]), torch.tensor([0, 0, 0, 1])
    sums = []
    for rank in range(2):
        part = slice(2 * rank, 2 * rank + 2)
        over_mean_of_bin(values[part], index[part], 2, lambda own: sums.append(own.clone()) or own)
    shares = [
        over_mean_of_bin(values[part], index[part], 2, lambda _: (sums[0] + sums[1]) / 2)
        for part in (slice(0, 2), slice(2, 4))
    ]
    torch.testing.assert_close(torch.cat(shares), over_mean_of_bin(values, index, 2))


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_have_mean_one_and_follow_the_ratio_within_a_bin_only(name):
    generator = torch.Generator().manual_seed(0)
    logits = 0.5 * torch.randn(64, generator=generator, dtype=DOUBLE)
    sigma = torch.cat([torch.full((32,), 60.0, dtype=DOUBLE), torch.full((32,), 0.01, dtype=DOUBLE)])
    weights = ratio_weights(logits, sigma, name)
    assert float(weights.mean()) == pytest.approx(1.0)
    shifted = logits + torch.cat([torch.full((32,), 0.5, dtype=DOUBLE), torch.zeros(32, dtype=DOUBLE)])
    inside = ratio(shifted).sub(ratio(shifted).clamp(0.11, 19.9)).abs() < 1e-9
    assert bool(inside.all()), "no ratio is at its bounds here"
    torch.testing.assert_close(ratio_weights(shifted, sigma, name), weights)


def arguments(batch: int = 6) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    x, noise, fake, target = torch.randn(4, batch, 1, 3, 3, generator=generator, dtype=DOUBLE)
    sigma = torch.full((batch, 1, 1, 1), 0.5, dtype=DOUBLE)
    return x.requires_grad_(True), x.detach() + sigma * noise, sigma, fake, target


LOGITS = torch.tensor([0.0, 1.0, -1.0, 2.0, -2.0, 0.5], dtype=DOUBLE)


def test_reverse_kl_is_dmd_to_the_bit_and_so_is_every_divergence_before_the_critic_acts():
    dmd = DistributionMatching().loss(*arguments())
    assert torch.equal(FDistill(critic=Critic(), divergence="rkl").loss(*arguments(), logits=LOGITS), dmd)
    for name in WEIGHTS:
        assert torch.equal(FDistill(critic=Critic(), divergence=name).loss(*arguments()), dmd)


def test_loss_is_dmds_times_the_weight_of_each_sample():
    dmd = DistributionMatching().loss(*arguments())
    r = LOGITS.exp() / LOGITS.exp().mean()
    h = r / (1 + r)
    got = FDistill(critic=Critic(), divergence="js").loss(*arguments(), logits=LOGITS)
    torch.testing.assert_close(got, dmd * h / h.mean())


def test_logits_get_no_gradient():
    logits = LOGITS.clone().requires_grad_(True)
    loss = FDistill(critic=Critic(), divergence="kl").loss(*arguments(), logits=logits)
    loss.sum().backward()
    assert logits.grad is None


@pytest.mark.parametrize("divergence", ["kl", "js"])
def test_a_ratio_without_a_critic_is_refused(divergence):
    with pytest.raises(ValueError, match=r"objective\.critic=null leaves it out: give objective\.divergence=rkl"):
        FDistill(critic=None, divergence=divergence)
