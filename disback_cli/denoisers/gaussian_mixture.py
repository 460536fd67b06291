"""Gaussian mixtures: a data distribution whose score and denoiser are known exactly at every noise level.

With x = x0 + sigma n and x0 from the mixture, the density of x is the mixture with variances std_k^2 + sigma^2, and the
posterior mean E[x0 | x] follows from Bayes' rule. Everything is computed in the dtype of the inputs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from disback_cli.denoisers.mlp import NoiseConditionedMLP
from disback_cli.denoisers.preconditioning import edm_coefficients
from disback_cli.denoisers.protocol import Denoiser, expand_sigma

LAYOUTS = ("ring", "grid")
_DEFAULT_MODES = {"ring": 8, "grid": 25}


class GaussianMixture(nn.Module):
    """Mixture of K isotropic Gaussians in d dimensions; means, stds and weights are buffers of the state dict."""

    def __init__(
        self,
        means: Tensor | Sequence[Sequence[float]],
        std: Tensor | Sequence[float] | float,
        weights: Tensor | Sequence[float] | None = None,
    ) -> None:
        """Define the mixture.

        Args:
            means: [K, d]; a tensor keeps its dtype, numbers become fp32.
            std: standard deviation per coordinate, a number for all components or [K]; > 0.
            weights: [K], > 0, normalised here; None means equal.

        Raises:
            ValueError: the shapes disagree, or a value is not positive.
        """
        super().__init__()
        centres = torch.as_tensor(means)
        if centres.ndim != 2 or centres.numel() == 0:
            raise ValueError(f"means have shape {tuple(centres.shape)}: need [components, dimensions]")
        count = centres.shape[0]
        dtype = centres.dtype if centres.is_floating_point() else torch.float32
        scale = torch.as_tensor(std, dtype=dtype)
        mass = torch.ones(count, dtype=dtype) if weights is None else torch.as_tensor(weights, dtype=dtype)
        if scale.shape not in ((), (count,)) or mass.shape != (count,):
            raise ValueError(f"std {tuple(scale.shape)} and weights {tuple(mass.shape)} do not fit {count} components")
        if not bool((scale > 0).all() and (mass > 0).all()):
            raise ValueError("std and weights must be positive")
        self.register_buffer("means", centres.to(dtype).clone())
        self.register_buffer("std", scale.expand(count).clone())
        self.register_buffer("weights", mass / mass.sum())
        self.means: Tensor
        self.std: Tensor
        self.weights: Tensor

    @classmethod
    def ring(cls, modes: int = 8, radius: float = 1.0, std: float = 0.05) -> GaussianMixture:
        """``modes`` equal components evenly spaced on a circle, the first on the positive x axis.

        Its standard deviation per coordinate is sqrt(radius^2 / 2 + std^2) for modes >= 3.
        """
        if modes < 1:
            raise ValueError(f"modes={modes}: need at least 1")
        angle = torch.arange(modes, dtype=torch.float64) * (2 * math.pi / modes)
        return cls((radius * torch.stack([angle.cos(), angle.sin()], dim=1)).float(), std)

    @classmethod
    def grid(cls, side: int = 5, spacing: float = 1.0, std: float = 0.05) -> GaussianMixture:
        """``side`` x ``side`` equal components on a square lattice around the origin.

        Its standard deviation per coordinate is sqrt(spacing^2 (side^2 - 1) / 12 + std^2).
        """
        if side < 1:
            raise ValueError(f"side={side}: need at least 1")
        axis = (torch.arange(side, dtype=torch.float64) - (side - 1) / 2) * spacing
        return cls(torch.cartesian_prod(axis, axis).float(), std)

    @property
    def dim(self) -> int:
        """Number of dimensions d."""
        return int(self.means.shape[1])

    def _posterior(self, x: Tensor, sigma: Tensor | float) -> tuple[Tensor, Tensor, Tensor]:
        """Joint log-density with each component [B, K], offsets x - mu_k [B, K, d], noisy variances [B, K]."""
        dtype = torch.promote_types(x.dtype, self.means.dtype)
        x = x.to(dtype)
        variance = self.std.to(dtype).square() + expand_sigma(sigma, x).to(dtype).square()
        offset = x[:, None, :] - self.means.to(dtype)
        log_joint = (
            self.weights.to(dtype).log()
            - 0.5 * self.dim * (2 * math.pi * variance).log()
            - offset.square().sum(dim=2) / (2 * variance)
        )
        return log_joint, offset, variance

    def log_prob(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """Log-density of the mixture convolved with N(0, sigma^2 I).

        Args:
            x: points, [B, d].
            sigma: noise levels, a number, 0-d, [B] or [B, 1]; >= 0.

        Returns:
            [B], in nats.
        """
        return self._posterior(x, sigma)[0].logsumexp(dim=1)

    def score(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """Gradient of ``log_prob`` with respect to x, [B, d]; arguments as there."""
        log_joint, offset, variance = self._posterior(x, sigma)
        responsibility = log_joint.softmax(dim=1)
        return -((responsibility / variance)[:, :, None] * offset).sum(dim=1)

    def denoise(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        """Posterior mean E[x0 | x0 + sigma n = x], [B, d]; arguments as for ``log_prob``.

        A convex combination of the components' posterior means, which stays accurate at large sigma where
        ``x + sigma^2 score`` cancels.
        """
        log_joint, offset, variance = self._posterior(x, sigma)
        responsibility = log_joint.softmax(dim=1)
        shrinkage = self.std.to(variance.dtype).square() / variance
        posterior_mean = self.means.to(offset.dtype) + shrinkage[:, :, None] * offset
        return (responsibility[:, :, None] * posterior_mean).sum(dim=1)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw clean samples.

        Args:
            n: number of samples.
            generator: source of randomness, on the device of the buffers; None uses the global one.

        Returns:
            [n, d] in the dtype of the means.
        """
        component = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        noise = torch.randn(n, self.dim, generator=generator, dtype=self.means.dtype, device=self.means.device)
        return self.means[component] + self.std[component, None] * noise


