"""Kernel Inception Distance (Binkowski et al. 2018, arXiv 1801.01401) between two sets of features."""

from __future__ import annotations

import torch
from torch import Tensor

from disback_cli.evaluation.reduction import sum_over_processes
from disback_cli.runtime.processes import rank_and_world
from disback_cli.runtime.progress import tracked

SUBSETS = 100
SUBSET_SIZE = 1000


def squared_mmd(x: Tensor, y: Tensor) -> Tensor:
    """Unbiased squared maximum mean discrepancy of x [m, d] and y [n, d], m and n at least 2; may be negative.

    The kernel is the paper's, (x.y / d + 1)^3; pairs of a sample with itself are left out of the means within a set.
    """
    dim, m, n = x.shape[1], len(x), len(y)
    within_x, within_y, across = ((a @ b.T / dim + 1.0) ** 3 for a, b in ((x, x), (y, y), (x, y)))
    mean_x = (within_x.sum() - within_x.trace()) / (m * (m - 1))
    mean_y = (within_y.sum() - within_y.trace()) / (n * (n - 1))
    return mean_x + mean_y - 2.0 * across.mean()


def kernel_distance(
    features: Tensor,
    reference: Tensor,
    *,
    subsets: int = SUBSETS,
    size: int = SUBSET_SIZE,
    seed: int = 0,
    device: torch.device | str = "cpu",
    what: str = "",
) -> tuple[float, float]:
    """Mean and standard deviation of `squared_mmd` over random subsets, as the paper and its users report it.

    Each of `subsets` times, `size` features of either set are drawn without replacement; fewer where a set is smaller.
    The draws depend on `seed` alone. The processes share the subsets out, so all must call it, and get the same.

    Args:
        features: float [n, d].
        reference: float [m, d].
        subsets: how many.
        size: features of each set in a subset.
        seed: of the draws.
        device: where to compute, in float64.
        what: shown with the progress; empty shows none.
    """
    size = min(size, len(features), len(reference))
    if size < 2:
        raise ValueError(f"a kernel distance needs 2 samples of either set, got {len(features)} and {len(reference)}")
    rank, world = rank_and_world()
    generator = torch.Generator().manual_seed(seed)
    found = torch.zeros(subsets, dtype=torch.float64)
    for index in tracked(range(subsets), what, subsets, quiet=not what or rank > 0):
        x, y = (torch.randperm(len(s), generator=generator)[:size] for s in (features, reference))
        if index % world == rank:
            found[index] = squared_mmd(features[x].to(device, torch.float64), reference[y].to(device, torch.float64))
    found = sum_over_processes(found)
    return float(found.mean()), float(found.std(correction=0))
