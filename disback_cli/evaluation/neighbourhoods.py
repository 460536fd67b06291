"""Precision and recall of a generator (Kynkäänniemi et al. 2019, arXiv 1904.06991) from two sets of features.

Around each point of a set lies a ball that reaches to its k-th nearest neighbour in the set; their union stands for the
support of the law. Precision is the fraction of generated samples within the data's balls, recall the fraction of data
within the generator's. Distances are float64: their squares are small differences of large numbers.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from disback_cli.evaluation.reduction import sum_over_processes
from disback_cli.runtime.processes import rank_and_world
from disback_cli.runtime.progress import tracked

NEIGHBOURS = 3
_ROWS, _COLUMNS = 512, 4096  # a tile of distances takes 16 MiB
# A squared distance below this part of the two squared lengths is rounding: the points are the same.
_ROUNDING = 1e-12


def precision_recall(
    features: Tensor,
    reference: Tensor,
    *,
    k: int = NEIGHBOURS,
    device: torch.device | str = "cpu",
    what: str = "",
) -> tuple[float, float]:
    """Precision and recall of features float [n, d] against reference [m, d], each in 0..1.

    The processes share the rows out in fixed blocks, so all must call it, and get the same. ValueError unless both
    sets have more than `k` points.
    """
    if min(len(features), len(reference)) <= k:
        raise ValueError(f"{k} neighbours need more than {k} points, got {len(features)} and {len(reference)}")
    device = torch.device(device)
    precision = _fraction_inside(features, reference, _squared_radii(reference, k, device, what), device, what)
    recall = _fraction_inside(reference, features, _squared_radii(features, k, device, what), device, what)
    return precision, recall


def _squared_radii(points: Tensor, k: int, device: torch.device, what: str) -> Tensor:
    """Squared distance of every point [n, d] to its k-th nearest other one, float64 [n] on the CPU."""
    radii = torch.zeros(len(points), dtype=torch.float64)
    for first, rows in _own_blocks(points, device, what):
        nearest = torch.empty(len(rows), 0, dtype=torch.float64, device=device)
        for _, distances in _squared_distances(rows, points):
            # the point itself, at distance zero, is among them
            closest = distances.topk(min(k + 1, distances.shape[1]), dim=1, largest=False, sorted=False).values
            nearest = torch.cat([nearest, closest], dim=1)
            nearest = nearest.topk(min(k + 1, nearest.shape[1]), dim=1, largest=False).values
        radii[first : first + len(rows)] = nearest[:, -1].cpu()
    return sum_over_processes(radii)


def _fraction_inside(queries: Tensor, centres: Tensor, radii: Tensor, device: torch.device, what: str) -> float:
    """Fraction of queries [n, d] within the ball of at least one centre [m, d]; `radii` [m] are squared."""
    radii = radii.to(device)
    inside = torch.zeros(1, dtype=torch.int64)
    for _, rows in _own_blocks(queries, device, what):
        hit = torch.zeros(len(rows), dtype=torch.bool, device=device)
        for first, distances in _squared_distances(rows, centres):
            hit |= (distances <= radii[first : first + distances.shape[1]]).any(dim=1)
        inside += hit.sum().cpu()
    return int(sum_over_processes(inside)) / len(queries)


def _own_blocks(points: Tensor, device: torch.device, what: str) -> Iterator[tuple[int, Tensor]]:
    """This process's blocks of rows with the index of their first, in float64 on the device."""
    rank, world = rank_and_world()
    starts = range(rank * _ROWS, len(points), world * _ROWS)
    for first in tracked(starts, what, len(starts), quiet=not what or rank > 0):
        yield first, points[first : first + _ROWS].to(device, torch.float64)


def _squared_distances(rows: Tensor, points: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Squared distances [rows, columns] from the rows to all points, in tiles with the index of their first column."""
    squares = rows.square().sum(dim=1, keepdim=True)
    for first in range(0, len(points), _COLUMNS):
        columns = points[first : first + _COLUMNS].to(rows)
        lengths = squares + columns.square().sum(dim=1)
        distances = torch.addmm(lengths, rows, columns.T, alpha=-2.0)
        yield first, distances.masked_fill_(distances < lengths.mul_(_ROUNDING), 0.0)
