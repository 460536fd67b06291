"""The processes of a run: which one this is, how many there are, and a mean over all of them."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn


def rank_and_world() -> tuple[int, int]:
    """Rank of this process and how many take part; (0, 1) for a process of its own."""
    if not (dist.is_available() and dist.is_initialized()):
        return 0, 1
    return dist.get_rank(), dist.get_world_size()


def mean_over_processes(value: Tensor) -> Tensor:
    """Mean of every process's ``value``, alike on all; in place, and all must call it."""
    _, world = rank_and_world()
    if world > 1:
        dist.all_reduce(value)
        value /= world
    return value


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Make every gradient the mean over all processes, in one collective; all must call it with the same parameters."""
    _, world = rank_and_world()
    gradients = [p.grad for p in parameters if p.grad is not None]
    if world == 1 or not gradients:
        return
    flat = mean_over_processes(torch.cat([g.flatten() for g in gradients]))
    for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))


def wait_for_all() -> None:
    """Return when every process has come here; all must call it."""
    _, world = rank_and_world()
    if world > 1:
        dist.barrier()
