"""The metrics against closed forms, against torchmetrics, and against the order and splitting of the samples."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance

from disback_cli.evaluation.metrics import FrechetDistance, InceptionScore, SlicedWasserstein, quantile_distance
from disback_cli.evaluation.reference import ReferenceStatistics


def statistics(x: Tensor) -> ReferenceStatistics:
    values = x.to(torch.float64).numpy()
    return ReferenceStatistics(values.mean(0), np.cov(values, rowvar=False), len(values))


def normal(n: int, dim: int, seed: int) -> Tensor:
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def exact_moments(n: int, mean: Tensor, covariance: Tensor) -> Tensor:
    """n points whose sample mean and unbiased covariance are the given ones to rounding."""
    x = normal(n, len(mean), 0)
    x = x - x.mean(0)
    white = torch.linalg.solve_triangular(torch.linalg.cholesky(torch.cov(x.T)), x.T, upper=False).T
    return white @ torch.linalg.cholesky(covariance).T + mean


def test_fid_of_gaussians_in_closed_form() -> None:
    scale_a, scale_b = torch.tensor([1.0, 4.0, 0.25]).double(), torch.tensor([9.0, 1.0, 0.25]).double()
    shift = torch.tensor([1.0, -2.0, 0.5]).double()
    metric = FrechetDistance(3, ReferenceStatistics(np.zeros(3), torch.diag(scale_a).numpy(), 100))
    for part in exact_moments(500, shift, torch.diag(scale_b)).split(77):
        metric.update(part)
    expected = shift.square().sum() + (scale_a.sqrt() - scale_b.sqrt()).square().sum()
    assert float(metric.compute()) == pytest.approx(float(expected), rel=1e-10)


def test_fid_of_correlated_gaussians_in_closed_form() -> None:
    """Same eigenvectors are not needed: in the plane tr (A B)^1/2 = sqrt(tr AB + 2 sqrt(det AB))."""
    a = torch.tensor([[2.0, 0.7], [0.7, 1.0]]).double()
    b = torch.tensor([[1.0, -0.4], [-0.4, 3.0]]).double()
    metric = FrechetDistance(2, ReferenceStatistics(np.zeros(2), a.numpy(), 100))
    metric.update(exact_moments(300, torch.zeros(2).double(), b))
    root = torch.sqrt((a @ b).trace() + 2 * torch.sqrt(torch.linalg.det(a @ b)))
    assert float(metric.compute()) == pytest.approx(float(a.trace() + b.trace() - 2 * root), rel=1e-10)


def test_a_reference_that_is_no_covariance_gives_no_distance() -> None:
    metric = FrechetDistance(2, ReferenceStatistics(np.zeros(2), np.array([[1.0, 2.0], [2.0, 1.0]]), 100))
    metric.update(normal(50, 2, 0))
    with pytest.raises(ValueError, match="no negative eigenvalues"):
        metric.compute()


def test_fid_of_a_set_with_itself_and_with_its_shift() -> None:
    x = normal(400, 8, 1) + 3.0
    metric = FrechetDistance(8, statistics(x))
    metric.update(x)
    assert float(metric.compute()) == pytest.approx(0.0, abs=1e-10)
    metric.reset()
    metric.update(x + 0.5)
    assert float(metric.compute()) == pytest.approx(8 * 0.25, rel=1e-9)


def test_states_start_at_zero() -> None:
    """A metric whose sums start at one is off by little, and for ever."""
    metric = FrechetDistance(3, statistics(normal(10, 3, 0)))
    assert int(metric.n) == 0 and not metric.total.any() and not metric.outer.any()
    assert metric.outer.dtype == torch.float64


class Flatten(nn.Module):
    """Features of torchmetrics' own FID: the pixels themselves."""

    num_features = 12

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1).float()


def test_fid_agrees_with_torchmetrics() -> None:
    generator = torch.Generator().manual_seed(0)
    real = torch.randint(0, 256, (300, 3, 2, 2), generator=generator, dtype=torch.uint8)
    fake = (real.flip(0).float() * 0.8 + 10 * torch.rand(real.shape, generator=generator)).to(torch.uint8)
    theirs = FrechetInceptionDistance(feature=Flatten(), normalize=False, input_img_size=(3, 2, 2))
    theirs.update(real, real=True)
    theirs.update(fake, real=False)
    ours = FrechetDistance(12, statistics(real.flatten(1)))
    ours.update(fake.flatten(1).float())
    assert float(ours.compute()) == pytest.approx(float(theirs.compute()), rel=1e-4)


def test_fid_refuses_what_would_give_a_false_number() -> None:
    metric = FrechetDistance(4, statistics(normal(20, 4, 0)), samples=5)
    with pytest.raises(ValueError, match="expected features"):
        metric.update(torch.zeros(16))
    with pytest.raises(ValueError, match="expected features"):
        metric.update(torch.zeros(4, 5))
    metric.update(torch.zeros(1, 4))
    with pytest.raises(ValueError, match="at least 2"):
        metric.compute()
    metric.update(torch.zeros(2, 4))
    with pytest.raises(ValueError, match="over 5 samples, but 3"):
        metric.compute()
    metric.update(torch.full((2, 4), math.nan))
    with pytest.raises(ValueError, match="not finite"):
        metric.compute()
    with pytest.raises(ValueError, match="reference"):
        FrechetDistance(5, statistics(normal(20, 4, 0)))


def test_a_cast_metric_says_so() -> None:
    metric = FrechetDistance(2, statistics(normal(20, 2, 0)))
    nn.ModuleList([metric]).to(torch.bfloat16)
    with pytest.raises(RuntimeError, match="float64"):
        metric.update(torch.zeros(3, 2))


