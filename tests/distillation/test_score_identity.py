"""SiD, SiDA and Uni-Instruct against Fisher divergences of Gaussians.

Student x = mu + s z, target N(m, t^2), exact denoisers: the losses are polynomials of degree two in (z, n), so all sign
combinations of (z, n) give the expectation without sampling error (see test_objectives).
"""

import itertools

import pytest
import torch

from disback_cli.distillation.objectives.critic import Critic
from disback_cli.distillation.objectives.diff_instruct import DiffInstruct
from disback_cli.distillation.objectives.sid import ScoreIdentity, identity_loss, omega
from disback_cli.distillation.objectives.sida import AdversarialScoreIdentity
from disback_cli.distillation.objectives.uni_instruct import UniInstruct

ALPHAS = [0.0, 0.5, 1.0, 1.2]
SIGMAS = [0.05, 0.6, 20.0]
DOUBLE = torch.float64


class Gaussians:
    """A student with parameters that carry gradients, its exact fake score held fixed, and a target."""

    def __init__(self, dim: int, sigma: float, same: bool = False) -> None:
        self.dim, self.sigma = dim, torch.tensor(sigma, dtype=DOUBLE)
        self.mu = torch.linspace(0.3, -0.8, dim, dtype=DOUBLE).requires_grad_(True)
        self.s = torch.tensor(0.7, dtype=DOUBLE, requires_grad=True)
        self.mu_0, self.s_0 = self.mu.detach().clone(), self.s.detach().clone()
        self.m = self.mu_0.clone() if same else torch.linspace(1.1, 0.4, dim, dtype=DOUBLE)
        self.t = self.s_0.clone() if same else torch.tensor(0.4, dtype=DOUBLE)
        design = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=2 * dim)), dtype=DOUBLE)
        self.z, self.n = design[:, :dim], design[:, dim:]

    def samples(self) -> tuple[torch.Tensor, ...]:
        """x, noisy, sigma, fake, target as an objective takes them."""
        x = self.mu + self.s * self.z
        noisy = x + self.sigma * self.n
        fake = self.denoised(noisy, self.mu_0, self.s_0)
        return x, noisy, self.sigma.expand(len(x), 1), fake, self.denoised(noisy, self.m, self.t)

    def denoised(self, noisy, mean, std):
        return mean + std**2 / (std**2 + self.sigma**2) * (noisy - mean)

    def gradient(self, value: torch.Tensor) -> list[torch.Tensor]:
        return list(torch.autograd.grad(value, (self.mu, self.s)))

    def fisher(self, law: tuple, score: tuple) -> torch.Tensor:
        """sigma^4 E |score - score of the target|^2 over noisy samples of one Gaussian, scored by another."""
        spread, wide = law[1] ** 2 + self.sigma**2, score[1] ** 2 + self.sigma**2
        aim = self.t**2 + self.sigma**2
        slope = 1 / aim - 1 / wide
        offset = score[0] / wide - self.m / aim
        return self.sigma**4 * ((slope * law[0] + offset).square().sum() + self.dim * slope**2 * spread)


