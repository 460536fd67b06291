"""Networks that are exact for Gaussian data N(mean, std^2 I), in each parametrisation.

The posterior mean of x0 given x = x0 + sigma n is (std^2 x + sigma^2 mean) / (std^2 + sigma^2).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

MEAN, STD = 0.3, 0.7


def exact_denoiser(x: Tensor, sigma: Tensor) -> Tensor:
    """The posterior mean, float64; ``sigma`` is [B]."""
    x, sigma = x.double(), sigma.double().reshape(-1, 1, 1, 1)
    return (STD**2 * x + sigma**2 * MEAN) / (STD**2 + sigma**2)


class ExactNetwork(nn.Module):
    """Returns what the best possible network would.

    Args:
        prediction: "epsilon", "v_prediction", "sample", "noise_at_1" or "data_at_1".
        sigma_of: from what the network is told about time to the noise level.
    """

    def __init__(self, prediction: str, sigma_of: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.prediction, self.sigma_of = prediction, sigma_of
        self.told: list[float] = []

    def forward(self, x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        """The exact prediction from the scaled sample."""
        assert labels is None and x_t.dtype == torch.float32
        self.told += t.tolist()
        sigma = self.sigma_of(t.double())
        s = sigma.reshape(-1, 1, 1, 1)
        flows = self.prediction in ("noise_at_1", "data_at_1")
        signal = 1 / (1 + s) if flows else 1 / (1 + s**2).sqrt()
        x = x_t.double() / signal
        x0 = exact_denoiser(x, sigma)
        noise = (x - x0) / s
        found = {
            "epsilon": noise,
            "v_prediction": signal * noise - signal * s * x0,
            "sample": x0,
            "noise_at_1": noise - x0,
            "data_at_1": x0 - noise,
        }[self.prediction]
        return found.float()
