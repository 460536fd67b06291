"""The evaluation of one run: samples in, a few named numbers out, with everything one must know to compare them."""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from torch import Tensor

from disback_cli.data.dataset import Dataset
from disback_cli.data.pixels import to_uint8
from disback_cli.errors import UserError
from disback_cli.evaluation import kernel_distance, neighbourhoods
from disback_cli.evaluation.comparable import words_for_features
from disback_cli.evaluation.feature_bank import FeatureBank
from disback_cli.evaluation.features import FeatureExtractor
from disback_cli.evaluation.inception import FEATURE_DIM
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
    """FID, IS, KID, precision and recall of images or points over n generated samples, in one pass over them.

    Every rank gives each of its samples once, under its global index; `compute` reduces over the ranks, so all of
    them must call it. It is deliberately no nn.Module: as part of one, a precision setting or a checkpoint would
    reach into its float64 sums.

    - `dataset`: what to measure against; its statistics come from the cache or are computed here, by all processes
      that work together. Points have a sliced Wasserstein distance to it as well.
    - `reference`: statistics, or the path of an npz such as EDM's, instead of those of `dataset`; one of the two is
      needed.
    - `n`: number of generated samples; `splits`: of the Inception Score, at most n.
    - `kid`, `precision_recall`: measure these too; all features are kept for them.
    - `projections`, `seed`: directions of the sliced Wasserstein distance.

    Raises UserError when the reference does not belong to the extractor, or lacks features that are needed.
    """

    def __init__(
        self,
        extractor: FeatureExtractor,
        dataset: Dataset | None = None,
        n: int = 2048,
        *,
        splits: int = 10,
        kid: bool = False,
        precision_recall: bool = False,
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
        self.kid, self.precision_recall = kid, precision_recall
        keep = kid or precision_recall
        if reference is not None:
            self.reference = open_reference(reference, extractor, features=keep)
        elif dataset is not None:
            self.reference = cached(dataset, extractor, cache_dir, batch_size, features=keep)
        else:
            raise UserError("an evaluation needs a data set or reference statistics to measure against")
        self._device = torch.device("cpu")
        self._bank: FeatureBank | None = None
        if keep:
            self._bank = FeatureBank(n, extractor.feature_dim)
            assert self.reference.features is not None
            self._reference_features = torch.from_numpy(self.reference.features)
            self._require_neighbours()
        self._fid = FrechetDistance(extractor.feature_dim, self.reference, n)
        self._is = None
        if extractor.num_classes:
            self._is = InceptionScore(extractor.num_classes, n, min(splits, n))
        self._swd = None
        if not extractor.takes_uint8 and dataset is not None:
            points, _ = dataset.batch(torch.arange(len(dataset)))
            self._swd = SlicedWasserstein(n, extractor.feature_dim, points, projections, seed)

    def _require_neighbours(self) -> None:
        fewest, k = min(self.n, len(self._reference_features)), neighbourhoods.NEIGHBOURS
        if self.precision_recall and fewest <= k:
            raise UserError(f"metrics.precision_recall=true needs more than {k} samples of either set, not {fewest}")

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the numbers that `compute` returns; the first is the one to select by (smaller is better)."""
        kinds = ["fid"]
        kinds += ["is", "is_std"] if self._is is not None else []
        kinds += ["kid", "kid_std"] if self.kid else []
        kinds += ["precision", "recall"] if self.precision_recall else []
        kinds += ["swd"] if self._swd is not None else []
        suffix = count_suffix(self.n)
        return tuple(f"{kind}_{suffix}" for kind in kinds)

    @property
    def _metrics(self) -> list[FrechetDistance | InceptionScore | SlicedWasserstein]:
        return [metric for metric in (self._fid, self._is, self._swd) if metric is not None]

    def to(self, device: torch.device | str) -> EvaluationSuite:
        """Move extractor and sums; the sums need float64, which MPS lacks. Returns itself."""
        self._device = torch.device(device)
        self.extractor.to(device)
        for metric in self._metrics:
            metric.to(device)
        return self

    def reset(self) -> None:
        """Forget all samples."""
        for metric in self._metrics:
            metric.reset()
        if self._bank is not None:
            self._bank.reset()

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
        if self._bank is not None:
            self._bank.update(features, indices)
        self._fid.update(features)

    @torch.no_grad()
    def compute(self, what: str = "") -> dict[str, float]:
        """The numbers by name, alike on all ranks. ValueError unless the ranks gave each of the n samples once.

        `what`: shown with the progress of the metrics that take long; empty shows none.
        """
        numbers: dict[str, float] = {}
        if self._is is not None:  # first: it knows best which samples are missing
            mean, spread = self._is.compute()
            numbers["is"], numbers["is_std"] = float(mean), float(spread)
        if self._swd is not None:
            numbers["swd"] = float(self._swd.compute())
        numbers["fid"] = float(self._fid.compute())
        if self._bank is not None:
            numbers |= self._compare_features(self._bank.collect(), what)
        return {name: numbers[name.rpartition("_")[0]] for name in self.names}

    def _compare_features(self, features: Tensor, what: str) -> dict[str, float]:
        numbers: dict[str, float] = {}
        reference, device = self._reference_features, self._device
        if self.kid:
            shown = f"{what}: KID" if what else ""
            mean, spread = kernel_distance.kernel_distance(features, reference, device=device, what=shown)
            numbers |= {"kid": mean, "kid_std": spread}
        if self.precision_recall:
            shown = f"{what}: precision and recall" if what else ""
            precision, recall = neighbourhoods.precision_recall(features, reference, device=device, what=shown)
            numbers |= {"precision": precision, "recall": recall}
        return numbers

    def provenance(self) -> Provenance:
        """What a number of this suite depends on beside the samples; store it beside the number. Plain JSON values."""
        stated = self.reference.provenance
        facts: Provenance = {
            "n": self.n,
            "splits": None if self._is is None else self._is.splits,
            "extractor": self.extractor.name,
            "extractor_sha256": self.extractor.sha256,
            "resize": self.extractor.resize,
            "reference_dataset": stated.get("dataset"),
            "reference_split": stated.get("split"),
            "reference_sha256": stated.get("sha256"),
            "reference_n": self.reference.n,
        }
        if self._bank is not None:
            facts["reference_features"] = len(self._reference_features)
        if self.kid:
            size = min(kernel_distance.SUBSET_SIZE, self.n, len(self._reference_features))
            facts["kid"] = f"cubic kernel, {kernel_distance.SUBSETS} subsets of {size}"
        if self.precision_recall:
            facts["neighbours"] = neighbourhoods.NEIGHBOURS
        return facts


def open_reference(
    reference: ReferenceStatistics | str | Path, extractor: FeatureExtractor, *, features: bool = False
) -> ReferenceStatistics:
    """The statistics to measure against, checked to belong to the extractor.

    Raises UserError if they do not, or if `features` are needed and missing.
    """
    statistics = reference
    if not isinstance(statistics, ReferenceStatistics):
        statistics = ReferenceStatistics.load(statistics, features=features)
    if statistics.feature_dim != extractor.feature_dim:
        raise UserError(
            f"the reference has {statistics.feature_dim} features, the extractor {extractor.name} has "
            f"{extractor.feature_dim}{_advice(statistics)}"
        )
    if features and statistics.features is None:
        raise UserError(
            "KID, precision and recall compare sets of features, and the reference holds none, only their mean and "
            "covariance. Give metrics.reference=null and a dataset=..., or make a reference that has them with "
            "`disback stats dataset=... metrics.kid=true`"
        )
    stated = statistics.provenance
    if stated.get("extractor") is None:
        if statistics is not reference:  # said once, when the file is opened
            log.warning(
                "reference %s does not say which extractor and resizer made it, nor of how many samples; "
                "taken on trust",
                stated.get("dataset"),
            )
        return statistics
    asked = {"extractor": extractor.name, "extractor_sha256": extractor.sha256, "resize": extractor.resize}
    for key, own in asked.items():
        if stated.get(key) != own:
            raise UserError(
                f"the reference was made with {key} {stated.get(key)}, this evaluation uses {own}{_advice(statistics)}"
            )
    return statistics


def _advice(statistics: ReferenceStatistics) -> str:
    """What to type so that the features are those of a reference; nothing where that is unknown."""
    stated = statistics.provenance
    if stated.get("extractor") is None and statistics.feature_dim == FEATURE_DIM:
        return "; for a reference of Inception features give metrics=inception metrics.extractor.weights=FILE"
    words = words_for_features(stated.get("extractor"), stated.get("resize"))
    return f"; for its features give {' '.join(words)}" if words else ""
