"""Fréchet distance, Inception Score and sliced Wasserstein distance, exact under any number of processes.

Three rules hold for all of them. Every state has a fixed size and is reduced by a sum, so ranks may make different
numbers of updates, or none. Every state is float64 or int64. Whatever depends on order is keyed by the global sample
index, so that the value depends neither on the number of ranks, nor on the batch size, nor on the order of the
updates.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torchmetrics import Metric

if TYPE_CHECKING:
    from disback_cli.evaluation.reference import ReferenceStatistics


# Shares up to which negative numbers are rounding: of the largest eigenvalue; and of the sum of the traces, where each
# of the roots that are subtracted may be wrong by the root of the float64 precision.
_ROUNDING = 1e-6
_ROUNDING_OF_ROOTS = 1e-4


def symmetric_root(matrix: Tensor) -> Tensor:
    """Square root [d, d] of a symmetric matrix [d, d]; eigenvalues that rounding made negative count as zero.

    Raises ValueError for more negative ones.
    """
    values, vectors = torch.linalg.eigh(matrix)
    if len(values) and bool(values[0] < -_ROUNDING * values.abs().max()):
        raise ValueError(f"a covariance has no negative eigenvalues, this matrix has {float(values[0]):.4g}")
    root: Tensor = (vectors * values.clamp(min=0.0).sqrt()) @ vectors.T
    return root


class _ExactMetric(Metric):
    """Base: sum-reduced float64 states, checked at each update."""

    full_state_update = False
    is_differentiable = False

    def _zeros(self, name: str, *shape: int, dtype: torch.dtype = torch.float64) -> None:
        self.add_state(name, default=torch.zeros(shape, dtype=dtype), dist_reduce_fx="sum")

    def _sum(self, name: str) -> Tensor:
        """The state `name`; one that a precision setting has cast is refused, since the lost digits would not show."""
        value = getattr(self, name)
        if not isinstance(value, Tensor) or value.dtype not in (torch.float64, torch.int64):
            raise RuntimeError(
                f"state {name} of {type(self).__name__} is no longer a float64 sum; keep metrics out of casts"
            )
        return value


class FrechetDistance(_ExactMetric):
    """Fréchet distance between the Gaussian fits of features and of a reference (Heusel et al. 2017, arXiv 1706.08500).

    |mu - mu_r|^2 + tr S + tr S_r - 2 tr (S_r^1/2 S S_r^1/2)^1/2, with unbiased covariances. The last trace is the sum
    of the roots of the eigenvalues of a symmetric matrix: real by construction, and many times faster than the
    eigenvalues of the product S S_r. With `samples` given, any other number of them is refused.
    """

    higher_is_better = False
    n: Tensor
    total: Tensor
    outer: Tensor

    def __init__(
        self, feature_dim: int, reference: ReferenceStatistics, samples: int | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if reference.feature_dim != feature_dim:
            raise ValueError(f"features have {feature_dim} numbers, the reference {reference.feature_dim}")
        self.feature_dim, self.samples = feature_dim, samples
        # Plain attributes, not buffers: a buffer would follow a cast of the module that holds this metric.
        self._mu = torch.from_numpy(reference.mu)
        self._sigma = torch.from_numpy(reference.sigma)
        self._root: Tensor | None = None
        self._zeros("n", dtype=torch.int64)
        self._zeros("total", feature_dim)
        self._zeros("outer", feature_dim, feature_dim)

    def update(self, features: Tensor) -> None:
        """Add features float [B, feature_dim]. ValueError for another shape: flattened ones give a tiny, false FID."""
        if features.ndim != 2 or features.shape[1] != self.feature_dim:
            raise ValueError(f"expected features [B, {self.feature_dim}], got {list(features.shape)}")
        x = features.detach().to(device=self.outer.device, dtype=torch.float64)
        # Not in place: an in-place sum on a state made under inference_mode fails outside of it.
        self.n = self._sum("n") + len(x)
        self.total = self._sum("total") + x.sum(0)
        self.outer = self._sum("outer") + x.T @ x

    def compute(self) -> Tensor:
        """The distance, float64 scalar, 0 or more. ValueError for fewer than 2 samples or non-finite features."""
        n = int(self._sum("n"))
        if n < 2:
            raise ValueError(f"a Fréchet distance needs at least 2 samples, got {n}")
        if self.samples is not None and n != self.samples:
            raise ValueError(f"the Fréchet distance is over {self.samples} samples, but {n} came")
        device = self.outer.device
        mu = self._sum("total") / n
        sigma = (self._sum("outer") - n * torch.outer(mu, mu)) / (n - 1)
        if not bool(torch.isfinite(sigma).all()):
            raise ValueError("the features are not finite")
        if self._root is None:
            self._root = symmetric_root(self._sigma)
        root = self._root.to(device)
        # Symmetric up to rounding; eigvalsh reads one triangle only.
        eigenvalues = torch.linalg.eigvalsh(root @ sigma @ root)
        mean_term = (mu - self._mu.to(device)).square().sum()
        traces = sigma.trace() + self._sigma.to(device).trace()
        distance: Tensor = mean_term + traces - 2.0 * eigenvalues.clamp(min=0.0).sqrt().sum()
        if bool(distance < -_ROUNDING_OF_ROOTS * traces):
            raise ValueError(f"the Fréchet distance came out as {float(distance):.4g}: the reference is no covariance")
        return distance.clamp(min=0.0)  # rounding may take the distance of a set to itself below zero


class InceptionScore(_ExactMetric):
    """exp(E KL(p(y|x) || p(y))) over fixed splits of n samples (Salimans et al. 2016, arXiv 1606.03498).

    Sample i belongs to split i * splits // n. A split needs no list of predictions: its KL is the mean of sum p log p
    less sum q log q with q its mean p, so sums suffice. The spread is the population standard deviation over splits.
    """

    higher_is_better = True
    probability: Tensor
    negentropy: Tensor
    count: Tensor

    def __init__(self, num_classes: int, n: int, splits: int = 10, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if num_classes < 2 or not 1 <= splits <= n:
            raise ValueError(f"need 2 classes or more and 1 <= splits <= n, got {num_classes}, splits={splits}, n={n}")
        self.num_classes, self.samples, self.splits = num_classes, n, splits
        self._zeros("probability", splits, num_classes)
        self._zeros("negentropy", splits)
        self._zeros("count", splits, dtype=torch.int64)

    def update(self, logits: Tensor, indices: Tensor) -> None:
        """Add logits float [B, num_classes] of the samples with global indices int64 [B] in 0..n-1."""
        if logits.ndim != 2 or logits.shape[1] != self.num_classes:
            raise ValueError(f"expected logits [B, {self.num_classes}], got {list(logits.shape)}")
        device = self.probability.device
        where = checked_indices(indices, len(logits), self.samples, device)
        log_p = logits.detach().to(device=device, dtype=torch.float64).log_softmax(dim=1)
        p = log_p.exp()
        split = where * self.splits // self.samples
        self.probability = self._sum("probability").index_add(0, split, p)
        # xlogy-like: exp underflows to 0 while its logarithm may be -inf, and 0 * -inf is not a number.
        self.negentropy = self._sum("negentropy").index_add(0, split, torch.where(p > 0, p * log_p, 0.0).sum(1))
        self.count = self._sum("count").index_add(0, split, torch.ones_like(split))

    def compute(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation over the splits, float64 scalars. ValueError unless each split is complete."""
        owner = torch.arange(self.samples) * self.splits // self.samples
        expected = torch.bincount(owner, minlength=self.splits).to(self.count.device)
        count = self._sum("count")
        if not torch.equal(count, expected):
            raise ValueError(
                f"the Inception Score is over {self.samples} samples, but the splits hold {count.tolist()}"
            )
        marginal = self._sum("probability") / count[:, None]
        divergence = self._sum("negentropy") / count - torch.special.xlogy(marginal, marginal).sum(1)
        scores = divergence.exp()
        return scores.mean(), scores.std(correction=0)


