"""Objectives against exact KL gradients.

Student x = mu + s z, teacher N(m, t^2): both denoisers are linear, so the surrogate's gradient is a polynomial of
degree two in (z, n). All sign combinations of (z, n) have the moments of a normal law up to that degree: their
average IS the expectation, with no sampling error.
"""

import itertools

import pytest
import torch

from disback_cli.denoisers.gaussian_mixture import GaussianMixture
from disback_cli.distillation.objectives.diff_instruct import DiffInstruct
from disback_cli.distillation.objectives.dmd import DistributionMatching
from disback_cli.distillation.objectives.dmd2 import ImprovedDistributionMatching
from disback_cli.distillation.objectives.f_distill import FDistill
from disback_cli.distillation.objectives.vsd import VariationalScoreDistillation

OBJECTIVES = [
    DiffInstruct(), VariationalScoreDistillation(), DistributionMatching(), ImprovedDistributionMatching(),
    FDistill(critic=None, divergence="rkl"),
]  # fmt: skip
WEIGHTED = [(DiffInstruct(), lambda s: s**2), (VariationalScoreDistillation(), lambda s: s)]
SHAPES = [(6, 2), (4, 3, 5, 5)]


def name(objective) -> str:
    return type(objective).__name__ if not isinstance(objective, tuple) else type(objective[0]).__name__


def signs(count: int) -> torch.Tensor:
    return torch.tensor(list(itertools.product((-1.0, 1.0), repeat=count)), dtype=torch.float64)


def denoise(x, sigma, mean, variance):
    return mean + variance / (variance + sigma**2) * (x - mean)


