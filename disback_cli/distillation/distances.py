"""Distances between a sample that was made and the one that was wanted, for regression on a teacher's pairs."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor


class Distance(ABC):
    """What a regression minimises.

    A user's own, named by ``_target_``, is called like this one; a network it needs (LPIPS's VGG) is its own affair:
    put it on the device of the samples, and keep its parameters frozen.
    """

    @abstractmethod
    def __call__(self, made: Tensor, wanted: Tensor) -> Tensor:
        """Distance of each sample.

        Args:
            made: what the student made, [B, *shape], images in [-1, 1]; with its graph.
            wanted: what the teacher made of the same latents, [B, *shape].

        Returns:
            [B], each >= 0.
        """


class PixelDistance(Distance):
    """Mean squared difference over the elements of a sample."""

    def __call__(self, made: Tensor, wanted: Tensor) -> Tensor:
        """Distance of each sample, [B]; units: those of the samples, squared."""
        return _mean_squares(made, wanted)


class PseudoHuber(Distance):
    """``sqrt(d^2 + c^2) - c`` with d the root mean square difference over the elements of a sample.

    Squared for differences well below c, linear for those well above it: a few bad samples weigh less.

    Args:
        c: where the one goes over into the other, > 0, in units of the samples.

    Raises:
        ValueError: ``c`` is not positive.
    """

    def __init__(self, *, c: float = 0.03) -> None:
        if not c > 0:
            raise ValueError(f"distance.c={c}: need a number above 0, in units of the samples")
        self.c = c

    def __call__(self, made: Tensor, wanted: Tensor) -> Tensor:
        """Distance of each sample, [B]; units: those of the samples."""
        return torch.sqrt(_mean_squares(made, wanted) + self.c**2) - self.c


def _mean_squares(made: Tensor, wanted: Tensor) -> Tensor:
    return (made - wanted).square().flatten(1).mean(1)
