"""Images from one NumPy archive: the user's own, or generated samples."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch

from disback_cli.data.dataset import Dataset, ImageDataset
from disback_cli.data.labels import check_classes
from disback_cli.data.listing import existing
from disback_cli.data.stored import check_resolution
from disback_cli.data.views import view
from disback_cli.errors import UserError

# Ours, `disback sample`'s, and those of guided-diffusion's sample archives.
_IMAGE_KEYS = ("images", "samples", "arr_0")
_LABEL_KEYS = ("labels", "arr_1")


def npz(
    *,
    path: str,
    use_labels: bool = True,
    num_classes: int | None = None,
    resolution: int | None = None,
    max_size: int | None = None,
    flip: bool = False,
    name: str | None = None,
    split: str = "train",
) -> Dataset:
    """Read an archive with `images` uint8 [N, H, W, C] or [N, H, W] and, optionally, integer `labels` [N].

    `samples`, as `disback sample` writes them, and `arr_0` with `arr_1`, as guided-diffusion does, are read alike.
    Everything is held in memory. Arrays of Python objects are refused, since reading them would execute code.

    Args:
        path: the .npz file.
        use_labels: false ignores the labels, true uses them where there are any.

    The remaining options are those of every reader: see `stored.open_stored`.

    Raises:
        UserError: naming the file, when it is missing, unreadable or has the wrong content.
    """
    expected = "a .npz with `images` uint8 [N, H, W, C], optionally `labels` [N]"
    source = existing(path, expected, "dataset.path")
    images, labels = _read(source, use_labels)
    tensor = _image_tensor(images, source)
    check_resolution(int(tensor.shape[2]), int(tensor.shape[3]), resolution, str(source))
    label_tensor, classes = None, 0
    if labels is not None:
        _check_labels(labels, len(images), source)
        classes = check_classes(labels.tolist(), num_classes, f"`labels` of {source}")
        label_tensor = torch.from_numpy(labels.astype(np.int64))
    dataset = ImageDataset(tensor, label_tensor, name=name or source.stem, split=split, num_classes=classes)
    return view(dataset, max_size=max_size, flip=flip)


def _read(source: Path, use_labels: bool) -> tuple[np.ndarray, np.ndarray | None]:
    try:
        with np.load(source, allow_pickle=False) as archive:
            image_key = next((key for key in _IMAGE_KEYS if key in archive.files), None)
            label_key = next((key for key in _LABEL_KEYS if key in archive.files), None) if use_labels else None
            images = archive[image_key] if image_key else None
            labels = archive[label_key] if label_key else None
            keys = ", ".join(archive.files) or "nothing"
    except (ValueError, OSError, EOFError, AttributeError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{source} is not a readable .npz archive: {error}") from error
    if images is None:
        raise UserError(f"{source} has no array `images` (nor `samples`, `arr_0`); it holds {keys}")
    return images, labels


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


def _check_labels(labels: np.ndarray, n: int, source: Path) -> None:
    """Check kind and count."""
    if labels.shape != (n,):
        raise UserError(f"{source}: `labels` must be one per image, [{n}], found shape {list(labels.shape)}")
    if labels.dtype.kind not in "iu":
        raise UserError(f"{source}: `labels` must be integers, found {labels.dtype}")
