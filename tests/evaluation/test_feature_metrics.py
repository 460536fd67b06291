"""KID, precision and recall against their definitions, and the features they are computed from."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchmetrics.image.kid import KernelInceptionDistance

from disback_cli.evaluation import neighbourhoods
from disback_cli.evaluation.feature_bank import FeatureBank
from disback_cli.evaluation.kernel_distance import kernel_distance, squared_mmd
from disback_cli.evaluation.neighbourhoods import precision_recall


def normal(n: int, dim: int, seed: int, mean: float = 0.0) -> Tensor:
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + mean


def mmd_pair_by_pair(x: Tensor, y: Tensor) -> float:
    """Binkowski et al. 2018, equation 4, with their kernel."""

    def kernel(a: Tensor, b: Tensor) -> float:
        return float((a @ b / len(a) + 1.0) ** 3)

    m, n = len(x), len(y)
    within_x = sum(kernel(x[i], x[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    within_y = sum(kernel(y[i], y[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    return within_x + within_y - 2 * sum(kernel(a, b) for a in x for b in y) / (m * n)


def test_squared_mmd_is_the_definition() -> None:
    x, y = normal(9, 5, 0), normal(12, 5, 1, mean=0.4)
    assert float(squared_mmd(x, y)) == pytest.approx(mmd_pair_by_pair(x, y), rel=1e-12)


def test_squared_mmd_of_two_laws_in_closed_form() -> None:
    """In one dimension, of the laws "always a" and "always b", each pair of a set has the same kernel."""
    a, b = torch.full((4, 1), 0.5).double(), torch.full((6, 1), 2.0).double()
    assert float(squared_mmd(a, b)) == pytest.approx((0.25 + 1) ** 3 + (4 + 1) ** 3 - 2 * (1 + 1) ** 3, rel=1e-12)


def test_kid_of_one_law_is_zero_on_average_and_of_another_is_not() -> None:
    same = kernel_distance(normal(2000, 16, 0), normal(2000, 16, 1), size=200)
    shifted = kernel_distance(normal(2000, 16, 0, mean=0.5), normal(2000, 16, 1), size=200)
    assert abs(same[0]) < 0.01 and shifted[0] > 0.5
    assert same[1] > 0, "the subsets differ"


def test_kid_of_whole_sets_needs_no_draw() -> None:
    """A subset of all samples is the set itself, in another order."""
    x, y = normal(50, 6, 0), normal(50, 6, 1, mean=0.3)
    mean, spread = kernel_distance(x, y, subsets=4)
    assert mean == pytest.approx(float(squared_mmd(x, y)), rel=1e-10) and spread < 1e-12
    small, _ = kernel_distance(x[:30], y, subsets=400)
    assert small == pytest.approx(float(squared_mmd(x[:30], y)), abs=0.05), "subsets of 30, the smaller set's size"
    with pytest.raises(ValueError, match="2 samples"):
        kernel_distance(x[:1], y)


class Pixels(nn.Module):
    """Features of torchmetrics' own KID."""

    num_features = 12

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1).float() / 255


def test_kid_agrees_with_torchmetrics() -> None:
    generator = torch.Generator().manual_seed(0)
    real = torch.randint(0, 256, (60, 3, 2, 2), generator=generator, dtype=torch.uint8)
    fake = (real.flip(0).float() * 0.7).to(torch.uint8)
    theirs = KernelInceptionDistance(feature=Pixels(), subsets=3, subset_size=60)
    theirs.update(real, real=True)
    theirs.update(fake, real=False)
    ours, _ = kernel_distance(Pixels()(fake), Pixels()(real), subsets=3)
    assert ours == pytest.approx(float(theirs.compute()[0]), rel=1e-4)


def precision_recall_by_definition(fake: Tensor, real: Tensor, k: int) -> tuple[float, float]:
    """Kynkäänniemi et al. 2019, equations 1 and 2."""

    def covered(queries: Tensor, centres: Tensor) -> float:
        radii = torch.cdist(centres, centres).sort(dim=1).values[:, k]
        hits = [any(float((q - c).norm()) <= float(r) for c, r in zip(centres, radii, strict=True)) for q in queries]
        return float(np.mean(hits))

    return covered(fake, real), covered(real, fake)


@pytest.mark.parametrize("k", [1, 3])
def test_precision_and_recall_are_the_definition(k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    fake, real = normal(70, 3, 0, mean=0.8) * 0.8, normal(90, 3, 1)
    expected = precision_recall_by_definition(fake, real, k)
    assert 0 < expected[1] < expected[0] < 1
    assert precision_recall(fake, real, k=k) == expected
    monkeypatch.setattr(neighbourhoods, "_ROWS", 16)
    monkeypatch.setattr(neighbourhoods, "_COLUMNS", 7)
    assert precision_recall(fake, real, k=k) == expected, "the tiles change nothing"


def test_precision_and_recall_of_known_supports() -> None:
    real = torch.cat([normal(100, 4, 0) * 0.1, normal(100, 4, 1) * 0.1 + 10])
    assert precision_recall(real, real) == (1.0, 1.0)
    assert precision_recall(real + 100, real) == (0.0, 0.0)
    one_mode = real[:100]
    assert precision_recall(one_mode, real) == (1.0, 0.5), "a dropped mode costs recall only"
    stray = torch.cat([real, normal(200, 4, 2) * 0.1 - 50])
    assert precision_recall(stray, real) == (0.5, 1.0), "invented samples cost precision only"


def test_copies_of_a_sample_are_at_distance_zero() -> None:
    """The neighbours of a sample that is there four times are its copies; rounding must not part them."""
    real = (normal(40, 64, 0) * 30 + 1000).repeat(4, 1)
    assert precision_recall(real[:40], real) == (1.0, 1.0)
    with pytest.raises(ValueError, match="more than 3 points"):
        precision_recall(real[:3], real)


def test_the_bank_keeps_every_sample_at_its_place() -> None:
    features = normal(50, 3, 0).float()
    bank = FeatureBank(50, 3)
    for part in torch.randperm(50, generator=torch.Generator().manual_seed(0)).split(7):
        bank.update(features[part], part)
    assert torch.equal(bank.collect(), features) and torch.equal(bank.collect(), features)
    with pytest.raises(RuntimeError, match="reset"):
        bank.update(features[:1], torch.tensor([0]))
    bank.reset()
    bank.update(features[:49], torch.arange(49))
    bank.update(features[:1], torch.tensor([0]))
    with pytest.raises(ValueError, match="1 are missing and 1 came more than once"):
        bank.collect()
    bank.reset()
    bank.update(torch.full((50, 3), math.nan), torch.arange(50))
    with pytest.raises(ValueError, match="not finite"):
        bank.collect()
    with pytest.raises(ValueError, match="expected features"):
        bank.update(torch.zeros(3), torch.arange(3))
