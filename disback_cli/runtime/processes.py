"""The processes of a run: which one this is, how many there are, and a mean over all of them."""

from __future__ import annotations

import torch.distributed as dist
from torch import Tensor


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
