"""Sums over the processes of a run, whatever they communicate through."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from disback_cli.runtime.processes import rank_and_world


def sum_over_processes(value: Tensor) -> Tensor:
    """The sum of every process's `value`, alike on all and on the device of `value`; all must call it.

    Returns `value` itself in a process of its own, a new tensor otherwise.
    """
    _, world = rank_and_world()
    if world == 1:
        return value
    # NCCL moves nothing that is not on a GPU, Gloo takes the CPU.
    device = torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else torch.device("cpu")
    total = value.detach().to(device, copy=True)
    dist.all_reduce(total)
    return total.to(value.device)
