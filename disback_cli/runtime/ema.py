"""Exponential moving average of a network's weights, with the half-life given in images."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


class Ema(nn.Module):
    """A separate, frozen copy of a network that follows it; never swapped into the live one.

    Args:
        network: the network to follow; copied.
        halflife: images after which an old weight counts half; 0 keeps the average equal to the network.
        rampup: the half-life is at most this share of the images seen, so that the start is forgotten
            quickly (Karras et al. 2022 use 0.05); 0 switches the ramp off.
    """

    def __init__(self, network: nn.Module, *, halflife: float, rampup: float = 0.05) -> None:
        super().__init__()
        if halflife < 0 or rampup < 0:
            raise ValueError(f"EMA half-life and ramp-up must not be negative, got {halflife} and {rampup}")
        self.network = copy.deepcopy(network).requires_grad_(False).eval()
        self.halflife = halflife
        self.rampup = rampup

    def train(self, mode: bool = True) -> Ema:
        """Stay in evaluation mode: the average is only ever sampled from."""
        return super().train(False)

    def decay(self, batch_size: int, images_seen: int) -> float:
        """Share of the old average that one update of ``batch_size`` images keeps."""
        halflife = self.halflife
        if self.rampup:
            halflife = min(halflife, images_seen * self.rampup)
        return 0.5 ** (batch_size / halflife) if halflife > 0 else 0.0

    @torch.no_grad()
    def update(self, network: nn.Module, batch_size: int, images_seen: int) -> None:
        """Move the average towards ``network`` after one optimiser step on ``batch_size`` images.

        Frozen parameters are the same in both and are left out: of a network with adapters, only those are averaged.
        """
        pairs = zip(self.network.parameters(), network.parameters(), strict=True)
        trained = [(own, live) for own, live in pairs if live.requires_grad]
        mine: list[Tensor] = [own.detach() for own, _ in trained]
        theirs = [live.detach() for _, live in trained]
        torch._foreach_lerp_(mine, theirs, 1 - self.decay(batch_size, images_seen))
        for buffer, live in zip(self.network.buffers(), network.buffers(), strict=True):
            buffer.copy_(live)
