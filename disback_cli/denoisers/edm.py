"""EDM-preconditioned network as a denoiser (Karras et al. 2022, eq. 7)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from disback_cli.denoisers.preconditioning import edm_coefficients
from disback_cli.denoisers.protocol import Denoiser, expand_sigma


class EDMDenoiser(Denoiser):
    """``D(x; sigma, c) = c_skip x + c_out F(c_in x; c_noise, c)`` around a raw network F.

    The network's parameters are named ``model.*``, as in the public EDM checkpoints.
    """

    def __init__(
        self,
        network: nn.Module,
        shape: Sequence[int],
        label_dim: int = 0,
        sigma_data: float = 0.5,
        sigma_min: float = 0.002,
        sigma_max: float = 80.0,
    ) -> None:
        """Wrap a network.

        Args:
            network: called as ``network(x [B, *shape], c_noise [B], labels [B, label_dim] or None) -> [B, *shape]``.
            shape: shape of one sample, (C, H, W) or (d,).
            label_dim: width of the one-hot labels, 0 = unconditional.
            sigma_data: standard deviation of the data, > 0.
            sigma_min: smallest noise level, > 0.
            sigma_max: largest noise level.

        Raises:
            ValueError: a number is outside its range, or network and wrapper disagree about the labels.
        """
        super().__init__(tuple(shape), label_dim, sigma_min, sigma_max, sigma_data)
        network_labels = getattr(network, "label_dim", label_dim)
        if network_labels != label_dim:
            raise ValueError(f"label_dim={label_dim}, but the network was built with label_dim={network_labels}")
        self.model = network

    def forward(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        """Estimate the clean samples.

        The preconditioning is fp32 whatever the dtype of the network's weights; the network runs in theirs.

        Args:
            x: noisy samples, [B, *shape].
            sigma: noise levels, [B], 0-d or [B, 1, ..., 1]; > 0.
            labels: one-hot float labels, [B, label_dim]; rows of zeros mean "no class"; None if unconditional.

        Returns:
            Estimate of x0, [B, *shape], fp32.

        Raises:
            ValueError: samples, noise levels or labels have the wrong shape, or labels are missing.
        """
        if x.shape[1:] != self.shape:
            raise ValueError(f"samples have shape {tuple(x.shape[1:])}: this denoiser is made for {self.shape}")
        labels = self.check_labels(labels, x.shape[0])
        x = x.to(torch.float32)
        c_skip, c_out, c_in, c_noise = edm_coefficients(expand_sigma(sigma, x), self.sigma_data)
        dtype = next(self.model.parameters()).dtype
        raw: Tensor = self.model((c_in * x).to(dtype), c_noise.flatten(), labels)
        return c_skip * x + c_out * raw.to(torch.float32)
