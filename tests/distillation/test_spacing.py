"""Where nodes lie: properties of the three spacings, and optimality against brute force."""

import itertools

import pytest
import torch

from disback_cli.distillation.spacing import (
    CANDIDATE_RATIO,
    candidate_steps,
    even_steps,
    geometric_steps,
    select_by_distance,
    thin,
)

SIZES = [(1, 1), (1, 7), (2, 2), (3, 3), (3, 4), (5, 5), (4, 60), (7, 8), (16, 17), (16, 1000), (40, 41)]


@pytest.mark.parametrize("steps", [even_steps, geometric_steps], ids=lambda f: f.__name__)
@pytest.mark.parametrize(("nodes", "iterations"), SIZES)
def test_steps_are_as_many_as_asked_distinct_ascending_and_end_with_the_recording(steps, nodes, iterations):
    found = steps(nodes, iterations)
    assert len(found) == nodes
    assert found == sorted(set(found))
    assert found[0] >= 1
    assert found[-1] == iterations


@pytest.mark.parametrize("steps", [even_steps, geometric_steps], ids=lambda f: f.__name__)
def test_steps_refuse_more_nodes_than_iterations(steps):
    with pytest.raises(ValueError, match="do not fit"):
        steps(5, 4)


def test_even_steps_are_evenly_spaced():
    assert even_steps(4, 60) == [15, 30, 45, 60]
    gaps = torch.tensor([0, *even_steps(7, 100)]).diff()
    assert int(gaps.max() - gaps.min()) <= 1


def test_geometric_steps_grow_by_a_constant_factor():
    assert geometric_steps(3, 1000) == [10, 100, 1000]


@pytest.mark.parametrize("iterations", [1, 2, 3, 10, 60, 1000, 100_000])
def test_candidate_steps_begin_at_once_and_grow_by_at_most_the_ratio(iterations):
    steps = candidate_steps(iterations)
    assert steps[0] == 1
    assert steps[-1] == iterations
    assert steps == sorted(set(steps))
    assert all(late <= max(early + 1, CANDIDATE_RATIO * early + 0.5) for early, late in itertools.pairwise(steps))


def test_candidates_are_logarithmic_in_number():
    assert len(candidate_steps(100_000)) < 60


def cost(distances, chosen) -> float:
    places = [0.0, *(distances[i] for i in chosen)]
    return sum((b - a) ** 2 for a, b in itertools.pairwise(places))


@pytest.mark.parametrize("seed", range(12))
def test_selection_by_distance_is_the_best_of_all_selections(seed):
    generator = torch.Generator().manual_seed(seed)
    count = 4 + seed % 6
    distances = torch.rand(count, generator=generator).tolist()
    if seed % 2:
        distances.sort()
    for nodes in range(1, count + 1):
        chosen = select_by_distance(distances, nodes)
        assert len(chosen) == nodes
        assert chosen == sorted(set(chosen))
        assert chosen[-1] == count - 1
        options = itertools.combinations(range(count - 1), nodes - 1)
        best = min(cost(distances, (*option, count - 1)) for option in options)
        assert cost(distances, chosen) == pytest.approx(best, rel=1e-12)


def test_selection_finds_the_even_split_of_a_saturating_recording():
    distances = [0.1, 0.25, 0.3, 0.5, 0.7, 0.75, 0.98, 0.99, 1.0]
    assert [distances[i] for i in select_by_distance(distances, 4)] == [0.25, 0.5, 0.75, 1.0]


def test_selection_refuses_more_nodes_than_candidates():
    with pytest.raises(ValueError, match="only 2 candidates"):
        select_by_distance([0.1, 0.2], 3)


@pytest.mark.parametrize("seed", range(10))
def test_thinning_never_drops_the_last_and_drops_the_one_in_the_narrowest_place(seed):
    generator = torch.Generator().manual_seed(seed)
    distances = torch.rand(2 + seed, generator=generator).cumsum(0).tolist()
    dropped = thin(distances)
    assert 0 <= dropped < len(distances) - 1
    places = [0.0, *distances]
    widths = [places[i + 1] - places[i - 1] for i in range(1, len(places) - 1)]
    assert widths[dropped] == min(widths)


def test_repeated_thinning_keeps_the_newest_candidate_and_the_range():
    kept: list[float] = []
    for step in range(200):
        kept.append(1 - 0.97 ** (step + 1))
        if len(kept) > 8:
            kept.pop(thin(kept))
    assert kept[-1] == 1 - 0.97**200
    assert kept == sorted(kept)
    assert max(b - a for a, b in itertools.pairwise([0.0, *kept])) < 0.35
