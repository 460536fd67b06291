"""Reference statistics of a data set: mean and covariance of its features, and where they came from.

The file is the field's: an npz with `mu` [d] and `sigma` [d, d] in float64, as EDM (Karras et al. 2022) publishes
them, plus one JSON string `provenance` and, for the metrics that compare sets of features, `features`. A file without
them can be read, and then says that its origin is unknown.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from disback_cli.data.dataset import Dataset, HasPixels
from disback_cli.data.pixels import to_uint8
from disback_cli.data.sampler import epoch_order
from disback_cli.data.views import unmirrored
from disback_cli.errors import UserError
from disback_cli.evaluation.feature_bank import FeatureBank
from disback_cli.evaluation.features import FeatureExtractor
from disback_cli.evaluation.reduction import sum_over_processes
from disback_cli.files import sha256_of, write_atomically
from disback_cli.runtime.processes import rank_and_world
from disback_cli.runtime.progress import tracked

log = logging.getLogger(__name__)

Provenance = dict[str, Any]
_UNREADABLE = (KeyError, ValueError, OSError, EOFError, TypeError, AttributeError, zipfile.BadZipFile, zlib.error)
PROVENANCE_KEYS = ("dataset", "split", "sha256", "n", "shape", "extractor", "extractor_sha256", "resize")
ROUNDING = 1e-6
"""Negative eigenvalues and asymmetry up to this share of the largest number are rounding; beyond it, a mistake."""
MAX_FEATURES = 50_000
"""Features kept of a data set for KID, precision and recall; of a larger set a random part that is always the same."""


@dataclass(frozen=True, slots=True)
class ReferenceStatistics:
    """Mean float64 [d] and unbiased covariance float64 [d, d] of the features of n samples (None: unknown).

    `features`: float32 [m, d] of all or, beyond MAX_FEATURES, some of the samples; None if they were not kept.
    """

    mu: npt.NDArray[np.float64]
    sigma: npt.NDArray[np.float64]
    n: int | None
    provenance: Provenance = field(default_factory=dict)
    features: npt.NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        if self.mu.ndim != 1 or self.sigma.shape != (len(self.mu), len(self.mu)):
            raise ValueError(f"mu must be [d] and sigma [d, d], got {self.mu.shape} and {self.sigma.shape}")
        arrays: list[npt.NDArray[np.floating]] = [self.mu, self.sigma]
        if self.features is not None:
            if self.features.ndim != 2 or self.features.shape[1] != len(self.mu):
                raise ValueError(f"features must be [m, {len(self.mu)}], got {self.features.shape}")
            arrays.append(self.features)
        if not all(np.isfinite(array).all() for array in arrays):
            raise ValueError("mu, sigma and features must be finite")
        largest = float(np.abs(self.sigma).max(initial=0.0))
        if float(np.abs(self.sigma - self.sigma.T).max(initial=0.0)) > ROUNDING * largest:
            raise ValueError("sigma is not symmetric, so it is no covariance")
        if float(self.sigma.diagonal().min(initial=0.0)) < -ROUNDING * largest:
            raise ValueError("sigma has negative numbers on its diagonal, so it is no covariance")

    @property
    def feature_dim(self) -> int:
        """d."""
        return len(self.mu)

    def save(self, path: str | Path) -> Path:
        """Write the npz, whole or not at all."""
        target = Path(path)
        arrays = {"mu": self.mu, "sigma": self.sigma, "provenance": np.array(_canonical(self.provenance))}
        if self.features is not None:
            arrays["features"] = self.features
        write_atomically(target, lambda file: np.savez(file, **arrays))  # type: ignore[arg-type]
        return target

    def require_covariance(self) -> None:
        """Raise ValueError if sigma has negative eigenvalues; takes a second for 2048 features.

        A Fréchet distance to such a reference would come out too small, as far as 0.
        """
        eigenvalues = np.linalg.eigvalsh(self.sigma)
        if eigenvalues[0] < -ROUNDING * np.abs(eigenvalues).max():
            raise ValueError(f"sigma has negative eigenvalues, as low as {eigenvalues[0]:.4g}, so it is no covariance")

    @classmethod
    def load(cls, path: str | Path, *, features: bool = False, own: bool = False) -> ReferenceStatistics:
        """Read an npz of ours or of EDM's; UserError if it is missing, damaged or holds something else.

        `features`: read those too, where the file has them; they are large. `own`: the file is from our own cache,
        which saves the time of :meth:`require_covariance`.
        """
        source = Path(path).expanduser()
        if not source.is_file():
            raise UserError(f"no reference statistics at {source}: expected a .npz with mu [d] and sigma [d, d]")
        try:
            statistics = cls._read(source, features)
            if not own:
                statistics.require_covariance()
            return statistics
        except _UNREADABLE as error:
            raise UserError(f"{source} holds no reference statistics (mu [d], sigma [d, d]): {error}") from error

    @classmethod
    def _read(cls, source: Path, with_features: bool) -> ReferenceStatistics:
        with np.load(source, allow_pickle=False) as archive:
            mu = np.asarray(archive["mu"], dtype=np.float64)
            sigma = np.asarray(archive["sigma"], dtype=np.float64)
            stored = str(archive["provenance"]) if "provenance" in archive.files else None
            kept = None
            if with_features and "features" in archive.files:
                kept = np.asarray(archive["features"], dtype=np.float32)
        if stored is not None:
            provenance = json.loads(stored)
            return cls(mu, sigma, provenance.get("n"), provenance, kept)
        # Somebody else's file: its name and hash are all that is known of its origin.
        provenance = dict.fromkeys(PROVENANCE_KEYS)
        provenance |= {"dataset": source.stem, "sha256": sha256_of(source)}
        return cls(mu, sigma, None, provenance, kept)


def describe(dataset: Dataset, extractor: FeatureExtractor) -> Provenance:
    """The provenance that statistics of this data set through this extractor carry; mirror images do not count."""
    plain = unmirrored(dataset)
    return {
        "dataset": plain.name,
        "split": plain.split,
        "sha256": plain.sha256,
        "n": len(plain),
        "shape": list(plain.shape),
        "extractor": extractor.name,
        "extractor_sha256": extractor.sha256,
        "resize": extractor.resize,
    }


@torch.no_grad()
def compute(
    dataset: Dataset, extractor: FeatureExtractor, batch_size: int = 256, *, features: bool = False
) -> ReferenceStatistics:
    """Statistics over the whole data set without its mirror images; ValueError if it has fewer than two samples.

    The processes share the batches out and get the same statistics, so all must call it. `features`: keep those too.
    The moments are taken about the first batch's mean, which keeps the digits that a plain sum of squares would cancel.
    """
    plain = unmirrored(dataset)
    n, dim = len(plain), extractor.feature_dim
    if n < 2:
        raise ValueError(f"reference statistics need at least 2 samples, {plain.name} has {n}")
    kept = _kept(n)
    bank = FeatureBank(len(kept), dim) if features else None
    centre = _features_at(plain, extractor, torch.arange(min(batch_size, n))).double().mean(0)
    total, outer = torch.zeros_like(centre), centre.new_zeros(dim, dim)
    rank, world = rank_and_world()
    # The batches are the same for any number of processes: an extractor's last digits depend on its batch.
    starts = range(rank * batch_size, n, batch_size * world)
    for first in tracked(starts, f"reference statistics of {plain.name}", n, batch_size * world, quiet=rank > 0):
        indices = torch.arange(first, min(first + batch_size, n))
        found = _features_at(plain, extractor, indices)
        values = found.double() - centre
        total += values.sum(0)
        outer += values.T @ values
        if bank is not None:
            chosen = torch.isin(indices, kept)
            bank.update(found.cpu()[chosen], torch.searchsorted(kept, indices[chosen]))
    centre, total, outer = centre.cpu(), sum_over_processes(total).cpu(), sum_over_processes(outer).cpu()
    sigma = (outer - torch.outer(total, total) / n) / (n - 1)
    collected = None if bank is None else bank.collect().numpy()
    provenance = describe(plain, extractor)
    return ReferenceStatistics((centre + total / n).numpy(), sigma.numpy(), n, provenance, collected)


def _kept(n: int) -> torch.Tensor:
    """Ascending indices of the samples whose features are kept; drawn, because data sets are often sorted by class."""
    return torch.arange(n) if n <= MAX_FEATURES else epoch_order(0, 0, n)[:MAX_FEATURES].sort().values


def _features_at(dataset: Dataset, extractor: FeatureExtractor, indices: torch.Tensor) -> torch.Tensor:
    """Features [B, d] of the samples at these indices, where the extractor works."""
    if extractor.takes_uint8 and isinstance(dataset, HasPixels):
        samples, _ = dataset.pixels(indices)
    else:
        samples, _ = dataset.batch(indices)
        samples = to_uint8(samples) if extractor.takes_uint8 else samples
    found, _ = extractor(samples)
    if found.shape != (len(indices), extractor.feature_dim):
        raise ValueError(f"{extractor.name} gave features {list(found.shape)}, expected [B, {extractor.feature_dim}]")
    return found


def default_cache() -> Path:
    """Folder of cached statistics: ``$DISBACK_CACHE/references``, or ``~/.cache/disback/references``."""
    root = os.environ.get("DISBACK_CACHE")
    return (Path(root).expanduser() if root else Path.home() / ".cache" / "disback") / "references"


def cached(
    dataset: Dataset,
    extractor: FeatureExtractor,
    cache_dir: str | Path | None = None,
    batch_size: int = 256,
    *,
    features: bool = False,
) -> ReferenceStatistics:
    """Statistics from the cache, or computed and stored there; the key is the hash of the full provenance.

    A cached file that is damaged, or whose provenance is not the one asked for, is computed again, and the log says
    so; one without the features that are asked for, too. A cache that cannot be written costs time, not the run.
    Where several processes work together, all must call it.
    """
    wanted = describe(dataset, extractor)
    key = hashlib.sha256(_canonical(wanted).encode()).hexdigest()[:16]
    folder = default_cache() if cache_dir is None else Path(cache_dir).expanduser()
    path = folder / f"{_as_file_name(wanted['dataset'])}-{wanted['n']}-{key}.npz"
    found = _usable(path, wanted, extractor, features)
    rank, world = rank_and_world()
    # One process that lacks the file must not compute alone: the others would not take part.
    having = int(sum_over_processes(torch.tensor(int(found is not None))))
    if found is not None and having == world:
        return found
    statistics = compute(dataset, extractor, batch_size, features=features)
    try:
        if rank == 0:
            statistics.save(path)
    except UserError as error:
        log.warning("could not store the reference statistics, they will be computed again next time: %s", error)
    return statistics


def _usable(path: Path, wanted: Provenance, extractor: FeatureExtractor, features: bool) -> ReferenceStatistics | None:
    """What the cache holds, if it is what is wanted."""
    if not path.is_file():
        return None
    try:
        found = ReferenceStatistics.load(path, features=features, own=True)
    except UserError as error:
        log.warning("cached reference is unusable, computing it again: %s", error)
        return None
    if found.provenance != wanted or found.feature_dim != extractor.feature_dim:
        log.warning("cached reference %s states another origin; computing it again", path)
        return None
    return None if features and found.features is None else found


def _as_file_name(name: str) -> str:
    """A data set's name is the user's to choose and may hold anything."""
    return "".join(character if character.isalnum() or character in "-_." else "_" for character in name)


def _canonical(provenance: Provenance) -> str:
    """One spelling of a provenance, for hashing and storing."""
    return json.dumps(provenance, sort_keys=True)