def _layout(
    layout: str, modes: int | None, radius: float | None, spacing: float | None, std: float, sigma_data: float
) -> GaussianMixture:
    """The mixture that ``MixtureDenoiser``'s arguments describe; see there."""
    if layout not in LAYOUTS:
        raise ValueError(f"layout={layout!r}: valid are {', '.join(LAYOUTS)}")
    if (radius if layout == "grid" else spacing) is not None:
        raise ValueError("radius belongs to layout='ring' and spacing to layout='grid'")
    modes = _DEFAULT_MODES[layout] if modes is None else modes
    between = sigma_data**2 - std**2
    if radius is None and spacing is None and between <= 0:
        raise ValueError(f"std={std} must be below sigma_data={sigma_data}, or give radius or spacing")
    if layout == "ring":
        return GaussianMixture.ring(modes, math.sqrt(2 * between) if radius is None else radius, std)
    side = math.isqrt(max(modes, 0))
    if side < 2 or side**2 != modes:
        raise ValueError(f"modes={modes}: a grid needs a square number, 4, 9, 16, ...")
    return GaussianMixture.grid(side, math.sqrt(12 * between / (modes - 1)) if spacing is None else spacing, std)


class MixtureDenoiser(Denoiser):
    """Exact denoiser of a mixture plus a trainable correction.

    ``D(x; sigma) = E[x0 | x] + c_out(sigma) MLP(c_in x; c_noise)``. The MLP's last layer starts at zero, so a fresh one
    is the exact teacher, bit for bit, and a copy of it can be trained to follow any other distribution. The mixture is
    part of the state dict, hence of the identity of the weights.
    """

    def __init__(
        self,
        layout: str = "ring",
        modes: int | None = None,
        radius: float | None = None,
        spacing: float | None = None,
        std: float = 0.05,
        hidden: int = 128,
        depth: int = 3,
        seed: int = 0,
        sigma_data: float = 0.5,
        sigma_min: float = 0.002,
        sigma_max: float = 80.0,
    ) -> None:
        """Build the mixture and its correction.

        Args:
            layout: "ring" or "grid", in the plane.
            modes: number of components; None means 8 for a ring and 25 for a grid, which needs a square number.
            radius: of the ring; None makes its standard deviation per coordinate ``sigma_data``.
            spacing: of the grid; None likewise.
            std: of each component, per coordinate, > 0.
            hidden: width of the correction.
            depth: number of its hidden layers.
            seed: of the correction's hidden weights.
            sigma_data: standard deviation that the preconditioning assumes, > 0.
            sigma_min: smallest noise level, > 0.
            sigma_max: largest noise level.

        Raises:
            ValueError: an option is unknown, or a number is outside its range.
        """
        mixture = _layout(layout, modes, radius, spacing, std, sigma_data)
        super().__init__((mixture.dim,), 0, sigma_min, sigma_max, sigma_data)
        self.mixture = mixture
        self.correction = NoiseConditionedMLP(mixture.dim, hidden, depth, seed)

    def bottleneck_name(self) -> str:
        """The correction's last hidden layer."""
        return f"correction.{self.correction.bottleneck_name()}"

    def forward(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        """Estimate the clean samples.

        Args:
            x: noisy samples, [B, d].
            sigma: noise levels, [B], 0-d or [B, 1]; > 0.
            labels: None; the mixture is unconditional.

        Returns:
            Estimate of x0, [B, d], fp32, or float64 if ``x`` is.

        Raises:
            ValueError: labels are given.
        """
        self.check_labels(labels, x.shape[0])
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        level = expand_sigma(sigma, x)
        _, c_out, c_in, c_noise = edm_coefficients(level, self.sigma_data)
        dtype = self.correction.output.weight.dtype
        raw = self.correction((c_in * x).to(dtype), c_noise.flatten().to(dtype))
        estimate: Tensor = self.mixture.denoise(x, level) + c_out * raw.to(x.dtype)
        return estimate
