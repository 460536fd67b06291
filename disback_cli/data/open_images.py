"""Any of the formats, recognised by looking at what is there."""

from __future__ import annotations

import glob
import tarfile
import zipfile
from pathlib import Path

from disback_cli.data import cifar10
from disback_cli.data.arrays import npz
from disback_cli.data.dataset import Dataset
from disback_cli.data.edm import LABEL_FILE, edm
from disback_cli.data.huggingface import SAVED_MARKS, huggingface
from disback_cli.data.image_folder import image_folder
from disback_cli.data.tar_index import expand_braces
from disback_cli.data.webdataset import webdataset
from disback_cli.errors import UserError

_KNOWN = (
    "a .npz of images, a ZIP archive or folder of images, .tar shards, CIFAR-10's python archive, or a folder written "
    "by `datasets`"
)


def open_images(path: str | Path) -> Dataset:
    """Open images of any format this package reads, without mirror images, by content and not by ending.

    Folders: EDM's (with ``dataset.json``), CIFAR-10's extracted archive, tar shards, Hugging Face's, else loose image
    files at any depth, which are read without labels: what their folders mean cannot be known. Files: ``.npz`` with
    `images`, `samples` or `arr_0`, a ZIP archive of images, a tar shard, CIFAR-10's archive. Patterns name tar shards.

    Raises:
        UserError: nothing is there, it is none of these, or its reader refuses it.
    """
    source = Path(path).expanduser()
    text = str(source)
    if source.is_dir():
        return _folder(source)
    if not source.exists() and (glob.has_magic(text) or expand_braces(text) != [text]):
        return webdataset(path=text)
    if not source.exists():
        raise UserError(f"there is nothing at {source}; expected {_KNOWN}")
    if zipfile.is_zipfile(source):
        with zipfile.ZipFile(source) as archive:
            arrays = all(name.endswith(".npy") for name in archive.namelist())
        return npz(path=text) if arrays or source.suffix == ".npz" else edm(path=text)
    if source.suffix == ".npz":
        return npz(path=text)
    if source.suffix == ".zip":
        return edm(path=text)
    if _is_tar(source):
        return cifar10.cifar10(path=text) if _is_cifar10(source) else webdataset(path=text)
    raise UserError(f"{source} is no set of images that can be read here; expected {_KNOWN}")


def _folder(source: Path) -> Dataset:
    text = str(source)
    if (source / LABEL_FILE).is_file():
        return edm(path=text)
    if any((place / cifar10.TRAIN_FILES[0]).is_file() for place in (source, source / cifar10.FOLDER)):
        return cifar10.cifar10(path=text)
    if any((source / mark).is_file() for mark in SAVED_MARKS):
        return huggingface(path=text)
    if next(source.glob("*.tar"), None) is not None:
        return webdataset(path=text)
    return image_folder(path=text, use_labels=False)


def _is_tar(source: Path) -> bool:
    """Whether it is a tar archive, compressed or not; one that was cut short still is."""
    try:
        return tarfile.is_tarfile(source)
    except (OSError, EOFError):
        return False


def _is_cifar10(source: Path) -> bool:
    """Whether one of the first members is one of CIFAR-10's files."""
    names = (*cifar10.TRAIN_FILES, *cifar10.TEST_FILES)
    try:
        with tarfile.open(source, "r:*") as archive:
            for _, member in zip(range(16), archive, strict=False):
                if member.name.rsplit("/", 1)[-1] in names:
                    return True
    except (tarfile.TarError, OSError, EOFError):
        return source.name == cifar10.ARCHIVE
    return False
