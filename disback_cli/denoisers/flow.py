"""Networks of rectified flow and flow matching (Liu et al. 2023, Lipman et al. 2023) as denoisers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from disback_cli.denoisers.preconditioned import PreconditionedDenoiser
from disback_cli.denoisers.preconditioning import Coefficients

DIRECTIONS = ("noise_at_1", "data_at_1")


class FlowDenoiser(PreconditionedDenoiser):
    """A network that predicts the velocity on the straight line between a sample and noise.

    With u the share of noise, x_u = (1 - u) x0 + u n, so that x = x_u / (1 - u) has noise level sigma = u / (1 - u), or
    u = sigma / (1 + sigma) and x_u = x / (1 + sigma). The sample is x0 = x_u - u (n - x0). The network's parameters are
    named ``model.*``.
    """

    def __init__(
        self,
        network: nn.Module,
        shape: Sequence[int],
        label_dim: int = 0,
        direction: Literal["noise_at_1", "data_at_1"] = "noise_at_1",
        time_scale: float = 1000.0,
        sigma_min: float = 0.002,
        sigma_max: float = 80.0,
        sigma_data: float = 0.5,
        network_dtype: Literal["fp32", "fp16", "bf16"] = "fp32",
    ) -> None:
        """Wrap a network.

        Args:
            network: called as ``network(x_u [B, *shape], time_scale * time [B], labels [B, label_dim] or None)``,
                returns a velocity [B, *shape].
            shape: shape of one sample, (C, H, W).
            label_dim: width of the one-hot labels, 0 = unconditional.
            direction: "noise_at_1": time is u and the velocity n - x0, as with diffusers' FlowMatch schedulers;
                "data_at_1": time is 1 - u and the velocity x0 - n, as in Lipman et al. and torchcfm.
            time_scale: factor between time and what the network is told; 1000 in diffusers, 1 in torchcfm; > 0.
            sigma_min: smallest noise level, > 0.
            sigma_max: largest noise level; pure noise (u = 1) has an infinite one.
            sigma_data: standard deviation of the data, > 0; weighs losses, the network does not depend on it.
            network_dtype: dtype of the activations inside the network; fp16 acts on CUDA only.

        Raises:
            ValueError: an argument is outside its range, or network and wrapper disagree about labels or channels.
        """
        if direction not in DIRECTIONS or time_scale <= 0:
            raise ValueError(
                f"direction={direction!r}, time_scale={time_scale}: need {' or '.join(DIRECTIONS)}, and a scale above 0"
            )
        if not math.isfinite(sigma_max):
            raise ValueError(f"sigma_max={sigma_max}: need a finite noise level, such as 80")
        super().__init__(network, shape, label_dim, sigma_min, sigma_max, sigma_data, network_dtype)
        self.direction = direction
        self.time_scale = float(time_scale)

    def coefficients(self, sigma: Tensor) -> Coefficients:
        """(c_skip, c_out, c_in, c_noise) = (1 - u, -u or +u, 1 - u, time_scale u or time_scale (1 - u))."""
        signal = 1 / (1 + sigma)
        noise = sigma * signal
        if self.direction == "noise_at_1":
            return signal, -noise, signal, self.time_scale * noise
        return signal, noise, signal, self.time_scale * signal
