"""The closed forms of a mixture against each other, quadrature-free: autograd, Tweedie's formula and the loss."""

import copy

import pytest
import torch

from disback_cli.denoisers.gaussian_mixture import GaussianMixture, MixtureDenoiser
from disback_cli.denoisers.mlp import NoiseConditionedMLP
from disback_cli.denoisers.preconditioning import loss_weight

SIGMAS = torch.tensor([0.01, 0.1, 0.5, 2.0, 20.0], dtype=torch.float64)


def uneven() -> GaussianMixture:
    """A float64 mixture of three different components in three dimensions."""
    means = torch.tensor([[0.0, 1.0, -1.0], [0.5, -0.5, 0.2], [-1.0, 0.1, 0.3]], dtype=torch.float64)
    return GaussianMixture(means, std=[0.1, 0.3, 0.7], weights=[2.0, 1.0, 5.0])


def noisy_points(mixture: GaussianMixture, sigmas: torch.Tensor, seed: int = 0) -> torch.Tensor:
    """One noisy sample per noise level, [len(sigmas), d]."""
    generator = torch.Generator().manual_seed(seed)
    clean = mixture.sample(len(sigmas), generator)
    noise = torch.randn(clean.shape, generator=generator, dtype=clean.dtype)
    return clean + sigmas[:, None] * noise


def test_log_prob_is_that_of_torch_distributions():
    mixture = uneven()
    x = noisy_points(mixture, SIGMAS)
    for row, sigma in zip(x, SIGMAS, strict=True):
        scale = (mixture.std**2 + sigma**2).sqrt()[:, None].expand(3, 3)
        components = torch.distributions.Independent(torch.distributions.Normal(mixture.means, scale), 1)
        reference = torch.distributions.MixtureSameFamily(torch.distributions.Categorical(mixture.weights), components)
        torch.testing.assert_close(mixture.log_prob(row[None], sigma)[0], reference.log_prob(row))


def test_score_is_the_gradient_of_log_prob():
    mixture = uneven()
    x = noisy_points(mixture, SIGMAS).requires_grad_()
    (gradient,) = torch.autograd.grad(mixture.log_prob(x, SIGMAS).sum(), x)
    torch.testing.assert_close(mixture.score(x.detach(), SIGMAS), gradient, rtol=1e-10, atol=1e-12)


def test_denoiser_obeys_tweedie():
    mixture = uneven()
    x = noisy_points(mixture, SIGMAS)
    expected = x + SIGMAS[:, None] ** 2 * mixture.score(x, SIGMAS)
    torch.testing.assert_close(mixture.denoise(x, SIGMAS), expected, rtol=1e-9, atol=1e-10)


def test_limits_of_the_denoiser():
    mixture = uneven()
    x = noisy_points(mixture, SIGMAS)
    torch.testing.assert_close(mixture.denoise(x, 0.0), x)
    mean = (mixture.weights[:, None] * mixture.means).sum(0)
    torch.testing.assert_close(mixture.denoise(x, 1e6), mean.expand(5, 3), rtol=0, atol=1e-5)


def test_fp32_stays_close_to_float64_at_every_noise_level():
    mixture, x = uneven(), noisy_points(uneven(), SIGMAS)
    single = copy.deepcopy(mixture).float()
    out = single.denoise(x.float(), SIGMAS.float())
    assert out.dtype == torch.float32
    torch.testing.assert_close(out.double(), mixture.denoise(x, SIGMAS), rtol=1e-3, atol=1e-4)


def test_samples_have_the_mixture_s_moments_and_follow_the_generator():
    mixture = uneven()
    samples = mixture.sample(40_000, torch.Generator().manual_seed(3))
    mean = (mixture.weights[:, None] * mixture.means).sum(0)
    spread = (mixture.weights * mixture.std**2).sum() + (mixture.weights[:, None] * (mixture.means - mean) ** 2).sum(0)
    torch.testing.assert_close(samples.mean(0), mean, rtol=0, atol=0.02)
    torch.testing.assert_close(samples.var(0), spread, rtol=0.03, atol=0)
    assert torch.equal(samples, mixture.sample(40_000, torch.Generator().manual_seed(3)))


@pytest.mark.parametrize("options", [{}, {"layout": "grid"}, {"layout": "ring", "modes": 5}, {"std": 0.2}])
def test_default_layouts_have_standard_deviation_sigma_data(options):
    mixture = MixtureDenoiser(**options).mixture
    variance = mixture.means.square().mean(0) + mixture.std[0] ** 2
    torch.testing.assert_close(variance.sqrt(), torch.full((2,), 0.5))


