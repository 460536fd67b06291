"""A fixed set of images with the numbers it has always had: no change may move them unnoticed."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from torch import Tensor

from disback_cli.data.dataset import ImageDataset
from disback_cli.data.digits import digits
from disback_cli.data.pixels import to_float
from disback_cli.evaluation.features import DigitsFeatures
from disback_cli.evaluation.metrics import FrechetDistance
from disback_cli.evaluation.reference import ReferenceStatistics, compute
from disback_cli.evaluation.suite import EvaluationSuite

N = 500
IMAGES = "d534b2ac63f3e43a"
# the first three means, their sum, the trace and the squared length of the covariance
STATISTICS = [3.795232, 1.470437, 0.5202634, 59.3111, 150.3861, 2922.617]
NUMBERS = {
    "fid_500": 7.87475,
    "is_500": 6.53471,
    "is_std_500": 0.290418,
    "kid_500": 1.84674,
    "kid_std_500": 0.457814,
    "precision_500": 0.998,
    "recall_500": 0.686144,
}


def golden() -> ImageDataset:
    """500 digits under bars of all places and slopes, by whole-number arithmetic: uint8 [500, 1, 8, 8]."""
    i, y, x = torch.meshgrid(torch.arange(N), torch.arange(8), torch.arange(8), indexing="ij")
    distance = ((x - 3) * (i % 7 - 3) + (y - 4) * (i // 7 % 5 - 2) + i % 11 - 5).abs()
    bars = (255 - 60 * distance).clamp(min=0)
    images = (7 * digits().images[:N].long() + bars.unsqueeze(1)) // 8
    return ImageDataset(images.to(torch.uint8), name="golden", split="all")


@pytest.fixture(scope="module")
def statistics() -> ReferenceStatistics:
    return compute(golden(), DigitsFeatures(), features=True)


def measured(suite: EvaluationSuite, images: Tensor) -> dict[str, float]:
    suite.reset()
    for part in torch.arange(len(images)).split(128):
        suite.update(to_float(images[part]), part)
    return suite.compute()


def test_the_images_are_what_they_were() -> None:
    assert hashlib.sha256(golden().images.numpy().tobytes()).hexdigest()[:16] == IMAGES


def test_the_statistics_are_what_they_were(statistics: ReferenceStatistics) -> None:
    found = [*statistics.mu[:3], statistics.mu.sum(), statistics.sigma.trace(), np.square(statistics.sigma).sum()]
    assert found == pytest.approx(STATISTICS, rel=1e-4)


def test_the_numbers_are_what_they_were() -> None:
    reference = compute(digits(), DigitsFeatures(), features=True)
    suite = EvaluationSuite(DigitsFeatures(), n=N, reference=reference, kid=True, precision_recall=True)
    assert measured(suite, golden().images) == pytest.approx(NUMBERS, rel=1e-3)


def test_the_set_is_at_no_distance_from_itself(statistics: ReferenceStatistics) -> None:
    suite = EvaluationSuite(DigitsFeatures(), n=N, reference=statistics, kid=True, precision_recall=True)
    found = measured(suite, golden().images)
    assert found["fid_500"] == pytest.approx(0.0, abs=1e-6)
    assert found["precision_500"] == found["recall_500"] == 1.0


def test_a_shifted_copy_is_at_the_distance_of_the_shift(statistics: ReferenceStatistics) -> None:
    assert statistics.features is not None
    metric = FrechetDistance(64, statistics, N)
    metric.update(torch.from_numpy(statistics.features).double() + 0.25)
    assert float(metric.compute()) == pytest.approx(64 * 0.25**2, rel=1e-6)
