"""The denoising loss that every stage trains with, and the mismatch that every stage reports."""

from __future__ import annotations

import torch
from torch import Tensor

from disback_cli.denoisers.preconditioning import loss_weight
from disback_cli.denoisers.protocol import expand_sigma
from disback_cli.distillation.weightings import EdmWeighting, Weighting


def denoising_loss(
    denoised: Tensor, clean: Tensor, sigma: Tensor, sigma_data: float, weighting: Weighting | None = None
) -> Tensor:
    """Denoising score matching loss, w(sigma) * (D - x)^2 (Karras et al. 2022, eq. 8; DisBack eq. 5 and 7).

    Args:
        denoised: D(x + sigma n; sigma), ``[B, ...]``.
        clean: the samples x, ``[B, ...]``; detach them when they come from a generator.
        sigma: noise levels ``[B]``.
        sigma_data: standard deviation of the data.
        weighting: w; None is EDM's lam, with which the equations are stated.

    Returns:
        Mean over batch and components (a scalar); Adam is indifferent to mean or sum.
    """
    weight = expand_sigma((weighting or EdmWeighting())(sigma, sigma_data), clean)
    return (weight * (denoised - clean).square()).mean()


@torch.no_grad()
def mismatch(first: Tensor, second: Tensor, sigma: Tensor, sigma_data: float) -> Tensor:
    """How far two denoisers are apart on the same noisy samples: sqrt(mean lam(sigma) (D_1 - D_2)^2), a scalar.

    lam(sigma) = 1 / c_out(sigma)^2, so the unit is that of the raw network's output, whose training target has
    unit variance: 0 means equal, 1 means as far apart as predicting the mean is from predicting the truth.
    """
    weight = expand_sigma(loss_weight(sigma, sigma_data), first)
    return (weight * (first - second).square()).mean().sqrt()
