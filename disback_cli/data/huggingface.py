"""Data sets of the library `datasets` (Hugging Face), if it is installed; it is not a dependency."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from disback_cli.data.dataset import Dataset
from disback_cli.data.listing import name_of
from disback_cli.data.storage import hash_of_contents
from disback_cli.data.stored import open_stored
from disback_cli.errors import UserError

SAVED_MARKS = ("state.json", "dataset_dict.json")


def huggingface(
    *,
    path: str,
    download: bool = False,
    config_name: str | None = None,
    split: str = "train",
    image_column: str = "image",
    label_column: str | None = "label",
    num_classes: int | None = None,
    resolution: int | None = None,
    channels: int | None = None,
    max_size: int | None = None,
    flip: bool = False,
    name: str | None = None,
) -> Dataset:
    """Read images of a Hugging Face data set; they stay encoded and are decoded when they are asked for.

    Args:
        path: a folder written by ``save_to_disk``, or, with ``download``, a name on the Hub.
        download: loading a name asks the Hub and downloads what is not in the local cache; nothing does so unless
            this is true. Loading scripts are never run.
        config_name: the configuration of a data set that has several.
        split: train, test, ...; not for a folder that holds one split alone.
        image_column: where the images are.
        label_column: where the labels are; null: unlabelled.
        num_classes: default: what the column states, else the largest label plus one.
        resolution: refuse images that are not of this height and width.
        channels: 1 or 3; 3 also takes grey images. Default: as the first image.
        max_size: a random part of so many images, always the same one.
        flip: add the mirror images, as entries n to 2n - 1.
        name: of the data set; default: the folder's name, or the last part of the name on the Hub.

    Raises:
        UserError: the library is not installed, or anything is missing or contradictory.
    """
    source = Path(path).expanduser()
    library = _library()
    table = _saved(library, source, split) if source.is_dir() else _named(library, path, config_name, split, download)
    columns = list(table.column_names)
    for option, column in (("image_column", image_column), ("label_column", label_column)):
        if column is not None and column not in columns:
            hint = " or null" if option == "label_column" else ""
            raise UserError(
                f"{path} has no column {column!r}; type dataset.{option}=NAME{hint}, of {', '.join(columns)}"
            )
    if len(table) == 0:
        raise UserError(f"{path}, split {split}, is empty")
    labels, stated = (None, None) if label_column is None else _labels(table, label_column, path)
    return open_stored(
        _Rows(library, table, image_column, path),
        labels,
        name=name or (name_of(source) if source.is_dir() else path.rsplit("/", 1)[-1]),
        split=split,
        num_classes=num_classes if num_classes is not None else stated,
        resolution=resolution,
        channels=channels,
        max_size=max_size,
        flip=flip,
        source=path,
    )


class _Rows:
    """Encoded images in a column. Identity: sha256 over their bytes, in order; the cache's fingerprints are not used,
    since they follow how a table was made and not what is in it."""

    def __init__(self, library: Any, table: Any, column: str, source: str) -> None:
        feature = table.features[column]
        if not isinstance(feature, library.Image):
            raise UserError(f"column {column!r} of {source} holds {type(feature).__name__}, not Image")
        # Encoded, since the library's own decoding hides what is wrong with a picture.
        self._table = table.select_columns([column]).cast_column(column, library.Image(decode=False))
        self._column, self._source = column, source

    def __len__(self) -> int:
        return len(self._table)

    def where(self, index: int) -> str:
        """Row and data set."""
        return f"row {index} of {self._source}"

    def read(self, index: int) -> bytes:
        """The encoded image, from the table or from the file it names."""
        cell = self._table[index][self._column]
        if not isinstance(cell, dict) or not (cell.get("bytes") or cell.get("path")):
            raise UserError(f"{self.where(index)}: has no image")
        if cell.get("bytes"):
            return bytes(cell["bytes"])
        try:
            return Path(cell["path"]).read_bytes()
        except OSError as error:
            raise UserError(f"{self.where(index)}: {cell['path']} cannot be read: {error.strerror}") from error

    def identity(self) -> str:
        """Sha256 over the encoded images."""
        return hash_of_contents(self, [""] * len(self), self._source)


def _library() -> Any:
    try:
        return importlib.import_module("datasets")
    except ImportError as error:
        raise UserError("dataset=huggingface needs the library `datasets`: pip install datasets") from error


def _saved(library: Any, source: Path, split: str) -> Any:
    """The table in a folder of ``save_to_disk``."""
    if not any((source / mark).is_file() for mark in SAVED_MARKS):
        raise UserError(
            f"{source} was not written by save_to_disk (no {' or '.join(SAVED_MARKS)}); a folder of image files is "
            "dataset=image_folder"
        )
    try:
        found = library.load_from_disk(str(source))
    except Exception as error:  # whatever the library raises, it is about these files
        raise UserError(f"{source} cannot be read by `datasets`: {error}") from error
    if not isinstance(found, dict):
        return found
    if split not in found:
        raise UserError(f"{source} has no split {split!r}; type dataset.split= one of {', '.join(found)}")
    return found[split]


def _named(library: Any, name: str, config_name: str | None, split: str, download: bool) -> Any:
    """The table of a name on the Hub."""
    if not download:
        raise UserError(
            f"there is no folder {name}. If it is a name on the Hugging Face Hub, loading it may download: type "
            "dataset.download=true to allow that, or save it with save_to_disk and give the folder"
        )
    try:
        return library.load_dataset(name, config_name, split=split, trust_remote_code=False)
    except Exception as error:  # network, absent names, wrong splits: the library's words are the best there are
        raise UserError(f"`datasets` could not load {name}, split {split}: {error}") from error


def _labels(table: Any, column: str, source: str) -> tuple[list[int], int | None]:
    """The labels, and the number of classes the column states, if any."""
    labels = list(table[column])
    for index, label in enumerate(labels):
        if not isinstance(label, int) or isinstance(label, bool) or label < 0:
            found = "no label" if label is None else f"label {str(label)[:40]!r}"
            raise UserError(
                f"row {index} of {source}: {found} in column {column!r}, expected an int of 0 or more; choose "
                "another dataset.label_column, or null"
            )
    return labels, getattr(table.features[column], "num_classes", None)
