"""The user's own images from one NumPy archive."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import torch

from disback_cli.data.dataset import ImageDataset
from disback_cli.errors import UserError


def npz(
    path: str | Path, *, name: str | None = None, split: str = "train", num_classes: int | None = None
) -> ImageDataset:
    """Read an archive with `images` uint8 [N, H, W, C] or [N, H, W] and, optionally, integer `labels` [N].

    `name` defaults to the file's stem, `num_classes` to the largest label plus one. Arrays of Python objects are
    refused, since reading them would execute code. Raises UserError, naming the file, when it is missing, unreadable
    or has the wrong content.
    """
    source = Path(path).expanduser()
    if not source.is_file():
        raise UserError(
            f"no data set at {source}: expected a .npz with `images` uint8 [N, H, W, C], optionally `labels` [N]"
        )
    try:
        with np.load(source, allow_pickle=False) as archive:
            images = archive["images"] if "images" in archive.files else None
            labels = archive["labels"] if "labels" in archive.files else None
            keys = ", ".join(archive.files) or "nothing"
    except (ValueError, OSError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise UserError(f"{source} is not a readable .npz archive: {error}") from error
    if images is None:
        raise UserError(f"{source} has no array `images`; it holds {keys}")
    tensor = _image_tensor(images, source)
    label_tensor = None if labels is None else _label_tensor(labels, len(images), num_classes, source)
    return ImageDataset(tensor, label_tensor, name=name or source.stem, split=split, num_classes=num_classes)


def _image_tensor(images: np.ndarray, source: Path) -> torch.Tensor:
    """Check dtype, rank and size and return uint8 [N, C, H, W]."""
    if images.dtype != np.uint8:
        raise UserError(f"{source}: `images` must be uint8 (0..255), found {images.dtype}; convert before saving")
    if images.ndim not in (3, 4):
        raise UserError(f"{source}: `images` must be [N, H, W, C] or [N, H, W], found shape {list(images.shape)}")
    if images.size == 0:
        raise UserError(f"{source}: `images` is empty, shape {list(images.shape)}")
    if images.ndim == 3:
        images = images[..., None]
    if images.shape[3] not in (1, 3):
        raise UserError(f"{source}: the last axis of `images` is the channel, 1 or 3, found shape {list(images.shape)}")
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))


def _label_tensor(labels: np.ndarray, n: int, num_classes: int | None, source: Path) -> torch.Tensor:
    """Check kind, count and range and return int64 [N]."""
    if labels.shape != (n,):
        raise UserError(f"{source}: `labels` must be one per image, [{n}], found shape {list(labels.shape)}")
    if labels.dtype.kind not in "iu":
        raise UserError(f"{source}: `labels` must be integers, found {labels.dtype}")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or (num_classes is not None and high >= num_classes):
        limit = "0 or more" if num_classes is None else f"in 0..{num_classes - 1}"
        raise UserError(f"{source}: `labels` must be {limit}, found {low}..{high}")
    return torch.from_numpy(labels.astype(np.int64))
