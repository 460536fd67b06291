"""Networks of Nichol & Dhariwal 2021 (iDDPM) as denoisers, in the notation of Karras et al. 2022."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from disback_cli.denoisers.preconditioned import PreconditionedDenoiser
from disback_cli.denoisers.preconditioning import Coefficients, iddpm_coefficients, iddpm_noise_levels


class IDDPMDenoiser(PreconditionedDenoiser):
    """The network predicts the noise and its variance (unused here) and is conditioned on an integer time step.

    A noise level between two steps is told to the network as the nearest step; everything outside the network keeps it
    as it is. The network's parameters are named ``model.*``; the noise levels of the steps are the buffer ``u``, which
    is part of the state dict. No public file in this parametrisation was at hand to check these names against.
    """

    OUTPUTS_PER_CHANNEL = 2

    def __init__(
        self,
        network: nn.Module,
        shape: Sequence[int],
        label_dim: int = 0,
        C_1: float = 0.001,
        C_2: float = 0.008,
        M: int = 1000,
        sigma_data: float = 0.5,
        network_dtype: Literal["fp32", "fp16", "bf16"] = "fp32",
    ) -> None:
        """Wrap a network; the noise levels reach from the first to the last step of its schedule.

        Args:
            network: called as ``network(x [B, *shape], c_noise [B], labels [B, label_dim] or None)``, returns twice the
                channels of x; the first half is the prediction of the noise.
            shape: shape of one sample, (C, H, W) or (d,).
            label_dim: width of the one-hot labels, 0 = unconditional.
            C_1: lower bound on the ratio of consecutive cosines, 0 < C_1 < 1.
            C_2: offset of the cosine schedule, > 0.
            M: number of time steps of the original training, >= 2.
            sigma_data: standard deviation of the data, > 0; weighs losses, the network does not depend on it.
            network_dtype: dtype of the activations inside the network; fp16 acts on CUDA only.

        Raises:
            ValueError: a number is outside its range, or network and wrapper disagree about labels or channels.
        """
        if not 0 < C_1 < 1 or C_2 <= 0 or M < 2:
            raise ValueError(f"C_1={C_1}, C_2={C_2}, M={M}: need 0 < C_1 < 1, C_2 > 0 and M >= 2")
        levels = iddpm_noise_levels(M, C_1, C_2)
        super().__init__(network, shape, label_dim, levels[-2], levels[0], sigma_data, network_dtype)
        self.register_buffer("u", torch.tensor(levels, dtype=torch.float32))
        self.u: Tensor

    def coefficients(self, sigma: Tensor) -> Coefficients:
        """iDDPM's coefficients, see :func:`iddpm_coefficients`."""
        return iddpm_coefficients(sigma, self.u)

    def nearest_sigma(self, sigma: float) -> float:
        """The noise level closest to ``sigma`` at which the network was trained."""
        levels = self.u[:-1]
        return float(levels[(levels - sigma).abs().argmin()])
