"""Data sets of the library `datasets` (Hugging Face), if it is installed; it is not a dependency."""

from __future__ import annotations

import importlib
import logging
from pathlib import Path
from typing import Any

from disback_cli.data.dataset import Dataset
from disback_cli.data.labels import is_label
from disback_cli.data.listing import name_of
from disback_cli.data.storage import hash_of_contents
from disback_cli.data.stored import open_stored
from disback_cli.errors import UserError

log = logging.getLogger(__name__)

DEFAULT_SPLIT = "train"
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
        split: train, test, ...; a folder that holds one table alone has no choice, and the record then names the
            split that the table states, or ``all``.
        image_column: where the images are.
        label_column: where the labels are; null: unlabelled.
        num_classes: default: what the column states, else the largest label plus one.
        name: of the data set; default: the folder's name, or the last part of the name on the Hub.

    The remaining options are those of every reader: see `stored.open_stored`.

    Raises:
        UserError: the library is not installed, or anything is missing or contradictory.
    """
    source = Path(path).expanduser()
    library = _library()
    if source.is_dir():
        table, split = _saved(library, source, split)
    else:
        table = _named(library, path, config_name, split, download)
    _check_column(table, "image_column", image_column, path)
    if label_column is not None:
        _check_column(table, "label_column", label_column, path)
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


def _check_column(table: Any, option: str, column: str, source: str) -> None:
    """UserError unless the column is there."""
    if column not in table.column_names:
        wanted = "NAME or null" if option == "label_column" else "NAME"
        held = ", ".join(table.column_names)
        raise UserError(f"{source} has no column {column!r}; type dataset.{option}={wanted}, of {held}")


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


def _saved(library: Any, source: Path, split: str) -> tuple[Any, str]:
    """The table in a folder of ``save_to_disk``, and which split it is."""
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
        return found, _split_of_one(found, source, split)
    if split not in found:
        raise UserError(f"{source} has no split {split!r}; type dataset.split= one of {', '.join(found)}")
    return found[split], split


def _split_of_one(table: Any, source: Path, asked: str) -> str:
    """The split that a table saved alone states, or ``all``; UserError if another one was asked for."""
    stated = getattr(table, "split", None)
    held = "all" if stated is None else str(stated)
    if asked not in (held, DEFAULT_SPLIT):
        what = "states no split" if stated is None else f"is split {held!r}"
        raise UserError(
            f"{source} holds one table, which {what}, not {asked!r}: leave dataset.split out, or save a DatasetDict "
            "of several splits"
        )
    if stated is not None and held != asked:
        log.warning("%s holds one table, split %r: that is what is read and recorded", source, held)
    return held


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
        if not is_label(label):
            found = "no label" if label is None else f"label {str(label)[:40]!r}"
            raise UserError(
                f"row {index} of {source}: {found} in column {column!r}, expected an int of 0 or more; choose "
                "another dataset.label_column, or null"
            )
    return labels, getattr(table.features[column], "num_classes", None)
