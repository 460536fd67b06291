"""A denoiser of points that knows nothing of the data: EDM's preconditioning around a multilayer perceptron."""

from __future__ import annotations

import torch
from torch import Tensor

from disback_cli.denoisers.mlp import NoiseConditionedMLP
from disback_cli.denoisers.preconditioning import edm_coefficients
from disback_cli.denoisers.protocol import Denoiser, expand_sigma


class MLPDenoiser(Denoiser):
    """``D(x; sigma) = c_skip x + c_out MLP(c_in x; c_noise)`` (Karras et al. 2022, eq. 7), unconditional.

    The MLP's last layer starts at zero, so a fresh one is ``c_skip x``: exact for data of N(0, sigma_data^2 I).
    """

    def __init__(
        self,
        dim: int,
        hidden: int = 128,
        depth: int = 3,
        seed: int = 0,
        sigma_data: float = 0.5,
        sigma_min: float = 0.002,
        sigma_max: float = 80.0,
    ) -> None:
        """Build the network.

        Args:
            dim: size of a sample.
            hidden: width of the hidden layers.
            depth: number of hidden layers.
            seed: of the hidden weights.
            sigma_data: standard deviation of the data, > 0.
            sigma_min: smallest noise level, > 0.
            sigma_max: largest noise level.

        Raises:
            ValueError: a number is outside its range.
        """
        super().__init__((dim,), 0, sigma_min, sigma_max, sigma_data)
        self.model = NoiseConditionedMLP(dim, hidden, depth, seed)

    def bottleneck_name(self) -> str:
        """The last hidden layer."""
        return f"model.{self.model.bottleneck_name()}"

    def forward(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        """Estimate the clean samples.

        Args:
            x: noisy samples, [B, dim].
            sigma: noise levels, [B], 0-d or [B, 1]; > 0.
            labels: None; this denoiser is unconditional.

        Returns:
            Estimate of x0, [B, dim], fp32.

        Raises:
            ValueError: labels are given.
        """
        self.check_labels(labels, x.shape[0])
        x = x.to(torch.float32)
        c_skip, c_out, c_in, c_noise = edm_coefficients(expand_sigma(sigma, x), self.sigma_data)
        estimate: Tensor = c_skip * x + c_out * self.model(c_in * x, c_noise.flatten())
        return estimate
