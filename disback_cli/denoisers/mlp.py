"""Noise-conditioned multilayer perceptron for low-dimensional data."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Cycles per unit of c_noise = ln(sigma) / 4, which spans 2.65 units from sigma 0.002 to 80: at most five periods, so
# the network stays smooth in the noise level.
_LOWEST_FREQUENCY, _HIGHEST_FREQUENCY, _FREQUENCIES = 0.125, 2.0, 8
# Radians per unit of the scaled sample, a coordinate at a time: from the plain coordinates a smooth network of few
# units is slow to learn the sharp borders between the modes of a mixture.
_SAMPLE_FREQUENCIES = (1.0, 2.0, 4.0)


def _linear(in_features: int, out_features: int, gain: float, generator: torch.Generator) -> nn.Linear:
    """A linear layer with N(0, gain^2 / in_features) weights and zero biases, without touching the global RNG."""
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, in_features, out_features)
    with torch.no_grad():
        layer.weight.normal_(std=gain / math.sqrt(in_features), generator=generator) if gain else layer.weight.zero_()
        layer.bias.zero_()
    return layer


class NoiseConditionedMLP(nn.Module):
    """``F(x; c_noise)`` with residual hidden layers and a zero-initialised output, so that a fresh one returns 0."""

    def __init__(self, dim: int, hidden: int = 128, depth: int = 3, seed: int = 0) -> None:
        """Build the network.

        Args:
            dim: size of a sample.
            hidden: width of the hidden layers.
            depth: number of residual hidden layers, >= 1.
            seed: of the local generator that draws the hidden weights.

        Raises:
            ValueError: a size is below 1.
        """
        super().__init__()
        if min(dim, hidden, depth) < 1:
            raise ValueError(f"dim={dim}, hidden={hidden}, depth={depth}: need at least 1")
        generator = torch.Generator().manual_seed(seed)
        ramp = torch.linspace(math.log(_LOWEST_FREQUENCY), math.log(_HIGHEST_FREQUENCY), _FREQUENCIES)
        self.register_buffer("frequencies", 2 * math.pi * ramp.exp(), persistent=False)
        self.frequencies: Tensor
        self.register_buffer("sample_frequencies", torch.tensor(_SAMPLE_FREQUENCIES), persistent=False)
        self.sample_frequencies: Tensor
        features = dim * (1 + 2 * len(_SAMPLE_FREQUENCIES)) + 2 * _FREQUENCIES
        self.input = _linear(features, hidden, 1.0, generator)
        # He's gain keeps the variance of silu's output near that of its input.
        self.hidden = nn.ModuleList(_linear(hidden, hidden, math.sqrt(2), generator) for _ in range(depth))
        self.output = _linear(hidden, dim, 0.0, generator)

    def bottleneck_name(self) -> str:
        """Name of the last hidden layer."""
        return f"hidden.{len(self.hidden) - 1}"

    def forward(self, x: Tensor, noise_labels: Tensor) -> Tensor:
        """Evaluate the network.

        Args:
            x: scaled noisy samples, [B, dim].
            noise_labels: ``c_noise``, [B].

        Returns:
            [B, dim].
        """
        angle = noise_labels.to(x.dtype).outer(self.frequencies.to(x.dtype))
        place = (x[:, :, None] * self.sample_frequencies.to(x.dtype)).flatten(1)
        h = self.input(torch.cat([x, place.cos(), place.sin(), angle.cos(), angle.sin()], dim=1))
        for layer in self.hidden:
            h = h + layer(F.silu(h))
        out: Tensor = self.output(F.silu(h))
        return out
