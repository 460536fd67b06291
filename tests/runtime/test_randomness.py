"""Draws addressed by (seed, purpose, iteration, sample)."""

import pytest
import torch

from disback_cli.runtime.randomness import BLOCK, CounterRandom, counter_seed

CPU = torch.device("cpu")
DRAWS = {
    "normal": lambda random, purpose, iteration, first, count: random.normal(
        purpose, iteration, first, count, (3, 2), CPU
    ),
    "uniform": lambda random, purpose, iteration, first, count: random.uniform(purpose, iteration, first, count, CPU),
    "labels": lambda random, purpose, iteration, first, count: random.one_hot_labels(
        purpose, iteration, first, count, 7, CPU
    ),
}


@pytest.mark.parametrize("kind", DRAWS)
@pytest.mark.parametrize("first", [0, 5, BLOCK, 1000])
def test_samples_do_not_depend_on_how_they_are_split(kind, first):
    draw = DRAWS[kind]
    random = CounterRandom(3)
    whole = draw(random, "z", 4, first, 45)
    for sizes in ([45], [1, 44], [16, 16, 13], [7, 9, 16, 13], [1] * 45):
        parts, start = [], first
        for size in sizes:
            parts.append(draw(CounterRandom(3), "z", 4, start, size))
            start += size
        assert torch.equal(torch.cat(parts), whole)


@pytest.mark.parametrize("kind", DRAWS)
@pytest.mark.parametrize("other", [("seed", 1, "z", 4, 0), ("purpose", 0, "noise", 4, 0), ("iteration", 0, "z", 5, 0),
                                   ("sample", 0, "z", 4, 64)], ids=lambda other: other[0])  # fmt: skip
def test_every_part_of_the_address_changes_the_draw(kind, other):
    draw = DRAWS[kind]
    _, seed, purpose, iteration, first = other
    assert not torch.equal(
        draw(CounterRandom(0), "z", 4, 0, 64), draw(CounterRandom(seed), purpose, iteration, first, 64)
    )


def test_global_generators_are_neither_used_nor_moved():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = DRAWS["normal"](CounterRandom(0), "z", 0, 0, 40)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(99)
    assert torch.equal(DRAWS["normal"](CounterRandom(0), "z", 0, 0, 40), first)


def test_normal_draws_have_the_moments_of_the_normal_law_and_no_repeats():
    x = CounterRandom(0).normal("z", 0, 0, 20_000, (2,), CPU)
    assert x.dtype == torch.float32
    deviation = 1 / 20_000**0.5
    assert float(x.mean(0).abs().max()) < 4 * deviation
    assert float((x.var(0) - 1).abs().max()) < 6 * deviation
    assert abs(float((x[:, 0] * x[:, 1]).mean())) < 4 * deviation
    assert abs(float((x[:-1, 0] * x[1:, 0]).mean())) < 4 * deviation
    assert abs(float(x.pow(4).mean()) - 3) < 0.15
    assert len(x[:, 0].unique()) > 19_900


def test_uniform_draws_fill_the_unit_interval_in_double_precision():
    u = CounterRandom(0).uniform("u", 0, 0, 20_000, CPU)
    assert u.dtype == torch.float64
    assert 0 <= float(u.min()) < 0.001
    assert 0.999 < float(u.max()) < 1
    assert float(u.mean()) == pytest.approx(0.5, abs=0.01)
    assert float(u.var()) == pytest.approx(1 / 12, abs=0.003)
    gap = (u.sort().values - (torch.arange(20_000) + 0.5) / 20_000).abs().max()
    assert float(gap) < 1.95 / 20_000**0.5  # Kolmogorov-Smirnov, p = 0.001


def test_labels_are_one_hot_and_uniform():
    labels = CounterRandom(0).one_hot_labels("labels", 0, 0, 7000, 7, CPU)
    assert labels.dtype == torch.float32
    assert labels.shape == (7000, 7)
    assert torch.equal(labels.sum(1), torch.ones(7000))
    assert torch.equal(labels.max(1).values, torch.ones(7000))
    chi_squared = float(((labels.sum(0) - 1000) ** 2 / 1000).sum())
    assert chi_squared < 22.5  # 6 degrees of freedom, p = 0.001


def test_no_classes_no_labels():
    assert CounterRandom(0).one_hot_labels("labels", 0, 0, 4, 0, CPU) is None


def test_purposes_are_uncorrelated():
    random = CounterRandom(0)
    first, second = (random.normal(purpose, 0, 0, 20_000, (1,), CPU) for purpose in ("z", "noise_generator"))
    assert abs(float((first * second).mean())) < 4 / 20_000**0.5


def test_counter_seed_fits_a_generator_and_depends_on_every_part():
    seeds = {counter_seed(seed, purpose, i) for seed in range(5) for purpose in ("a", "b") for i in range(50)}
    assert len(seeds) == 500
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_what_networks_draw_inside_differs_by_iteration_and_rank_and_is_reproducible():
    def inside(seed, iteration, rank):
        CounterRandom(seed).seed_global(iteration, rank)
        return torch.rand(8)

    assert torch.equal(inside(0, 3, 1), inside(0, 3, 1))
    for other in ((1, 3, 1), (0, 4, 1), (0, 3, 0)):
        assert not torch.equal(inside(0, 3, 1), inside(*other))
