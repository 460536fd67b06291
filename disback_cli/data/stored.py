"""Images that stay encoded where they lie and are decoded when a batch asks for them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from disback_cli.data.dataset import Dataset, PixelBatches, one_hot
from disback_cli.data.decode import Header, decode, header
from disback_cli.data.labels import check_classes
from disback_cli.data.storage import Storage
from disback_cli.data.views import view
from disback_cli.errors import UserError
from disback_cli.runtime.progress import tracked

_ALL_CHECKED = 2048  # up to this many images every header is read at opening
_SAMPLED = 256  # of larger sets; the others are checked when they are read
_PER_THREAD = 8  # fewer images are decoded sooner than a thread starts
_MAX_THREADS = 8

T = TypeVar("T")


class StoredImages(PixelBatches):
    """Images decoded on access: `pixels` reads and decodes with a few threads, nothing is kept.

    The shape is that of the first image. Every image must have it: all headers are read at opening for up to 2,048
    images, an even sample of 256 for more, and every image is checked again when it is read. Grey images are repeated
    to RGB where `channels` is 3.

    `sha256` is computed when it is first asked for, from the storage's identity (see there) and the labels.

    Raises:
        UserError: naming the file, for another size or colour than expected, or a damaged image.
    """

    def __init__(
        self,
        storage: Storage,
        labels: Tensor | None = None,
        *,
        name: str,
        split: str = "train",
        num_classes: int = 0,
        resolution: int | None = None,
        channels: int | None = None,
    ) -> None:
        if channels not in (None, 1, 3):
            raise UserError(f"dataset.channels={channels}: images have 1 channel (grey) or 3 (RGB)")
        if labels is not None and len(labels) != len(storage):
            raise ValueError(f"{len(storage)} images need as many labels, got {len(labels)}")
        self.storage = storage
        self.labels = labels
        self.num_classes = 0 if labels is None else num_classes
        self.name = name
        self.split = split
        self._sha256: str | None = None
        first = header(storage.read(0), storage.where(0))
        check_resolution(first.height, first.width, resolution, storage.where(0))
        self._repeat_grey = channels == 3
        self._shape = (channels or first.channels, first.height, first.width)
        self._check_headers()

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        return self._shape

    @property
    def sha256(self) -> str:
        """Hash of the images' identity and the labels; the first call may have to read all files."""
        if self._sha256 is None:
            digest = hashlib.sha256(f"{self.storage.identity()}{self._shape}{self.num_classes}".encode())
            digest.update(b"none" if self.labels is None else self.labels.numpy().tobytes())
            self._sha256 = digest.hexdigest()
        return self._sha256

    def __len__(self) -> int:
        return len(self.storage)

    def pixels(self, indices: Tensor) -> tuple[Tensor, Tensor | None]:
        """Images uint8 [B, C, H, W] and labels one-hot float32 [B, K] or None, at indices [B]."""
        positions = [int(index) for index in indices]
        pixels = np.empty((len(positions), *self._shape), dtype=np.uint8)

        def fill(row: int) -> None:
            index = positions[row]
            image = decode(self.storage.read(index), self.storage.where(index))
            self._check(Header(*image.shape), index)
            pixels[row] = image  # grey is repeated over three channels here

        for _ in in_threads(fill, range(len(positions))):
            pass
        return torch.from_numpy(pixels), one_hot(self.labels, indices, self.num_classes)

    def _check_headers(self) -> None:
        n = len(self.storage)
        positions = range(n) if n <= _ALL_CHECKED else [i * n // _SAMPLED for i in range(_SAMPLED)]

        def check(index: int) -> None:
            self._check(header(self.storage.read(index), self.storage.where(index)), index)

        for _ in tracked(in_threads(check, positions), f"checking {self.name}", len(positions)):
            pass

    def _check(self, found: Header, index: int) -> None:
        """Raise UserError unless the image fits the shape."""
        channels, height, width = self._shape
        where = self.storage.where(index)
        if (found.height, found.width) != (height, width):
            raise UserError(
                f"{where} is {found.height}x{found.width}, the first image, {self.storage.where(0)}, is "
                f"{height}x{width}; a data set has one size: resize or remove what differs"
            )
        if found.channels == channels or (self._repeat_grey and found.channels == 1):
            return
        colour = {1: "grey", 3: "RGB"}
        advice = "dataset.channels=3 repeats grey images to RGB" if channels == 3 or index else "convert it to grey"
        raise UserError(f"{where} is {colour[found.channels]}, {colour[channels]} is expected; {advice}")


def check_resolution(height: int, width: int, resolution: int | None, where: str) -> None:
    """Raise UserError unless the image is square of this resolution, or none is asked for."""
    if resolution is not None and (height, width) != (resolution, resolution):
        raise UserError(
            f"{where} is {height}x{width}, dataset.resolution={resolution} asks for {resolution}x{resolution}. "
            "Images are never resized here, since how it is done changes the FID: resize the files first (EDM's "
            f"dataset_tool.py, for one: --resolution={resolution}x{resolution} --transform=center-crop), or choose "
            "another resolution"
        )


def in_threads(work: Callable[[int], T], items: Sequence[int]) -> Iterator[T]:
    """The results of ``work`` in the order of ``items``; the first error in that order is raised.

    The threads live as long as the call: a pool that outlives it would be dead in a process forked later.
    """
    threads = min(_MAX_THREADS, _processors(), len(items) // _PER_THREAD)
    if threads < 2:
        yield from map(work, items)
        return

    def chunk(start: int) -> list[T]:
        return [work(item) for item in items[start : start + _PER_THREAD]]

    with ThreadPoolExecutor(threads, thread_name_prefix="decode") as pool:
        results: Iterable[list[T]] = pool.map(chunk, range(0, len(items), _PER_THREAD))
        for part in results:
            yield from part


def _processors() -> int:
    """Processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def open_stored(
    storage: Storage,
    labels: Sequence[int] | None,
    *,
    name: str,
    split: str,
    num_classes: int | None,
    resolution: int | None,
    channels: int | None,
    max_size: int | None,
    flip: bool,
    source: str,
) -> Dataset:
    """`StoredImages` with checked labels, as the view that was asked for.

    The readers' own options, ``dataset.KEY``, are handed on to here and described here only.

    Args:
        storage: the encoded images.
        labels: one for each, or None.
        name: of the data set.
        split: what the images are, for the record.
        num_classes: default: the largest label plus one.
        resolution: refuse images that are not of this height and width.
        channels: 1 or 3; 3 also takes grey images. Default: as the first image.
        max_size: a random part of so many images, always the same one.
        flip: add the mirror images, as entries n to 2n - 1.
        source: what is named in complaints.

    Raises:
        UserError: labels or images are not as they must be.
    """
    classes = 0 if labels is None else check_classes(labels, num_classes, source)
    images = StoredImages(
        storage,
        None if labels is None else torch.tensor(labels, dtype=torch.int64),
        name=name,
        split=split,
        num_classes=classes,
        resolution=resolution,
        channels=channels,
    )
    return view(images, max_size=max_size, flip=flip)
