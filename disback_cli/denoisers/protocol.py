"""What every teacher, target, fake score and student is: a denoiser.

A denoiser estimates the clean sample from a noisy one, ``D(x; sigma, c) = E[x0 | x0 + sigma n = x, c]`` with
``n ~ N(0, I)``; the score of the noisy density follows as ``(D - x) / sigma^2`` (Karras et al. 2022, eq. 3).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def expand_sigma(sigma: Tensor | float, x: Tensor) -> Tensor:
    """Bring a noise level into the shape that broadcasts over a batch of samples.

    Args:
        sigma: noise level, a number, a 0-d or one-element tensor (shared by the batch), [B], or [B, 1, ..., 1].
        x: the batch, [B, *shape]; gives the batch size, the device and the number of dimensions.

    Returns:
        [B, 1, ..., 1] with as many dimensions as ``x``, on its device, in ``x``'s dtype but never below fp32.

    Raises:
        ValueError: ``sigma`` has neither one element nor one per sample.
    """
    dtype = torch.promote_types(x.dtype, torch.float32)
    level = torch.as_tensor(sigma, device=x.device).to(dtype).reshape(-1)
    batch = x.shape[0]
    if level.numel() not in (1, batch):
        raise ValueError(f"sigma has {level.numel()} values for a batch of {batch}: give one value or one per sample")
    return level.expand(batch).reshape(batch, *[1] * (x.ndim - 1))


class Denoiser(nn.Module):
    """Base class of all denoisers.

    Attributes:
        shape: shape of one sample, (C, H, W) or (d,).
        label_dim: width of the one-hot labels; 0 means unconditional.
        sigma_min: smallest noise level the denoiser was made for, > 0, in units of the data.
        sigma_max: largest noise level.
        sigma_data: standard deviation of the data that the preconditioning assumes.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        label_dim: int = 0,
        sigma_min: float = 0.002,
        sigma_max: float = 80.0,
        sigma_data: float = 0.5,
    ) -> None:
        """Record what the denoiser is made for.

        Args:
            shape: shape of one sample, (C, H, W) or (d,).
            label_dim: width of the one-hot labels, >= 0.
            sigma_min: smallest noise level, > 0.
            sigma_max: largest noise level, > sigma_min.
            sigma_data: standard deviation of the data, > 0.

        Raises:
            ValueError: a number is outside its range.
        """
        super().__init__()
        if not shape or any(int(size) < 1 for size in shape):
            raise ValueError(f"shape={tuple(shape)}: need positive sizes, (C, H, W) or (d,)")
        if label_dim < 0:
            raise ValueError(f"label_dim={label_dim}: need 0 (unconditional) or the number of classes")
        if not 0 < sigma_min < sigma_max or sigma_data <= 0:
            raise ValueError(
                f"sigma_min={sigma_min}, sigma_max={sigma_max}, sigma_data={sigma_data}: "
                "need 0 < sigma_min < sigma_max and sigma_data > 0"
            )
        self.shape = tuple(int(size) for size in shape)
        self.label_dim = int(label_dim)
        self.sigma_min = float(sigma_min)
        self.sigma_max = float(sigma_max)
        self.sigma_data = float(sigma_data)

    def forward(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        """Estimate the clean samples.

        Args:
            x: noisy samples, [B, *shape].
            sigma: noise levels, [B], 0-d or [B, 1, ..., 1]; > 0.
            labels: one-hot float labels, [B, label_dim]; None for an unconditional denoiser.

        Returns:
            Estimate of x0, [B, *shape], fp32 (float64 where a closed form was asked in float64).
        """
        raise NotImplementedError(f"{type(self).__name__} does not implement forward")

    def nearest_sigma(self, sigma: float) -> float:
        """The noise level closest to ``sigma`` that the network was trained at; any level, unless a subclass says so.

        A network of discrete time knows its noise levels only; a one-step student is asked at one of them.
        """
        return sigma

    def bottleneck_name(self) -> str | None:
        """Dotted name of the module whose output says most about the whole sample; None where there is no such.

        A critic takes its features there. The output is [B, C, H, W], [B, T, d] or [B, d].
        """
        return None

    def unused_parameters(self) -> frozenset[str]:
        """Names of parameters that no gradient reaches in distillation: inputs that are never given, unused heads."""
        return frozenset()

    def trainable_(self) -> Denoiser:
        """Let gradients reach every parameter that is used, and return the denoiser.

        Data-parallel training refuses parameters that wait for a gradient in vain.
        """
        unused = self.unused_parameters()
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(name not in unused)
        return self

    def constrain_(self) -> None:
        """Put the weights back where the network wants them; called after every optimiser step."""

    def check_labels(self, labels: Tensor | None, batch: int) -> Tensor | None:
        """Return the labels in fp32, or None if the denoiser is unconditional.

        A row of zeros is allowed: it is how EDM networks express "no class".

        Args:
            labels: [batch, label_dim] or None; an unconditional denoiser also takes [batch, 0].
            batch: number of samples.

        Raises:
            ValueError: labels are missing, have the wrong shape, or are given to an unconditional denoiser.
        """
        if self.label_dim == 0:
            if labels is not None and labels.numel() > 0:
                raise ValueError(f"labels of shape {tuple(labels.shape)} given to an unconditional denoiser: pass None")
            return None
        if labels is None:
            raise ValueError(
                f"labels are missing: this denoiser is conditional, pass one-hot labels [{batch}, {self.label_dim}]"
            )
        if labels.shape != (batch, self.label_dim):
            raise ValueError(
                f"labels have shape {tuple(labels.shape)}: this denoiser needs one-hot labels "
                f"[{batch}, {self.label_dim}]"
            )
        return labels.to(torch.float32)
