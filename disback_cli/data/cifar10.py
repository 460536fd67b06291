"""CIFAR-10 from its own archive (A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009)."""

from __future__ import annotations

import gzip
import tarfile
import zlib
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from disback_cli.data.dataset import Dataset, ImageDataset
from disback_cli.data.views import view
from disback_cli.denoisers.pickles.numpy_objects import read_plain_pickle
from disback_cli.errors import UserError

ARCHIVE = "cifar-10-python.tar.gz"
URL = f"https://www.cs.toronto.edu/~kriz/{ARCHIVE}"
FOLDER = "cifar-10-batches-py"
TRAIN_FILES = tuple(f"data_batch_{number}" for number in range(1, 6))
TEST_FILES = ("test_batch",)
_PIXELS = 3 * 32 * 32


def cifar10(
    *,
    path: str,
    split: Literal["train", "test"] = "train",
    use_labels: bool = True,
    max_size: int | None = None,
    flip: bool = False,
) -> Dataset:
    """CIFAR-10, 32x32 RGB, held in memory: 50,000 training or 10,000 test images with labels 0..9.

    The archive's files are pickles; they are read by an own reader that executes nothing.

    Args:
        path: ``cifar-10-python.tar.gz``, or the folder it was extracted to.
        split: train or test.
        use_labels: false gives the set without labels.
        max_size: a random part of so many images, always the same one.
        flip: add the mirror images, as entries n to 2n - 1.

    Raises:
        UserError: the archive is missing (says where to get it), damaged or another one.
    """
    source = Path(path).expanduser()
    if not source.exists():
        raise UserError(
            f"CIFAR-10 is not at {source}: download {URL} and put it there, or type dataset.path=PATH; the folder "
            "DISBACK_DATA names is looked in by default, else ./data"
        )
    wanted = TRAIN_FILES if split == "train" else TEST_FILES
    files = _from_folder(source, wanted) if source.is_dir() else _from_archive(source, wanted)
    images, labels = [], []
    for name in wanted:
        pixels, classes = _batch(files[name], f"{name} in {source}")
        images.append(pixels)
        labels.append(classes)
    return view(
        ImageDataset(
            torch.from_numpy(np.concatenate(images)),
            torch.from_numpy(np.concatenate(labels)) if use_labels else None,
            name="cifar10",
            split=split,
            num_classes=10,
        ),
        max_size=max_size,
        flip=flip,
    )


def _from_folder(source: Path, wanted: tuple[str, ...]) -> dict[str, bytes]:
    folder = source / FOLDER if (source / FOLDER).is_dir() else source
    absent = [name for name in wanted if not (folder / name).is_file()]
    if absent == list(wanted) and (source / ARCHIVE).is_file():
        return _from_archive(source / ARCHIVE, wanted)
    if absent:
        raise UserError(f"{folder} lacks {', '.join(absent)} of CIFAR-10's python version; get it from {URL}")
    return {name: (folder / name).read_bytes() for name in wanted}


def _from_archive(source: Path, wanted: tuple[str, ...]) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    try:
        with tarfile.open(source, "r:*") as archive:
            for member in archive:
                name = member.name.rsplit("/", 1)[-1]
                content = archive.extractfile(member) if name in wanted else None
                if content is not None:
                    files[name] = content.read()
    except (tarfile.TarError, OSError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        reason = str(error).partition("\n")[0].rstrip(":")
        raise UserError(f"{source} is damaged or no tar archive ({reason}); download it again from {URL}") from error
    absent = [name for name in wanted if name not in files]
    if absent:
        raise UserError(
            f"{source} lacks {', '.join(absent)}: it is not CIFAR-10's python version, or cut short; get it from {URL}"
        )
    return files


def _batch(content: bytes, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Pixels uint8 [N, 3, 32, 32] and labels int64 [N] of one of the archive's files."""
    batch: Any = read_plain_pickle(content, where)
    if isinstance(batch, dict):
        batch = {key.decode() if isinstance(key, bytes) else key: value for key, value in batch.items()}
    pixels = batch.get("data") if isinstance(batch, dict) else None
    labels = batch.get("labels") if isinstance(batch, dict) else None
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.shape[1:] != (_PIXELS,):
        raise UserError(f"{where} holds no `data` uint8 [N, 3072]; get CIFAR-10's python version from {URL}")
    if not isinstance(labels, list) or len(labels) != len(pixels) or not all(label in range(10) for label in labels):
        raise UserError(f"{where} holds no `labels` 0..9, one for each of {len(pixels)} images; get it from {URL}")
    return pixels.reshape(-1, 3, 32, 32), np.array(labels, dtype=np.int64)
