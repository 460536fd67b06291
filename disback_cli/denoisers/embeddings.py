"""Embeddings of the noise level, and what happens to class labels on their way into a network.

Everything here is fp32, whatever the dtype of the network's activations: c_noise reaches 1000 in some
parametrisations, where the narrow types no longer tell neighbouring noise levels apart.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class PositionalEmbedding(nn.Module):
    """Cosines and sines of a scalar at geometrically spaced frequencies, from 1 down to 1/10000."""

    def __init__(self, channels: int, endpoint: bool = True) -> None:
        """Prepare ``channels / 2`` frequencies; they are constants and not part of the state dict.

        Args:
            channels: width of the embedding.
            endpoint: include the frequency 1/10000 (DDPM++) or stop one step before it (ADM).
        """
        super().__init__()
        half = channels // 2
        exponents = torch.arange(half, dtype=torch.float32) / max(half - int(endpoint), 1)
        self.register_buffer("freqs", (1 / 10000) ** exponents, persistent=False)
        self.freqs: Tensor

    def forward(self, noise: Tensor) -> Tensor:
        """Map [B] to [B, channels], fp32."""
        angle = noise.to(torch.float32).outer(self.freqs.to(torch.float32))
        return torch.cat([angle.cos(), angle.sin()], dim=1)


class FourierEmbedding(nn.Module):
    """Cosines and sines of a scalar at random Gaussian frequencies (part of the state dict)."""

    def __init__(self, channels: int, scale: float = 16.0) -> None:
        """Draw ``channels / 2`` frequencies from N(0, scale^2)."""
        super().__init__()
        self.register_buffer("freqs", torch.randn(channels // 2) * scale)
        self.freqs: Tensor

    def forward(self, noise: Tensor) -> Tensor:
        """Map [B] to [B, channels], fp32."""
        angle = noise.to(torch.float32).outer(self.freqs.to(torch.float32) * (2 * math.pi))
        return torch.cat([angle.cos(), angle.sin()], dim=1)


def network_labels(labels: Tensor | None, batch: int, label_dim: int, dropout: float) -> Tensor:
    """The class labels a conditional network embeds.

    Args:
        labels: one-hot, [batch, label_dim]; rows of zeros mean "no class".
        batch: number of samples.
        label_dim: number of classes.
        dropout: probability of zeroing a whole row; 0 draws no random numbers.

    Returns:
        [batch, label_dim], fp32.

    Raises:
        ValueError: the labels are missing.
    """
    if labels is None:
        raise ValueError(f"class_labels are missing: pass one-hot labels [{batch}, {label_dim}]")
    labels = labels.to(torch.float32)
    if dropout > 0:
        labels = labels * (torch.rand(batch, 1, device=labels.device) >= dropout)
    return labels
