"""Data sets held in memory and addressed by index.

Both classes answer ``batch(indices) -> (x, labels)`` with x float32 in the model's range and labels one-hot float32
or None, so nothing downstream need ask whether it is looking at images or at points. Images are also handed out as
they are stored, by `pixels`, for those who move many of them. Order is not decided here: see `sampler`.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from disback_cli.data.pixels import to_float

PointLaw = Callable[[int, torch.Generator], Tensor]


@runtime_checkable
class Dataset(Protocol):
    """What training and evaluation need of a data set."""

    @property
    def name(self) -> str: ...

    @property
    def split(self) -> str: ...

    @property
    def sha256(self) -> str: ...

    @property
    def num_classes(self) -> int: ...

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __len__(self) -> int: ...

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor | None]: ...


@runtime_checkable
class HasPixels(Protocol):
    """A data set that hands images out as they are stored: a quarter of the bytes of `batch`."""

    def pixels(self, indices: Tensor) -> tuple[Tensor, Tensor | None]:
        """Images uint8 [B, C, H, W] and labels one-hot float32 [B, K] or None, at indices [B]."""
        ...


class Images(Dataset, HasPixels, Protocol):
    """A data set of images."""


class PixelBatches(ABC):
    """`batch` of a data set of images, by its `pixels`."""

    @abstractmethod
    def pixels(self, indices: Tensor) -> tuple[Tensor, Tensor | None]:
        """Images uint8 [B, C, H, W] and labels one-hot float32 [B, K] or None, at indices [B]."""

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor | None]:
        """Images float32 [B, C, H, W] in [-1, 1] and labels one-hot float32 [B, K] or None, at indices [B]."""
        pixels, labels = self.pixels(indices)
        return to_float(pixels), labels


def content_hash(values: Tensor, labels: Tensor | None) -> str:
    """Sha256 (64 hex digits) of dtype, shape and bytes of the values, and of the labels if there are any."""
    digest = hashlib.sha256()
    for tensor in (values, labels):
        if tensor is None:
            digest.update(b"none")
            continue
        digest.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().data.cast("B"))
    return digest.hexdigest()


def _check_labels(labels: Tensor | None, n: int, num_classes: int) -> None:
    """Raise ValueError unless labels are int64 [n] in 0..num_classes-1 (or None)."""
    if labels is None:
        return
    if labels.dtype != torch.int64 or labels.shape != (n,):
        raise ValueError(f"labels must be int64 [{n}], got {labels.dtype} {list(labels.shape)}")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= num_classes:
        raise ValueError(f"labels must lie in 0..{num_classes - 1}, got {low}..{high}")


def one_hot(labels: Tensor | None, indices: Tensor, num_classes: int) -> Tensor | None:
    """One-hot float32 [B, num_classes] of the chosen labels, or None for an unlabelled set."""
    if labels is None:
        return None
    return torch.nn.functional.one_hot(labels[indices], num_classes).to(torch.float32)


class ImageDataset(PixelBatches):
    """Images as uint8 [N, C, H, W] with optional labels int64 [N]; the model range is [-1, 1].

    `sha256` is the hash of the content (pixels and labels), whatever file it came from. `num_classes` defaults to the
    largest label plus one, and is 0 for an unlabelled set. Raises ValueError for a wrong dtype, rank, label count or
    an empty set.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor | None = None,
        *,
        name: str,
        split: str = "train",
        num_classes: int | None = None,
    ) -> None:
        if images.dtype != torch.uint8 or images.ndim != 4 or images.numel() == 0:
            raise ValueError(f"images must be non-empty uint8 [N, C, H, W], got {images.dtype} {list(images.shape)}")
        if num_classes is None or labels is None:
            num_classes = 0 if labels is None else int(labels.max()) + 1
        _check_labels(labels, len(images), num_classes)
        self.images = images
        self.labels = labels
        self.num_classes = num_classes
        self.name = name
        self.split = split
        self.sha256 = content_hash(images, labels)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        _, channels, height, width = self.images.shape
        return channels, height, width

    def __len__(self) -> int:
        return len(self.images)

    def pixels(self, indices: Tensor) -> tuple[Tensor, Tensor | None]:
        """Images uint8 [B, C, H, W] and labels one-hot float32 [B, K] or None, at indices [B]."""
        return self.images[indices], one_hot(self.labels, indices, self.num_classes)


class PointDataset:
    """Points as float32 [N, d] with optional labels int64 [N]; the model range is the points' own, nothing is scaled.

    Raises ValueError for a wrong rank, non-finite values, a wrong label count or an empty set.
    """

    def __init__(
        self,
        points: Tensor,
        labels: Tensor | None = None,
        *,
        name: str,
        split: str = "train",
        num_classes: int | None = None,
    ) -> None:
        if not points.is_floating_point() or points.ndim != 2 or points.numel() == 0:
            raise ValueError(f"points must be non-empty float [N, d], got {points.dtype} {list(points.shape)}")
        if not bool(torch.isfinite(points).all()):
            raise ValueError("points must be finite")
        if num_classes is None or labels is None:
            num_classes = 0 if labels is None else int(labels.max()) + 1
        _check_labels(labels, len(points), num_classes)
        self.points = points.to(torch.float32)
        self.labels = labels
        self.num_classes = num_classes
        self.name = name
        self.split = split
        self.sha256 = content_hash(self.points, labels)

    @classmethod
    def from_law(cls, law: PointLaw, n: int, *, seed: int = 0, name: str, split: str = "train") -> PointDataset:
        """Draw n points once from ``law(n, generator) -> float [n, d]``; a pure function of law, n and seed."""
        return cls(law(n, torch.Generator().manual_seed(seed)), name=name, split=split)

    @property
    def shape(self) -> tuple[int]:
        """(d,) of one point."""
        return (int(self.points.shape[1]),)

    def __len__(self) -> int:
        return len(self.points)

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor | None]:
        """Points float32 [B, d] and labels one-hot float32 [B, K] (None if unlabelled) at indices [B]."""
        return self.points[indices], one_hot(self.labels, indices, self.num_classes)
