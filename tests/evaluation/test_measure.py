"""Ranges of the evaluation set, and what is said about several of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from disback_cli.data.points import ring
from disback_cli.evaluation.features import PointFeatures
from disback_cli.evaluation.measure import Measured, measure, measure_ranges, over_ranges
from disback_cli.evaluation.suite import EvaluationSuite


class Counted:
    """A sampler that notes what was asked of it."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []
        self.points = ring(n=1000, seed=1).points

    def __call__(self, first: int, count: int) -> Tensor:
        self.asked.append((first, count))
        return self.points[first : first + count]


@pytest.fixture
def suite(tmp_path: Path) -> EvaluationSuite:
    return EvaluationSuite(PointFeatures(), ring(n=500), 100, cache_dir=tmp_path, kid=True, precision_recall=True)


def test_a_range_is_the_samples_of_its_indices(suite: EvaluationSuite) -> None:
    sampler = Counted()
    parts = measure_ranges(sampler, suite, 40, 3)
    assert sampler.asked == [
        (first + start, count) for first in (0, 100, 200) for start, count in ((0, 40), (40, 40), (80, 20))
    ]
    assert suite.names == ("fid_100", "kid_100", "kid_std_100", "precision_100", "recall_100", "swd_100")
    for index, part in enumerate(parts):
        alone = measure(lambda first, count, at=100 * index: sampler.points[at + first : at + first + count], suite, 40)
        assert alone.metrics == part.metrics
    assert len({part.metrics["fid_100"] for part in parts}) == 3


def test_numbers_of_several_ranges() -> None:
    def part(fid: float, score: float) -> Measured:
        return Measured({"fid_50k": fid, "is_50k": score, "is_std_50k": 0.1, "precision_50k": score / 10}, 1.0)

    assert over_ranges([part(2.0, 9.0)]) == part(2.0, 9.0).metrics
    assert over_ranges([part(2.0, 9.0), part(1.9, 8.0), part(2.1, 10.0)]) == pytest.approx(
        {
            "fid_50k_min": 1.9, "fid_50k_mean": 2.0, "is_50k_max": 10.0, "is_50k_mean": 9.0, "is_std_50k_mean": 0.1,
            "precision_50k_max": 1.0, "precision_50k_mean": 0.9,
        }
    )  # fmt: skip


def test_the_batch_size_does_not_reach_the_numbers(suite: EvaluationSuite) -> None:
    sampler = Counted()
    with torch.inference_mode():
        found = [measure(sampler, suite, size).metrics for size in (100, 7)]
    assert found[0] == pytest.approx(found[1], rel=1e-9, abs=1e-12)
