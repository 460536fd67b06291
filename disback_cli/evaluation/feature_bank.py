"""The features of all samples, for the metrics that cannot do with sums of them."""

from __future__ import annotations

import torch
from torch import Tensor

from disback_cli.evaluation.metrics import checked_indices
from disback_cli.evaluation.reduction import sum_over_processes

_ROWS = 4096  # reduced at a time: a copy of the whole would double the memory


class FeatureBank:
    """Features float32 [n, d] by global sample index, in main memory (50,000 of Inception: 400 MB a process).

    The rules of `metrics`: fixed size and reduced by a sum, of which all terms but one are zero, so the sum is exact.
    It is no torchmetrics Metric because that would gather the banks of all processes before it adds them up.
    """

    def __init__(self, n: int, feature_dim: int) -> None:
        self.n, self.feature_dim = n, feature_dim
        self.reset()

    def reset(self) -> None:
        """Forget all features."""
        self._features = torch.zeros(self.n, self.feature_dim)
        self._seen = torch.zeros(self.n, dtype=torch.int64)
        self._collected = False

    def update(self, features: Tensor, indices: Tensor) -> None:
        """Put features float [B, d] at their global indices int64 [B] in 0..n-1."""
        if features.ndim != 2 or features.shape[1] != self.feature_dim:
            raise ValueError(f"expected features [B, {self.feature_dim}], got {list(features.shape)}")
        if self._collected:
            raise RuntimeError("the features of all processes have been collected; reset the bank first")
        where = checked_indices(indices, len(features), self.n, torch.device("cpu"))
        self._features[where] = features.detach().to("cpu", torch.float32)
        self._seen.index_add_(0, where, torch.ones_like(where))

    def collect(self) -> Tensor:
        """Features of all processes, float32 [n, d], alike on all; all must call it.

        Raises ValueError unless each of the n samples was given exactly once, and for non-finite features.
        """
        if not self._collected:
            self._seen = sum_over_processes(self._seen)
            for first in range(0, self.n, _ROWS):
                part = self._features[first : first + _ROWS]
                part.copy_(sum_over_processes(part))
            self._collected = True
        if not bool((self._seen == 1).all()):
            missing, twice = int((self._seen == 0).sum()), int((self._seen > 1).sum())
            raise ValueError(f"of {self.n} samples {missing} are missing and {twice} came more than once")
        if not bool(torch.isfinite(self._features).all()):
            raise ValueError("the features are not finite")
        return self._features