def test_layouts():
    ring, grid = GaussianMixture.ring(4, 2.0, 0.1), GaussianMixture.grid(3, 1.5, 0.1)
    expected = torch.tensor([[2.0, 0.0], [0.0, 2.0], [-2.0, 0.0], [0.0, -2.0]])
    torch.testing.assert_close(ring.means, expected, rtol=0, atol=1e-6)
    assert sorted(grid.means[:, 0].unique().tolist()) == [-1.5, 0.0, 1.5] and len(grid.means.unique(dim=0)) == 9


@pytest.mark.parametrize("x_dtype", [torch.float32, torch.float64])
def test_fresh_mixture_denoiser_is_exact(x_dtype):
    denoiser = MixtureDenoiser(seed=4)
    x = torch.randn(64, 2, generator=torch.Generator().manual_seed(0)).to(x_dtype)
    sigma = torch.logspace(-2.7, 1.9, 64, dtype=x_dtype)
    out = denoiser(x, sigma)
    assert out.dtype == x_dtype and torch.equal(out, denoiser.mixture.denoise(x, sigma))


def test_exact_denoiser_minimises_the_denoising_loss():
    """E lambda |D(x0 + s n) - x0|^2 is least at the posterior mean; any perturbed correction raises it."""
    exact = MixtureDenoiser()
    generator = torch.Generator().manual_seed(0)
    clean = exact.mixture.sample(20_000, generator)
    sigma = torch.exp(1.2 * torch.randn(len(clean), generator=generator) - 1.2)
    noisy = clean + sigma[:, None] * torch.randn(clean.shape, generator=generator)

    def loss(denoiser: MixtureDenoiser) -> float:
        with torch.no_grad():
            error = (denoiser(noisy, sigma) - clean).square().sum(1)
        return float((loss_weight(sigma, denoiser.sigma_data) * error).mean())

    best = loss(exact)
    for seed in range(3):
        perturbed = copy.deepcopy(exact)
        with torch.no_grad():
            perturbed.correction.output.weight.normal_(std=0.03, generator=torch.Generator().manual_seed(seed))
        assert loss(perturbed) > best * 1.01


def test_a_copy_follows_another_distribution():
    """Training the correction on one shifted Gaussian brings its loss far below the teacher's there."""
    denoiser = MixtureDenoiser(hidden=64, depth=2)
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(denoiser.parameters(), 3e-3)
    losses = []
    for _ in range(150):
        clean = 0.3 + 0.2 * torch.randn(256, 2, generator=generator)
        sigma = torch.exp(1.2 * torch.randn(256, generator=generator) - 1.2)
        noisy = clean + sigma[:, None] * torch.randn(256, 2, generator=generator)
        error = (denoiser(noisy, sigma) - clean).square().sum(1)
        loss = (loss_weight(sigma, 0.5) * error).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-20:]) < 0.5 * sum(losses[:3]) / 3 * 20


def test_seed_decides_the_weights_and_the_global_generator_is_untouched():
    state = torch.get_rng_state()
    first, again, other = MixtureDenoiser(seed=1), MixtureDenoiser(seed=1), MixtureDenoiser(seed=2)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first.correction.input.weight, again.correction.input.weight)
    assert not torch.equal(first.correction.input.weight, other.correction.input.weight)


def test_the_mixture_is_in_the_state_dict():
    names = set(MixtureDenoiser().state_dict())
    assert {"mixture.means", "mixture.std", "mixture.weights", "correction.output.weight"} <= names
    assert not any("frequencies" in name for name in names)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layout": "star"}, "ring, grid"),
        ({"layout": "grid", "modes": 8}, "square number"),
        ({"layout": "grid", "radius": 1.0}, "belongs to"),
        ({"spacing": 1.0}, "belongs to"),
        ({"std": 0.5}, "below sigma_data"),
        ({"std": 0.0}, "positive"),
        ({"modes": 0}, "at least 1"),
        ({"depth": 0}, "at least 1"),
    ],
)
def test_refuses_what_it_cannot_build(options, message):
    with pytest.raises(ValueError, match=message):
        MixtureDenoiser(**options)


def test_mixture_refuses_shapes_that_disagree_and_labels():
    with pytest.raises(ValueError, match="do not fit 2 components"):
        GaussianMixture([[0.0], [1.0]], std=[0.1, 0.1, 0.1])
    with pytest.raises(ValueError, match="components, dimensions"):
        GaussianMixture(torch.zeros(3), std=0.1)
    with pytest.raises(ValueError, match="unconditional"):
        MixtureDenoiser()(torch.zeros(2, 2), torch.ones(2), torch.eye(2))


def test_mlp_depends_on_input_and_noise_level():
    mlp = NoiseConditionedMLP(3, hidden=16, depth=2)
    x, noise = torch.randn(4, 3), torch.linspace(-1.5, 1.0, 4)
    assert not mlp(x, noise).any()
    torch.nn.init.ones_(mlp.output.weight)
    assert not torch.allclose(mlp(x, noise), mlp(x, noise + 0.1))
    assert not torch.allclose(mlp(x, noise), mlp(x + 0.1, noise))
