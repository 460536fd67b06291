"""EDM-preconditioned network as a denoiser (Karras et al. 2022, eq. 7)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from disback_cli.denoisers.preconditioned import PreconditionedDenoiser
from disback_cli.denoisers.preconditioning import Coefficients, edm_coefficients


class EDMDenoiser(PreconditionedDenoiser):
    """EDM's own parametrisation, that of all public EDM checkpoints ("vp" and "ve" in their names are architectures).

    The network's parameters are named ``model.*``, as in these checkpoints.
    """

    def __init__(
        self,
        network: nn.Module,
        shape: Sequence[int],
        label_dim: int = 0,
        sigma_data: float = 0.5,
        sigma_min: float = 0.002,
        sigma_max: float = 80.0,
        network_dtype: Literal["fp32", "fp16", "bf16"] = "fp32",
    ) -> None:
        """Wrap a network.

        Args:
            network: called as ``network(x [B, *shape], c_noise [B], labels [B, label_dim] or None) -> [B, *shape]``.
            shape: shape of one sample, (C, H, W) or (d,).
            label_dim: width of the one-hot labels, 0 = unconditional.
            sigma_data: standard deviation of the data, > 0.
            sigma_min: smallest noise level, > 0.
            sigma_max: largest noise level.
            network_dtype: dtype of the activations inside the network; fp16 acts on CUDA only.

        Raises:
            ValueError: a number is outside its range, or network and wrapper disagree about labels or channels.
        """
        super().__init__(network, shape, label_dim, sigma_min, sigma_max, sigma_data, network_dtype)

    def coefficients(self, sigma: Tensor) -> Coefficients:
        """EDM's coefficients, see :func:`edm_coefficients`."""
        return edm_coefficients(sigma, self.sigma_data)
