"""Other views of a data set: a part of it, and the set together with its mirror images."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from disback_cli.data.dataset import Dataset, Images, PixelBatches
from disback_cli.data.sampler import epoch_order
from disback_cli.errors import UserError


class Subset(PixelBatches):
    """Some images of a data set, in the order of `indices` [n]; `sha256` is that of the whole with the choice."""

    def __init__(self, whole: Images, indices: Tensor) -> None:
        self.whole = whole
        self.indices = indices
        self.name = whole.name
        self.split = whole.split
        self.num_classes = whole.num_classes
        self.shape = whole.shape

    @property
    def sha256(self) -> str:
        """Hash of the whole set's hash and the indices."""
        return hashlib.sha256(f"subset {self.whole.sha256}".encode() + self.indices.numpy().tobytes()).hexdigest()

    def __len__(self) -> int:
        return len(self.indices)

    def pixels(self, indices: Tensor) -> tuple[Tensor, Tensor | None]:
        """As the whole set's, at positions [B] of the subset."""
        return self.whole.pixels(self.indices[indices])


class Mirrored(PixelBatches):
    """A data set of images followed by its mirror images: entry n + i is entry i, left and right exchanged.

    This is what EDM's ``--xflip`` trains on. `plain` is the set without them, which reference statistics are made of.
    """

    def __init__(self, plain: Images) -> None:
        if len(plain.shape) != 3:
            raise ValueError(f"only images [C, H, W] can be mirrored, {plain.name} has samples {plain.shape}")
        self.plain = plain
        self.name = plain.name
        self.split = plain.split
        self.num_classes = plain.num_classes
        self.shape = plain.shape

    @property
    def sha256(self) -> str:
        """Hash of the plain set's hash, as mirrored."""
        return hashlib.sha256(f"mirrored {self.plain.sha256}".encode()).hexdigest()

    def __len__(self) -> int:
        return 2 * len(self.plain)

    def pixels(self, indices: Tensor) -> tuple[Tensor, Tensor | None]:
        """Images uint8 [B, C, H, W] and their labels, at indices [B] in 0..2n-1."""
        n = len(self.plain)
        if bool((indices >= 2 * n).any()):
            raise IndexError(f"indices of {self.name} end at {2 * n - 1}, got {int(indices.max())}")
        x, labels = self.plain.pixels(indices % n)
        mirrored = (indices >= n).reshape(-1, 1, 1, 1)
        return torch.where(mirrored, x.flip(-1), x), labels


def unmirrored(dataset: Dataset) -> Dataset:
    """The data set without its mirror images, for reference statistics."""
    return dataset.plain if isinstance(dataset, Mirrored) else dataset


def view(dataset: Images, *, max_size: int | None = None, flip: bool = False) -> Images:
    """The data set, or a part of it, or that with its mirror images.

    ``max_size`` images are the first of a shuffled order that is the same for everyone, so a smaller part lies within
    every larger one; they keep the order of the whole set. Raises UserError if it is not positive.
    """
    if max_size is not None:
        if max_size < 1:
            raise UserError(f"dataset.max_size={max_size}: must be 1 or more, or null for all images")
        if max_size < len(dataset):
            dataset = Subset(dataset, epoch_order(0, 0, len(dataset))[:max_size].sort().values)
    return Mirrored(dataset) if flip else dataset
