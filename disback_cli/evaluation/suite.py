"""The evaluation of one run: samples in, a few named numbers out, with everything one must know to compare them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from disback_cli.data.dataset import Dataset
from disback_cli.data.pixels import to_uint8
from disback_cli.errors import UserError
from disback_cli.evaluation.features import FeatureExtractor
from disback_cli.evaluation.metrics import FrechetDistance, InceptionScore, SlicedWasserstein
from disback_cli.evaluation.reference import Provenance, ReferenceStatistics, cached

log = logging.getLogger(__name__)


def count_suffix(n: int) -> str:
    """The field's way to write a number of samples: ``2k`` for 2000 and 2048, ``50k`` for 50000, ``500`` for 500.

    A count that is a multiple of neither 1000 nor 1024 is written out, so that no two names promise more than they
    hold.
    """
    if n < 1:
        raise ValueError(f"a number of samples is positive, got {n}")
    for thousand in (1000, 1024):
        if n >= thousand and n % thousand == 0:
            return f"{n // thousand}k"
    return str(n)


class EvaluationSuite:
    """FID and IS of images, or FID and sliced Wasserstein distance of points, over n generated samples.

    Every rank gives each of its samples once, under its global index; `compute` reduces over the ranks, so all of
    them must call it. It is deliberately no nn.Module: as part of one, a precision setting or a checkpoint would
    reach into its float64 sums.

    - `dataset`: what to measure against; its statistics come from the cache or are computed here (by every rank,
      alike).
    - `reference`: statistics, or the path of an npz such as EDM's, instead of those of `dataset`; one of the two is
      needed.
    - `n`: number of generated samples; `splits`: of the Inception Score, at most n.
    - `projections`, `seed`: directions of the sliced Wasserstein distance.

    Raises UserError when the reference does not belong to the extractor.
    """

    def __init__(
        self,
        extractor: FeatureExtractor,
        dataset: Dataset | None = None,
        n: int = 2048,
        *,
        splits: int = 10,
        reference: ReferenceStatistics | str | Path | None = None,
        cache_dir: str | Path | None = None,
        batch_size: int = 256,
        projections: int = 128,
        seed: int = 0,
    ) -> None:
        if n < 2:
            raise UserError(f"an evaluation needs at least 2 samples, metrics.n is {n}")
        self.extractor = extractor
        self.n = n
        self.reference = _resolve(extractor, dataset, reference, cache_dir, batch_size)
        suffix = count_suffix(n)
        self._fid_name, self._is_name, self._swd_name = f"fid_{suffix}", f"is_{suffix}", f"swd_{suffix}"
        self._fid = FrechetDistance(extractor.feature_dim, self.reference, n)
        self._is = None
        if extractor.num_classes:
            self._is = InceptionScore(extractor.num_classes, n, min(splits, n))
        self._swd = None
        if not extractor.takes_uint8 and dataset is not None:
            points, _ = dataset.batch(torch.arange(len(dataset)))
            self._swd = SlicedWasserstein(n, extractor.feature_dim, points, projections, seed)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the numbers that `compute` returns; the first is the one to select by (smaller is better)."""
        names = [self._fid_name]
        if self._is is not None:
            names += [self._is_name, self._is_name.replace("is_", "is_std_")]
        if self._swd is not None:
            names.append(self._swd_name)
        return tuple(names)

    @property
    def _metrics(self) -> list[FrechetDistance | InceptionScore | SlicedWasserstein]:
        return [metric for metric in (self._fid, self._is, self._swd) if metric is not None]

    def to(self, device: torch.device | str) -> EvaluationSuite:
        """Move extractor and sums; the sums need float64, which MPS lacks. Returns itself."""
        self.extractor.to(device)
        for metric in self._metrics:
            metric.to(device)
        return self

    def reset(self) -> None:
        """Forget all samples."""
        for metric in self._metrics:
            metric.reset()

    @torch.no_grad()
    def update(self, x: Tensor, indices: Tensor) -> None:
        """Add samples x float [B, *shape] in the model's range with global indices int64 [B], each in 0..n-1.

        Images are rounded to uint8 first, as they would be in a file. ValueError for NaN, for a wrong shape or a
        wrong index.
        """
        if len(x) != len(indices):
            raise ValueError(f"{len(x)} samples came with {len(indices)} indices")
        if len(x) == 0:
            return
        features, logits = self.extractor(to_uint8(x) if self.extractor.takes_uint8 else x)
        if self._is is not None:
            if logits is None:
                raise ValueError(f"{self.extractor.name} promises {self.extractor.num_classes} logits and gave none")
            self._is.update(logits, indices)
        if self._swd is not None:
            self._swd.update(features, indices)
        self._fid.update(features)

    def compute(self) -> dict[str, float]:
        """The numbers by name, alike on all ranks. ValueError unless the ranks gave each of the n samples once."""
        numbers: dict[str, float] = {}
        if self._is is not None:  # first: it knows best which samples are missing
            mean, spread = self._is.compute()
            numbers[self._is_name], numbers[self._is_name.replace("is_", "is_std_")] = float(mean), float(spread)
        if self._swd is not None:
            numbers[self._swd_name] = float(self._swd.compute())
        numbers[self._fid_name] = float(self._fid.compute())
        return {name: numbers[name] for name in self.names}

    def provenance(self) -> Provenance:
        """What a number of this suite depends on beside the samples; store it beside the number. Plain JSON values."""
        return {
            "n": self.n,
            "splits": None if self._is is None else self._is.splits,
            "extractor": self.extractor.name,
            "extractor_sha256": self.extractor.sha256,
            "resize": self.extractor.resize,
            "reference_dataset": self.reference.provenance.get("dataset"),
            "reference_split": self.reference.provenance.get("split"),
            "reference_sha256": self.reference.provenance.get("sha256"),
            "reference_n": self.reference.n,
        }


def _resolve(
    extractor: FeatureExtractor,
    dataset: Dataset | None,
    reference: ReferenceStatistics | str | Path | None,
    cache_dir: str | Path | None,
    batch_size: int,
) -> ReferenceStatistics:
    """The statistics to measure against, checked to belong to the extractor."""
    if reference is None:
        if dataset is None:
            raise UserError("an evaluation needs a data set or reference statistics to measure against")
        return cached(dataset, extractor, cache_dir, batch_size)
    statistics = reference if isinstance(reference, ReferenceStatistics) else ReferenceStatistics.load(reference)
    if statistics.feature_dim != extractor.feature_dim:
        raise UserError(
            f"the reference has {statistics.feature_dim} features, "
            f"the extractor {extractor.name} has {extractor.feature_dim}"
        )
    stated = statistics.provenance
    if stated.get("extractor") is None:
        log.warning("reference %s does not say which extractor made it; taken on trust", stated.get("dataset"))
        return statistics
    asked = {"extractor": extractor.name, "extractor_sha256": extractor.sha256, "resize": extractor.resize}
    for key, own in asked.items():
        if stated.get(key) != own:
            raise UserError(f"the reference was made with {key} {stated.get(key)}, this evaluation uses {own}")
    return statistics


def refuse_mixing(a: Mapping[str, object], b: Mapping[str, object]) -> None:
    """Raise UserError, naming each difference, unless numbers with provenance a and b may stand in one table."""
    keys = sorted(a.keys() | b.keys())
    differences = [f"{key}: {a.get(key)} against {b.get(key)}" for key in keys if a.get(key) != b.get(key)]
    if differences:
        raise UserError("these numbers cannot be compared, they were measured differently: " + "; ".join(differences))