def near(got, expected) -> None:
    torch.testing.assert_close(got, list(expected), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("dim", [1, 2])
@pytest.mark.parametrize("sigma", SIGMAS)
def test_half_alpha_gives_half_the_gradient_of_the_fisher_divergence(sigma, dim):
    setting = Gaussians(dim, sigma)
    x, _, _, fake, target = setting.samples()
    moving = (setting.mu, setting.s)
    expected = setting.gradient(setting.fisher(moving, moving) / 2)
    near(setting.gradient(identity_loss(x, fake, target, 0.5).mean()), expected)
    assert all(bool((g.abs() > 1e-6).all()) for g in expected)


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("sigma", SIGMAS)
def test_alpha_weighs_the_part_of_the_gradient_in_which_the_law_of_the_samples_moves(sigma, alpha):
    setting = Gaussians(2, sigma)
    x, _, _, fake, target = setting.samples()
    held, moving = (setting.mu_0, setting.s_0), (setting.mu, setting.s)
    score_moves = setting.gradient(setting.fisher(held, moving) / 2)
    law_moves = setting.gradient(setting.fisher(moving, held))
    expected = [a + (1 - alpha) * b for a, b in zip(score_moves, law_moves, strict=True)]
    near(setting.gradient(identity_loss(x, fake, target, alpha).mean()), expected)


@pytest.mark.parametrize("alpha", [1.0, 1.2])
@pytest.mark.parametrize("sigma", SIGMAS)
def test_gradient_of_sid_is_the_finite_difference_of_its_expectation(sigma, alpha):
    """With omega held where it is, as the loss does; a central difference of a quadratic is exact."""
    objective = ScoreIdentity(alpha=alpha)
    setting = Gaussians(2, sigma)
    x, noisy, level, fake, target = setting.samples()
    got = setting.gradient(objective.loss(x, noisy, level, fake, target).mean())
    fixed = omega(x, target, 1e-5)

    def expectation() -> float:
        with torch.no_grad():
            x, _, _, fake, target = setting.samples()
            return float((100 * identity_loss(x, fake, target, alpha) / fixed).mean())

    for parameter, gradient in zip((setting.mu, setting.s), got, strict=True):
        for index in range(parameter.numel()):
            values = []
            for step in (1e-3, -1e-3):
                parameter.data.view(-1)[index] += step
                values.append(expectation())
                parameter.data.view(-1)[index] -= step
            assert (values[0] - values[1]) / 2e-3 == pytest.approx(float(gradient.view(-1)[index]), rel=1e-6)


@pytest.mark.parametrize("alpha", [1.0, 1.2])
@pytest.mark.parametrize("sigma", SIGMAS)
def test_descending_the_identity_moves_the_mean_to_the_target(sigma, alpha):
    setting = Gaussians(2, sigma)
    x, _, _, fake, target = setting.samples()
    mean, _ = setting.gradient(identity_loss(x, fake, target, alpha).mean())
    assert bool((mean < 0).all()), "the target's mean is larger in both coordinates"


@pytest.mark.parametrize(
    "objective",
    [ScoreIdentity(), ScoreIdentity(alpha=1.0), UniInstruct(critic=None, divergence="rkl")],
    ids=["sid", "sid alpha=1", "uni_instruct"],
)
@pytest.mark.parametrize("sigma", [0.6, 20.0])
def test_descending_the_loss_moves_the_mean_to_the_target(sigma, objective):
    """Not at the smallest level, where omega, a sample's own, outweighs a gradient that is a hundred times smaller."""
    setting = Gaussians(2, sigma)
    mean, _ = setting.gradient(objective.loss(*setting.samples()).mean())
    assert bool((mean < 0).all())


@pytest.mark.parametrize(
    "objective", [ScoreIdentity(), UniInstruct(critic=None, divergence="rkl")], ids=lambda o: type(o).__name__
)
def test_gradient_vanishes_when_the_student_has_arrived(objective):
    arrived = Gaussians(2, 0.6, same=True)
    gradients = arrived.gradient(objective.loss(*arrived.samples()).mean())
    assert all(float(g.abs().max()) < 1e-12 for g in gradients)


def images(seed: int = 0) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    x, noise, fake, target = torch.randn(4, 3, 2, 4, 4, generator=generator, dtype=DOUBLE)
    sigma = (0.1 + torch.rand(3, generator=generator, dtype=DOUBLE)).reshape(-1, 1, 1, 1)
    return x, x + sigma * noise, sigma, fake, target


def test_loss_of_a_sample_is_the_tables_expression_summed_over_components():
    x, noisy, sigma, fake, target = images()
    loss = ScoreIdentity(alpha=1.2).loss(x, noisy, sigma, fake, target)
    assert loss.shape == (3,)
    for i in range(3):
        apart = (target - fake)[i].flatten()
        mean = (x - target)[i].abs().sum() / 32
        expected = 100 / mean * (apart @ ((target - x)[i].flatten() - 1.2 * apart))
        torch.testing.assert_close(loss[i], expected)


def test_omega_is_held_fixed_and_has_a_floor():
    x, noisy, sigma, fake, target = images()
    x.requires_grad_(True)
    target = x.detach().clone().requires_grad_(True)
    assert not omega(x, target, 0.01).requires_grad
    torch.testing.assert_close(omega(x, target, 0.01), torch.full((3,), 0.01, dtype=DOUBLE))
    loss = ScoreIdentity(alpha=0.0, floor=0.01).loss(x, noisy, sigma, fake, target)
    (gradient,) = torch.autograd.grad(loss.sum(), x)
    torch.testing.assert_close(gradient, 100 / 0.01 * (fake - target).detach())


def test_gradient_reaches_sample_fake_score_and_target():
    x, noisy, sigma, fake, target = (tensor.requires_grad_(True) for tensor in images())
    ScoreIdentity().loss(x, noisy, sigma, fake, target).mean().backward()
    assert all(tensor.grad is not None and tensor.grad.abs().sum() > 0 for tensor in (x, fake, target))
    assert ScoreIdentity.through_denoisers and UniInstruct.through_denoisers


def test_sida_is_sid_until_the_critic_acts_and_a_part_of_it_from_then_on():
    arguments = images()
    objective = AdversarialScoreIdentity(critic=Critic(generator_weight=0.5), weight=0.5)
    plain = ScoreIdentity(alpha=1.0).loss(*arguments)
    torch.testing.assert_close(objective.loss(*arguments), plain, rtol=0, atol=0)
    torch.testing.assert_close(objective.loss(*arguments, logits=torch.zeros(3)), 0.5 * plain)


def test_uni_instruct_with_reverse_kl_and_no_diff_instruct_is_sid():
    arguments = images()
    logits = torch.tensor([1.0, -2.0, 0.3])
    objective = UniInstruct(critic=None, divergence="rkl", diff_instruct=0.0)
    expected = ScoreIdentity().loss(*arguments)
    assert torch.equal(objective.loss(*arguments), expected)
    assert torch.equal(objective.loss(*arguments, logits=logits), expected)


def test_uni_instructs_gradient_is_the_weighted_sum_of_the_two():
    def gradient(objective):
        setting = Gaussians(2, 0.6)
        return setting.gradient(objective.loss(*setting.samples()).mean())

    both = gradient(UniInstruct(critic=None, divergence="rkl", diff_instruct=0.7, sid=0.3))
    apart = zip(gradient(DiffInstruct()), gradient(ScoreIdentity()), strict=True)
    torch.testing.assert_close(both, [0.7 * first + 0.3 * second for first, second in apart])


def test_uni_instruct_weighs_each_sample_by_its_ratio():
    arguments = images()
    same_bin = (*arguments[:2], torch.full_like(arguments[2], 0.5), *arguments[3:])
    logits = torch.tensor([0.0, 1.0, -1.0], dtype=DOUBLE)
    objective = UniInstruct(critic=Critic(), divergence="kl")
    weight = logits.exp() / logits.exp().mean()
    torch.testing.assert_close(objective.loss(*same_bin, logits=logits), weight * objective.loss(*same_bin))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ScoreIdentity(floor=0.0), r"objective\.floor must be positive"),
        (lambda: AdversarialScoreIdentity(critic=None), r"type objective=sid"),
        (lambda: AdversarialScoreIdentity(critic=Critic(), weight=-1.0), r"objective\.weight=-1\.0: need 0 or more"),
        (lambda: UniInstruct(critic=None, divergence="kl"), r"objective\.divergence=rkl"),
        (lambda: UniInstruct(critic=Critic(), divergence="chi"), r"valid are rkl, kl, js, sf, neyman"),
        (lambda: UniInstruct(critic=Critic(), diff_instruct=0.0, sid=0.0), r"not both 0"),
    ],
)
def test_what_cannot_work_is_refused_with_what_to_type(build, message):
    with pytest.raises(ValueError, match=message):
        build()
