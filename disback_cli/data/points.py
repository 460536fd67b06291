"""Laws in the plane whose scores are known in closed form: Gaussian mixtures."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from disback_cli.data.dataset import PointDataset


def mixture(
    means: Sequence[Sequence[float]],
    std: float,
    *,
    weights: Sequence[float] | None = None,
    n: int = 20_000,
    seed: int = 0,
    name: str = "mixture",
) -> PointDataset:
    """Draw n points from isotropic Gaussians at `means` [K, d] of one standard deviation; the label is the component.

    `weights` [K] need not sum to one and default to equal. Raises ValueError for a negative std or a wrong number of
    weights.
    """
    centres = torch.tensor(means, dtype=torch.float32)
    if centres.ndim != 2 or std < 0:
        raise ValueError(f"means must be [K, d] and std not negative, got {list(centres.shape)} and {std}")
    odds = torch.ones(len(centres)) if weights is None else torch.tensor(weights, dtype=torch.float32)
    if odds.shape != (len(centres),):
        raise ValueError(f"{len(centres)} means need {len(centres)} weights, got {list(odds.shape)}")
    generator = torch.Generator().manual_seed(seed)
    labels = torch.multinomial(odds, n, replacement=True, generator=generator)
    noise: Tensor = torch.randn(n, centres.shape[1], generator=generator)
    return PointDataset(centres[labels] + std * noise, labels, name=name, num_classes=len(centres))


def ring(modes: int = 8, radius: float = 1.0, std: float = 0.05, *, n: int = 20_000, seed: int = 0) -> PointDataset:
    """A ring of equal Gaussians in the plane: the usual test for dropped modes."""
    angles = [2.0 * math.pi * mode / modes for mode in range(modes)]
    means = [(radius * math.cos(angle), radius * math.sin(angle)) for angle in angles]
    return mixture(means, std, n=n, seed=seed, name=f"ring{modes}")


def grid(modes: int = 16, spacing: float = 0.44, std: float = 0.08, *, n: int = 20_000, seed: int = 0) -> PointDataset:
    """A square grid of equal Gaussians around the origin.

    Raises ValueError unless `modes` is the square of 2 or more.
    """
    side = math.isqrt(max(modes, 0))
    if side < 2 or side**2 != modes:
        raise ValueError(f"modes={modes}: a grid needs a square number, 4, 9, 16, ...")
    axis = [(i - (side - 1) / 2) * spacing for i in range(side)]
    return mixture([[x, y] for x in axis for y in axis], std, n=n, seed=seed, name=f"grid{modes}")
