"""Where on the recording the nodes lie: evenly in steps, geometrically, or evenly in the place on the way."""

from __future__ import annotations

from collections.abc import Sequence

# Candidates of a recording spaced by distance: each step is about this much later than the one before. Stage 1
# moves fast first and saturates, so a geometric grid resolves all of it with a few candidates.
CANDIDATE_RATIO = 1.4


def even_steps(nodes: int, iterations: int) -> list[int]:
    """Steps of nodes 1..N, evenly spaced, the last at the end of the recording."""
    return _distinct([round(iterations * j / nodes) for j in range(1, nodes + 1)], iterations)


def geometric_steps(nodes: int, iterations: int) -> list[int]:
    """Steps of nodes 1..N in a geometric progression, the last at the end of the recording."""
    return _distinct([round(iterations ** (j / nodes)) for j in range(1, nodes + 1)], iterations)


def candidate_steps(iterations: int, ratio: float = CANDIDATE_RATIO) -> list[int]:
    """Steps at which a recording spaced by distance measures and keeps a candidate, the end included."""
    steps, step = [], 1
    while step < iterations:
        steps.append(step)
        step = max(step + 1, round(step * ratio))
    return [*steps, iterations]


def _distinct(steps: list[int], iterations: int) -> list[int]:
    """Push equal steps apart, keeping order and the last one."""
    for i in range(len(steps)):
        floor = steps[i - 1] + 1 if i else 1
        steps[i] = max(steps[i], floor)
    for i in range(len(steps) - 1, -1, -1):
        ceiling = iterations if i == len(steps) - 1 else steps[i + 1] - 1
        steps[i] = min(steps[i], ceiling)
    if steps[0] < 1:
        raise ValueError(f"{len(steps)} nodes do not fit into {iterations} iterations of recording")
    return steps


def thin(distances: Sequence[float]) -> int:
    """Index of the candidate that is missed least: the one whose neighbours are closest to each other.

    The last candidate is never given up; before the first one lies the teacher, at 0.

    Args:
        distances: place of each candidate, as in :func:`select_by_distance`.
    """
    padded = [0.0, *distances]
    gaps = [abs(padded[i + 2] - padded[i]) for i in range(len(distances) - 1)]
    return gaps.index(min(gaps))


def select_by_distance(distances: Sequence[float], nodes: int) -> list[int]:
    """Indices of the ``nodes`` candidates that split the way from the teacher most evenly; the last is always in.

    Minimises the sum of squared gaps between consecutive nodes, the teacher at 0 included, which is least when
    all gaps are equal. Exact, by dynamic programming.

    Args:
        distances: place of each candidate, in order of recording: its mismatch to the teacher, or its way from the
            teacher through all candidates before.
        nodes: how many to choose, at least 1.

    Raises:
        ValueError: fewer candidates than nodes.
    """
    count = len(distances)
    if nodes > count:
        raise ValueError(f"{nodes} nodes asked for, but only {count} candidates were recorded")
    cost = [[d * d for d in distances]]
    previous: list[list[int]] = []
    for _ in range(1, nodes):
        row, back = [float("inf")] * count, [-1] * count
        for i in range(count):
            for j in range(i):
                step = cost[-1][j] + (distances[i] - distances[j]) ** 2
                if step < row[i]:
                    row[i], back[i] = step, j
        cost.append(row)
        previous.append(back)
    chosen = [count - 1]
    for back in reversed(previous):
        chosen.append(back[chosen[-1]])
    return chosen[::-1]
