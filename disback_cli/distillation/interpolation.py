"""Weights at a position of the path: a node's own, or between those of two neighbours."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor


def interpolated(weights_of: Callable[[int], dict[str, Tensor]], position: float) -> dict[str, Tensor]:
    """Weights at a position of the path.

    Args:
        weights_of: weights of a node, all nodes with the same names and shapes.
        position: an integer is a node; a fraction f between nodes i and i+1 gives (1 - f) w_i + f w_(i+1).

    Returns:
        At integers the node's tensors themselves, bit for bit. Between nodes, tensors that are not floating point
        (counters, tables) are those of the node nearer to the teacher.
    """
    lower = math.floor(position)
    share = position - lower
    if share == 0:
        return weights_of(lower)
    near, far = weights_of(lower), weights_of(lower + 1)
    return {
        name: torch.lerp(tensor, far[name], share) if tensor.is_floating_point() else tensor
        for name, tensor in near.items()
    }