class Setting:
    """A student, a teacher and the exact average over z and n at given noise levels."""

    def __init__(self, dim: int, sigmas: list[float], same: bool = False) -> None:
        self.mu = torch.linspace(0.3, -0.8, dim, dtype=torch.float64).requires_grad_(True)
        self.s = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
        self.m = self.mu.detach().clone() if same else torch.linspace(1.1, 0.4, dim, dtype=torch.float64)
        self.t = self.s.detach().clone() if same else torch.tensor(0.4, dtype=torch.float64)
        self.sigmas = torch.tensor(sigmas, dtype=torch.float64)
        design = signs(2 * dim).repeat(len(sigmas), 1)
        self.z, n = design[:, :dim], design[:, dim:]
        self.sigma = self.sigmas.repeat_interleave(len(design) // len(sigmas))[:, None]
        self.x = self.mu + self.s * self.z
        self.noisy = (self.x + self.sigma * n).detach()
        self.fake = denoise(self.noisy, self.sigma, self.mu, self.s**2).detach()
        self.target = denoise(self.noisy, self.sigma, self.m, self.t**2)

    def gradient(self, objective) -> list[torch.Tensor]:
        loss = objective.loss(self.x, self.noisy, self.sigma, self.fake, self.target)
        return list(torch.autograd.grad(loss.mean(), (self.mu, self.s)))

    def kl(self, sigma: torch.Tensor) -> torch.Tensor:
        """KL(N(mu, s^2 + sigma^2) || N(m, t^2 + sigma^2)) in dim dimensions."""
        p, q = self.s**2 + sigma**2, self.t**2 + sigma**2
        dim = len(self.mu)
        return 0.5 * (dim * (p / q - 1 + torch.log(q / p)) + (self.mu - self.m).square().sum() / q)


@pytest.mark.parametrize("dim", [1, 2])
@pytest.mark.parametrize("sigmas", [[0.05], [0.6], [20.0], [0.05, 0.6, 20.0]], ids=str)
@pytest.mark.parametrize("weighted", WEIGHTED, ids=name)
def test_gradient_is_that_of_the_weighted_kl_between_noised_gaussians(weighted, sigmas, dim):
    objective, weight = weighted
    setting = Setting(dim, sigmas)
    exact = torch.stack([weight(sigma) * setting.kl(sigma) for sigma in setting.sigmas]).mean()
    expected = torch.autograd.grad(exact, (setting.mu, setting.s))
    torch.testing.assert_close(setting.gradient(objective), list(expected), rtol=1e-9, atol=1e-12)
    assert all(bool((g.abs() > 1e-6).all()) for g in expected)


@pytest.mark.parametrize("weighted", WEIGHTED, ids=name)
def test_gradient_towards_a_mixture_agrees_with_quadrature_of_the_kl(weighted):
    """A nonlinear score: many samples against Gauss-Hermite quadrature of the one-dimensional KL."""
    objective, weight = weighted
    teacher = GaussianMixture(torch.tensor([[-0.8], [0.5]], dtype=torch.float64), [0.3, 0.4], [0.3, 0.7])
    mu = torch.tensor(0.2, dtype=torch.float64, requires_grad=True)
    s = torch.tensor(0.6, dtype=torch.float64, requires_grad=True)
    sigma = torch.tensor(0.5, dtype=torch.float64)

    step = torch.linspace(-9, 9, 2001, dtype=torch.float64)
    mass = torch.exp(-(step**2) / 2)
    mass = mass / mass.sum()
    scale = torch.sqrt(s**2 + sigma**2)
    ratio = -step**2 / 2 - scale.log() - 0.5 * torch.log(torch.tensor(2 * torch.pi)) \
        - teacher.log_prob((mu + scale * step)[:, None], sigma)  # fmt: skip
    expected = torch.autograd.grad(weight(sigma) * (mass * ratio).sum(), (mu, s))

    generator = torch.Generator().manual_seed(0)
    z, n = torch.randn(2, 100_000, 1, dtype=torch.float64, generator=generator)
    z, n = torch.cat([z, -z]), torch.cat([n, -n])
    x = mu + s * z
    level = sigma.expand(len(x), 1)
    noisy = (x + level * n).detach()
    fake = denoise(noisy, level, mu, s**2).detach()
    loss = objective.loss(x, noisy, level, fake, teacher.denoise(noisy, level))
    got = torch.autograd.grad(loss.mean(), (mu, s))
    torch.testing.assert_close(got, expected, rtol=0.02, atol=0.0)


@pytest.mark.parametrize("objective", OBJECTIVES, ids=name)
def test_gradient_vanishes_when_the_student_has_arrived(objective):
    arrived, before = Setting(2, [0.3, 2.0], same=True), Setting(2, [0.3, 2.0])
    for gradient, moving in zip(arrived.gradient(objective), before.gradient(objective), strict=True):
        assert float(gradient.abs().max()) < 1e-14
        assert float(moving.abs().max()) > 1e-3


def draw(shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x, noise, fake, target = torch.randn(4, *shape, generator=generator, dtype=torch.float64)
    sigma = (0.1 + torch.rand(shape[0], generator=generator, dtype=torch.float64)).reshape(-1, *[1] * (len(shape) - 1))
    return x, x + sigma * noise, sigma, fake, target


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("objective", OBJECTIVES, ids=name)
def test_direction_has_the_samples_shape_and_is_the_gradient_of_the_batch_mean(objective, shape):
    x, noisy, sigma, fake, target = draw(shape)
    direction = objective.direction(x, noisy, sigma, fake, target)
    assert direction.shape == shape
    x.requires_grad_(True)
    loss = objective.loss(x, noisy, sigma, fake, target)
    assert loss.shape == shape[:1]
    torch.testing.assert_close(torch.autograd.grad(loss.mean(), x)[0], direction / shape[0])


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("objective", OBJECTIVES, ids=name)
def test_direction_is_linear_in_the_difference_of_the_denoisers(objective, shape):
    x, noisy, sigma, fake, target = draw(shape)
    other = draw(shape, seed=1)[3]
    first = objective.direction(x, noisy, sigma, fake, target)
    second = objective.direction(x, noisy, sigma, other, target)
    both = objective.direction(x, noisy, sigma, target + 2 * (fake - target) - 3 * (other - target), target)
    torch.testing.assert_close(both, 2 * first - 3 * second)
    assert not torch.allclose(first, second)


@pytest.mark.parametrize("objective", OBJECTIVES, ids=name)
def test_loss_sends_no_gradient_through_anything_but_the_sample(objective):
    x, noisy, sigma, fake, target = (tensor.requires_grad_(True) for tensor in draw((4, 2)))
    objective.loss(x, noisy, sigma, fake, target).mean().backward()
    assert x.grad is not None
    assert all(tensor.grad is None for tensor in (noisy, sigma, fake, target))


@pytest.mark.parametrize("objective", OBJECTIVES, ids=name)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_loss_of_a_sample_does_not_depend_on_the_others_and_keeps_the_dtype(objective, dtype):
    arguments = [tensor.to(dtype) for tensor in draw((4, 3, 5, 5))]
    whole = objective.loss(*arguments)
    assert whole.dtype == dtype
    one_by_one = [objective.loss(*(tensor[i : i + 1] for tensor in arguments)) for i in range(4)]
    torch.testing.assert_close(whole, torch.cat(one_by_one))


@pytest.mark.parametrize("objective", OBJECTIVES, ids=name)
def test_descending_the_loss_moves_a_sample_from_the_fake_score_to_the_target(objective):
    """The student is at 0.3 and -0.8 in the mean, the target at 1.1 and 0.4: both means have to grow."""
    towards_the_mean, _ = Setting(2, [0.6]).gradient(objective)
    assert bool((towards_the_mean < 0).all())


def test_diff_instruct_and_vsd_differ_by_one_noise_level():
    arguments = draw((4, 3, 5, 5))
    plain = DiffInstruct().direction(*arguments)
    torch.testing.assert_close(VariationalScoreDistillation().direction(*arguments) * arguments[2], plain)
    torch.testing.assert_close(plain, arguments[3] - arguments[4])


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_dmd_is_the_difference_over_the_mean_distance_to_the_target_averaged_over_components(shape):
    x, noisy, sigma, fake, target = draw(shape)
    direction = DistributionMatching().direction(x, noisy, sigma, fake, target)
    for sample in range(shape[0]):
        distance = sum(abs(float(v)) for v in (x - target)[sample].flatten()) / x[sample].numel()
        expected = (fake - target)[sample] / distance / x[sample].numel()
        torch.testing.assert_close(direction[sample], expected)


def test_dmd_gradient_is_that_of_the_published_squared_error_form():
    """0.5 mse(x, x - grad) with the right side held fixed, per-component mean."""
    x, noisy, sigma, fake, target = draw((3, 2, 4, 4))
    x.requires_grad_(True)
    gradient = (fake - target) / (x - target).abs().mean(dim=(1, 2, 3), keepdim=True)
    published = 0.5 * torch.nn.functional.mse_loss(x, (x - gradient).detach())
    ours = DistributionMatching().loss(x, noisy, sigma, fake, target).mean()
    torch.testing.assert_close(torch.autograd.grad(ours, x), torch.autograd.grad(published, x))


def test_dmd_expected_gradient_of_gaussians_is_the_average_of_its_per_sample_expression():
    setting = Setting(1, [0.6])
    normaliser = (setting.x - setting.target).abs().detach()
    direction = (setting.fake - setting.target) / normaliser
    expected = [direction.mean(0), (direction * setting.z).mean()]
    torch.testing.assert_close(setting.gradient(DistributionMatching()), expected)


def test_dmd_does_not_depend_on_the_scale_of_the_data():
    x, noisy, sigma, fake, target = draw((4, 3, 5, 5))
    dmd = DistributionMatching()
    scaled = dmd.direction(7 * x, 7 * noisy, 7 * sigma, 7 * fake, 7 * target)
    torch.testing.assert_close(scaled, dmd.direction(x, noisy, sigma, fake, target))


def test_dmd_floor_bounds_the_direction_of_a_perfectly_denoised_sample_only():
    x, noisy, sigma, fake, _ = draw((2, 3))
    target = x.clone()
    target[1] += 1.0
    direction = DistributionMatching(floor=0.01).direction(x, noisy, sigma, fake, target)
    torch.testing.assert_close(direction[0], (fake - target)[0] / 0.01 / 3)
    torch.testing.assert_close(direction[1], (fake - target)[1] / 3)


@pytest.mark.parametrize("floor", [0.0, -1.0])
def test_dmd_refuses_a_floor_that_is_not_positive(floor):
    with pytest.raises(ValueError, match=r"objective\.floor must be positive"):
        DistributionMatching(floor=floor)
