"""What f-divergences make of a density ratio: weights of a score difference (f-distill 2025)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from disback_cli.runtime.processes import mean_over_processes

Divergence = Literal["rkl", "kl", "js", "sf", "neyman", "hellinger", "jeffreys"]

LARGEST_LOGIT = 10.0
LEAST_RATIO, LARGEST_RATIO = 0.1, 20.0
BINS = 10
# EDM's ramp: K(0) is sigma_max, K(1) sigma_min.
_SIGMA_MIN, _SIGMA_MAX, _RHO = 0.002, 80.0, 7.0

# h(r) = r^2 f''(r) of the divergence E_student[f(r)], r = target's density over the student's. Constant factors are
# left out: h is divided by its mean.
WEIGHTS: dict[str, Callable[[Tensor], Tensor]] = {
    "rkl": torch.ones_like,
    "kl": lambda r: r,
    "js": lambda r: r / (1 + r),
    "sf": lambda r: 1 / (1 + r),
    "neyman": torch.reciprocal,
    "hellinger": torch.sqrt,
    "jeffreys": lambda r: 1 + r,
}


def ratio(logits: Tensor) -> Tensor:
    """r = exp(clamp(logit, -10, 10)), kept within [0.1, 20]; of the shape of ``logits``."""
    return logits.clamp(-LARGEST_LOGIT, LARGEST_LOGIT).exp().clamp(LEAST_RATIO, LARGEST_RATIO)


def ramp_bin(sigma: Tensor, bins: int = BINS) -> Tensor:
    """Which of equal parts of EDM's noise ramp a level is in: 0 holds sigma_max, bins - 1 sigma_min.

    Args:
        sigma: noise levels ``[B]``; those outside the ramp are in the first or last part.
        bins: number of parts.

    Returns:
        ``[B]``, int64.
    """
    top, bottom = _SIGMA_MAX ** (1 / _RHO), _SIGMA_MIN ** (1 / _RHO)
    position = (sigma.double() ** (1 / _RHO) - top) / (bottom - top)
    return (position * bins).floor().clamp(0, bins - 1).long()


def over_mean_of_bin(
    values: Tensor, index: Tensor, bins: int, agree: Callable[[Tensor], Tensor] = mean_over_processes
) -> Tensor:
    """Values divided by the mean of their bin, ``[B]``.

    Args:
        values: ``[B]``, > 0.
        index: bin of each value, ``[B]``, int64.
        bins: number of bins.
        agree: mean over all processes, so that the bins are those of the whole batch.
    """
    sums = values.new_zeros(2, bins)
    sums[0].index_add_(0, index, values)
    sums[1].index_add_(0, index, torch.ones_like(values))
    total, count = agree(sums)
    return values / (total[index] / count[index])


def ratio_weights(
    logits: Tensor,
    sigma: Tensor,
    divergence: Divergence,
    agree: Callable[[Tensor], Tensor] = mean_over_processes,
) -> Tensor:
    """h(r) of each sample with mean 1 over the batch, r with mean 1 within each of ten bins of the noise level.

    The batch is that of all processes; where a process goes through its share in several passes, it is theirs of one
    pass.

    Args:
        logits: the critic's ``[B]``, large for what looks real.
        sigma: noise levels, ``[B]`` or ``[B, 1, ...]``.
        divergence: name of the f-divergence.
        agree: see :func:`over_mean_of_bin`.

    Returns:
        ``[B]``, without a graph; exactly ones for ``rkl``.
    """
    with torch.no_grad():
        level = sigma.reshape(-1)
        relative = over_mean_of_bin(ratio(logits), ramp_bin(level), BINS, agree)
        weights = WEIGHTS[divergence](relative)
        return over_mean_of_bin(weights, torch.zeros_like(level, dtype=torch.long), 1, agree)


def check_divergence(divergence: str, has_critic: bool) -> None:
    """Raise a ValueError for an unknown divergence, or one whose ratio nothing estimates."""
    if divergence not in WEIGHTS:
        raise ValueError(f"objective.divergence={divergence!r}: valid are {', '.join(WEIGHTS)}")
    if divergence != "rkl" and not has_critic:
        raise ValueError(
            f"objective.divergence={divergence} needs the density ratio that a critic estimates, and "
            "objective.critic=null leaves it out: give objective.divergence=rkl, whose weight is 1, or keep the critic"
        )
