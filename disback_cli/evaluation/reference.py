"""Reference statistics of a data set: mean and covariance of its features, and where they came from.

The file is the field's: an npz with `mu` [d] and `sigma` [d, d] in float64, as EDM (Karras et al. 2022) publishes
them, plus one JSON string `provenance`. A file without it can be read, and then says that its origin is unknown.
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

from disback_cli.data.dataset import Dataset
from disback_cli.data.pixels import to_uint8
from disback_cli.errors import UserError
from disback_cli.evaluation.features import FeatureExtractor
from disback_cli.files import write_atomically

log = logging.getLogger(__name__)

Provenance = dict[str, Any]
_UNREADABLE = (KeyError, ValueError, OSError, EOFError, TypeError, AttributeError, zipfile.BadZipFile, zlib.error)
PROVENANCE_KEYS = ("dataset", "split", "sha256", "n", "extractor", "extractor_sha256", "resize")


@dataclass(frozen=True, slots=True)
class ReferenceStatistics:
    """Mean float64 [d] and unbiased covariance float64 [d, d] of the features of n samples (None: unknown)."""

    mu: npt.NDArray[np.float64]
    sigma: npt.NDArray[np.float64]
    n: int | None
    provenance: Provenance = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.mu.ndim != 1 or self.sigma.shape != (len(self.mu), len(self.mu)):
            raise ValueError(f"mu must be [d] and sigma [d, d], got {self.mu.shape} and {self.sigma.shape}")
        if not (np.isfinite(self.mu).all() and np.isfinite(self.sigma).all()):
            raise ValueError("mu and sigma must be finite")

    @property
    def feature_dim(self) -> int:
        """d."""
        return len(self.mu)

    def save(self, path: str | Path) -> Path:
        """Write the npz, whole or not at all."""
        target = Path(path)
        arrays = {"mu": self.mu, "sigma": self.sigma, "provenance": np.array(_canonical(self.provenance))}
        write_atomically(target, lambda file: np.savez(file, **arrays))  # type: ignore[arg-type]
        return target

    @classmethod
    def load(cls, path: str | Path) -> ReferenceStatistics:
        """Read an npz of ours or of EDM's; UserError if it is missing, damaged or holds something else."""
        source = Path(path).expanduser()
        if not source.is_file():
            raise UserError(f"no reference statistics at {source}: expected a .npz with mu [d] and sigma [d, d]")
        try:
            return cls._read(source)
        except _UNREADABLE as error:
            raise UserError(f"{source} holds no reference statistics (mu [d], sigma [d, d]): {error}") from error

    @classmethod
    def _read(cls, source: Path) -> ReferenceStatistics:
        with np.load(source, allow_pickle=False) as archive:
            mu = np.asarray(archive["mu"], dtype=np.float64)
            sigma = np.asarray(archive["sigma"], dtype=np.float64)
            stored = str(archive["provenance"]) if "provenance" in archive.files else None
        if stored is not None:
            provenance = json.loads(stored)
            return cls(mu, sigma, provenance.get("n"), provenance)
        # Somebody else's file: its name and hash are all that is known of its origin.
        provenance = dict.fromkeys(PROVENANCE_KEYS)
        provenance |= {"dataset": source.stem, "sha256": hashlib.sha256(source.read_bytes()).hexdigest()}
        return cls(mu, sigma, None, provenance)


def describe(dataset: Dataset, extractor: FeatureExtractor) -> Provenance:
    """The provenance that statistics of this data set through this extractor carry."""
    return {
        "dataset": dataset.name,
        "split": dataset.split,
        "sha256": dataset.sha256,
        "n": len(dataset),
        "extractor": extractor.name,
        "extractor_sha256": extractor.sha256,
        "resize": extractor.resize,
    }


@torch.no_grad()
def compute(dataset: Dataset, extractor: FeatureExtractor, batch_size: int = 256) -> ReferenceStatistics:
    """Statistics over the whole data set, in its order; ValueError if it has fewer than two samples.

    The moments are taken about the first batch's mean, which keeps the digits that a plain sum of squares would cancel.
    """
    n = len(dataset)
    if n < 2:
        raise ValueError(f"reference statistics need at least 2 samples, {dataset.name} has {n}")
    dim = extractor.feature_dim
    centre: torch.Tensor | None = None
    total = torch.zeros(dim, dtype=torch.float64)
    outer = torch.zeros(dim, dim, dtype=torch.float64)
    for first in range(0, n, batch_size):
        x, _ = dataset.batch(torch.arange(first, min(first + batch_size, n)))
        features, _ = extractor(to_uint8(x) if extractor.takes_uint8 else x)
        if features.ndim != 2 or features.shape[1] != dim:
            raise ValueError(f"{extractor.name} gave features {list(features.shape)}, expected [B, {dim}]")
        values = features.to("cpu", torch.float64)
        centre = values.mean(0) if centre is None else centre
        values = values - centre
        total += values.sum(0)
        outer += values.T @ values
    assert centre is not None
    sigma = (outer - torch.outer(total, total) / n) / (n - 1)
    return ReferenceStatistics((centre + total / n).numpy(), sigma.numpy(), n, describe(dataset, extractor))


def default_cache() -> Path:
    """Folder of cached statistics: ``$DISBACK_CACHE/references``, or ``~/.cache/disback/references``."""
    root = os.environ.get("DISBACK_CACHE")
    return (Path(root).expanduser() if root else Path.home() / ".cache" / "disback") / "references"


def cached(
    dataset: Dataset, extractor: FeatureExtractor, cache_dir: str | Path | None = None, batch_size: int = 256
) -> ReferenceStatistics:
    """Statistics from the cache, or computed and stored there; the key is the hash of the full provenance.

    A cached file that is damaged, or whose provenance is not the one asked for, is computed again, and the log says
    so. A cache that cannot be written costs time, not the run.
    """
    wanted = describe(dataset, extractor)
    key = hashlib.sha256(_canonical(wanted).encode()).hexdigest()[:16]
    folder = default_cache() if cache_dir is None else Path(cache_dir).expanduser()
    path = folder / f"{dataset.name}-{len(dataset)}-{key}.npz"
    if path.is_file():
        try:
            found = ReferenceStatistics.load(path)
            if found.provenance == wanted and found.feature_dim == extractor.feature_dim:
                return found
            log.warning("cached reference %s states another origin; computing it again", path)
        except UserError as error:
            log.warning("cached reference is unusable, computing it again: %s", error)
    statistics = compute(dataset, extractor, batch_size)
    try:
        statistics.save(path)
    except UserError as error:
        log.warning("could not store the reference statistics, they will be computed again next time: %s", error)
    return statistics


def _canonical(provenance: Provenance) -> str:
    """One spelling of a provenance, for hashing and storing."""
    return json.dumps(provenance, sort_keys=True)