class SlicedWasserstein(_ExactMetric):
    """Mean over fixed random directions of the 1-Wasserstein distance of the projections (Bonneel et al. 2015).

    In the units of the points. The two sets may differ in size: the one-dimensional distance is the integral of the
    difference of the two quantile functions, computed exactly. For two laws that differ by a shift, it is the mean of
    the projected shift, 2/pi times its length in the plane.
    """

    higher_is_better = False
    points: Tensor
    seen: Tensor

    def __init__(
        self, n: int, dim: int, reference_points: Tensor, projections: int = 128, seed: int = 0, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if reference_points.ndim != 2 or reference_points.shape[1] != dim or len(reference_points) == 0:
            raise ValueError(f"expected reference points [M, {dim}], got {list(reference_points.shape)}")
        if n < 1 or projections < 1:
            raise ValueError(f"need n >= 1 and projections >= 1, got {n} and {projections}")
        self.samples, self.dim = n, dim
        generator = torch.Generator().manual_seed(seed)
        directions = torch.randn(dim, projections, generator=generator, dtype=torch.float64)
        self._directions = directions / directions.norm(dim=0)
        self._reference = (reference_points.detach().to("cpu", torch.float64) @ self._directions).sort(dim=0).values
        self._zeros("points", n, dim)
        self._zeros("seen", n, dtype=torch.int64)

    def update(self, points: Tensor, indices: Tensor) -> None:
        """Put points float [B, dim] at their global indices int64 [B] in 0..n-1."""
        if points.ndim != 2 or points.shape[1] != self.dim:
            raise ValueError(f"expected points [B, {self.dim}], got {list(points.shape)}")
        device = self.points.device
        where = checked_indices(indices, len(points), self.samples, device)
        self.points = self._sum("points").index_add(0, where, points.detach().to(device=device, dtype=torch.float64))
        self.seen = self._sum("seen").index_add(0, where, torch.ones_like(where))

    def compute(self) -> Tensor:
        """The distance, float64 scalar. ValueError unless each of the n points was seen exactly once."""
        seen = self._sum("seen")
        if not bool((seen == 1).all()):
            missing, twice = int((seen == 0).sum()), int((seen > 1).sum())
            raise ValueError(f"of {self.samples} points {missing} are missing and {twice} came more than once")
        device = self.points.device
        projected = (self._sum("points") @ self._directions.to(device)).sort(dim=0).values
        return quantile_distance(projected, self._reference.to(device)).mean()


def quantile_distance(a: Tensor, b: Tensor) -> Tensor:
    """1-Wasserstein distance [P] between the columns of a [N, P] and b [M, P], each sorted along the first axis."""
    n, m = len(a), len(b)
    if n == m:
        return (a - b).abs().mean(0)
    # Both quantile functions are constant between neighbouring levels i/n and j/m, whole numbers in units of 1/(nm).
    levels = torch.cat(
        [torch.arange(1, n + 1, device=a.device) * m, torch.arange(1, m + 1, device=a.device) * n]
    ).unique()
    widths = levels.diff(prepend=levels.new_zeros(1)).to(a.dtype) / (n * m)
    gaps = (a[(levels - 1) // m] - b[(levels - 1) // n]).abs()
    distance: Tensor = (widths[:, None] * gaps).sum(0)
    return distance


def checked_indices(indices: Tensor, count: int, total: int, device: torch.device) -> Tensor:
    """Global sample indices as int64 [count] on `device`; ValueError for another length or one outside 0..total-1."""
    where = indices.detach().to(device=device, dtype=torch.int64)
    if where.shape != (count,):
        raise ValueError(f"expected {count} sample indices, got {list(where.shape)}")
    if count and (int(where.min()) < 0 or int(where.max()) >= total):
        raise ValueError(f"sample indices must lie in 0..{total - 1}, got {int(where.min())}..{int(where.max())}")
    return where
