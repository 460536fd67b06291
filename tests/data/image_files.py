"""Small images, and files of every format that holds them, for the tests of the readers."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

Pixels = np.ndarray


def some_images(n: int = 6, channels: int = 3, size: int = 8, seed: int = 0) -> Pixels:
    """Random pixels uint8 [n, channels, size, size]."""
    return np.random.default_rng(seed).integers(0, 256, (n, channels, size, size), dtype=np.uint8)


def encoded(pixels: Pixels, kind: str = "PNG", **options: Any) -> bytes:
    """One image [C, H, W] as a file's bytes."""
    array = pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)
    return saved(Image.fromarray(array), kind, **options)


def saved(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """A Pillow image as a file's bytes."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def edm_names(n: int) -> list[str]:
    """The names EDM's tool gives, three images in a folder."""
    return [f"{index // 3:05d}/img{index:08d}.png" for index in range(n)]


def edm_files(images: Pixels, labels: list[int] | None = None, *, label_file: bool = True) -> dict[str, bytes]:
    """Names and bytes of an EDM data set."""
    names = edm_names(len(images))
    files = {name: encoded(image) for name, image in zip(names, images, strict=True)}
    if label_file:
        listed = None if labels is None else [list(pair) for pair in zip(names, labels, strict=True)]
        files["dataset.json"] = json.dumps({"labels": listed}).encode()
    return files


def write_folder(root: Path, files: dict[str, bytes]) -> Path:
    """The files under a folder."""
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def write_zip(path: Path, files: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    """The files in a ZIP archive."""
    path.parent.mkdir(exist_ok=True)
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def write_tar(path: Path, files: dict[str, bytes], mode: str = "w") -> Path:
    """The files in a tar archive."""
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def pixels_of(dataset: Any, indices: list[int] | None = None) -> Pixels:
    """The images of a data set as uint8 [N, C, H, W], in one batch."""
    x, _ = dataset.batch(torch.arange(len(dataset)) if indices is None else torch.tensor(indices))
    return ((x + 1.0) * 127.5).round().to(torch.uint8).numpy()


def labels_of(dataset: Any) -> list[int] | None:
    """The classes of all entries."""
    _, labels = dataset.batch(torch.arange(len(dataset)))
    return None if labels is None else labels.argmax(1).tolist()