def test_updates_may_cross_inference_mode() -> None:
    x = normal(20, 2, 0)
    metric = FrechetDistance(2, statistics(x))
    with torch.inference_mode():
        metric.reset()
        metric.update(x[:10])
    metric.update(x[10:])
    assert float(metric.compute()) == pytest.approx(0.0, abs=1e-10)


@pytest.mark.parametrize("splits", [1, 3, 10])
def test_inception_score_closed_forms(splits: int) -> None:
    classes, n = 5, 50
    score = InceptionScore(classes, n, splits)
    score.update(torch.zeros(n, classes), torch.arange(n))
    assert [float(value) for value in score.compute()] == pytest.approx([1.0, 0.0], abs=1e-12)
    score = InceptionScore(classes, n * classes, splits)
    labels = torch.arange(n * classes) % classes
    score.update(nn.functional.one_hot(labels, classes) * 1e4, torch.arange(n * classes))
    assert float(score.compute()[0]) == pytest.approx(classes, rel=1e-2 if splits == 3 else 1e-12)


def test_inception_score_is_the_published_formula_in_any_order() -> None:
    n, splits = 103, 10
    logits = normal(n, 7, 2) * 3
    p = logits.softmax(1)
    owner = torch.arange(n) * splits // n
    expected = []
    for split in range(splits):
        part = p[owner == split]
        expected.append(float((part * (part.log() - part.mean(0).log())).sum(1).mean().exp()))
    whole, shuffled = InceptionScore(7, n, splits), InceptionScore(7, n, splits)
    whole.update(logits, torch.arange(n))
    for part_indices in torch.randperm(n, generator=torch.Generator().manual_seed(0)).split(9):
        shuffled.update(logits[part_indices], part_indices)
    for metric in (whole, shuffled):
        mean, spread = metric.compute()
        assert float(mean) == pytest.approx(np.mean(expected), rel=1e-12)
        assert float(spread) == pytest.approx(np.std(expected), rel=1e-9)


def test_inception_score_wants_every_sample_once() -> None:
    score = InceptionScore(3, 20, 2)
    score.update(torch.zeros(19, 3), torch.arange(19))
    with pytest.raises(ValueError, match="20 samples"):
        score.compute()
    with pytest.raises(ValueError, match=r"0\.\.19"):
        score.update(torch.zeros(1, 3), torch.tensor([20]))
    with pytest.raises(ValueError, match="indices"):
        score.update(torch.zeros(2, 3), torch.tensor([0]))
    with pytest.raises(ValueError, match="logits"):
        score.update(torch.zeros(2, 4), torch.arange(2))


def test_fake_ranks_sum_to_the_whole() -> None:
    """Summing the states of unequal shares is what a reduction over processes does."""
    n = 90
    x, logits = normal(n, 4, 3), normal(n, 4, 4)
    reference = normal(70, 4, 5)

    def build() -> tuple[FrechetDistance, InceptionScore, SlicedWasserstein]:
        return FrechetDistance(4, statistics(reference)), InceptionScore(4, n), SlicedWasserstein(n, 4, reference)

    def feed(metrics: tuple[FrechetDistance, InceptionScore, SlicedWasserstein], share: Tensor) -> None:
        metrics[0].update(x[share])
        metrics[1].update(logits[share], share)
        metrics[2].update(x[share], share)

    whole, total = build(), build()
    feed(whole, torch.arange(n))
    shares = [torch.arange(0, n, 3), torch.arange(1, n, 3), torch.arange(2, n, 3)[:10], torch.arange(2, n, 3)[10:]]
    for share in shares:
        rank = build()
        feed(rank, share)
        for target, source in zip(total, rank, strict=True):
            for name in source._defaults:
                setattr(target, name, getattr(target, name) + getattr(source, name))
            target._update_count += 1
    for a, b in zip(whole, total, strict=True):
        assert torch.allclose(torch.as_tensor(a.compute()), torch.as_tensor(b.compute()), rtol=1e-10, atol=0)


def test_sliced_wasserstein_of_a_shift() -> None:
    x = normal(3000, 2, 6)
    shift = torch.tensor([3.0, 4.0]).double()
    metric = SlicedWasserstein(3000, 2, x, projections=2000)
    for part in torch.randperm(3000, generator=torch.Generator().manual_seed(1)).split(700):
        metric.update(x[part] + shift, part)
    assert float(metric.compute()) == pytest.approx(5 * 2 / math.pi, rel=0.03)
    own = SlicedWasserstein(3000, 2, x)
    own.update(x, torch.arange(3000))
    assert float(own.compute()) == 0.0


def test_unequal_sizes_integrate_the_quantile_functions() -> None:
    a, b = normal(6, 3, 7).sort(dim=0).values, normal(4, 3, 8).sort(dim=0).values
    repeated = (a.repeat_interleave(2, dim=0) - b.repeat_interleave(3, dim=0)).abs().mean(0)
    assert torch.allclose(quantile_distance(a, b), repeated)
    assert torch.allclose(quantile_distance(b, a), repeated)


def test_sliced_wasserstein_wants_every_point_once() -> None:
    metric = SlicedWasserstein(4, 2, torch.zeros(3, 2))
    metric.update(torch.zeros(4, 2), torch.tensor([0, 1, 1, 2]))
    with pytest.raises(ValueError, match="1 are missing and 1 came more than once"):
        metric.compute()
    with pytest.raises(ValueError, match="expected points"):
        metric.update(torch.zeros(4, 3), torch.arange(4))
