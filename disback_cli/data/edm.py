"""The data sets of EDM's tools (Karras et al. 2022): a ZIP archive or a folder of images with ``dataset.json``."""

from __future__ import annotations

import logging
import zipfile
from pathlib import Path

from disback_cli.data.dataset import Dataset
from disback_cli.data.decode import is_hidden, is_picture
from disback_cli.data.labels import is_label, parse_json, shown
from disback_cli.data.listing import existing, files_under, name_of, zip_members
from disback_cli.data.storage import FolderStorage, ZipStorage
from disback_cli.data.stored import open_stored
from disback_cli.errors import UserError

log = logging.getLogger(__name__)

LABEL_FILE = "dataset.json"
Files = list[str] | dict[str, zipfile.ZipInfo]


def edm(
    *,
    path: str,
    use_labels: bool = True,
    num_classes: int | None = None,
    resolution: int | None = None,
    channels: int | None = None,
    max_size: int | None = None,
    flip: bool = False,
    name: str | None = None,
    split: str = "train",
) -> Dataset:
    """Read EDM's format: images such as ``00000/img00000000.png`` at any depth, sorted by name, and `dataset.json`.

    ``dataset.json`` is ``{"labels": [["00000/img00000000.png", 3], ...]}``, or null in place of the list; without it
    the set is unlabelled. Images stay on the disk and are decoded when they are asked for. An archive that holds one
    folder around everything is read as if it were that folder.

    Args:
        path: the ZIP archive (stored; a compressed one works and is slower) or the folder.
        use_labels: false ignores the labels, true uses them where there are any.

    The remaining options are those of every reader: see `stored.open_stored`.

    Raises:
        UserError: naming the file, for anything missing, damaged or contradictory.
    """
    source = existing(path, "a ZIP archive or a folder of images with dataset.json", "dataset.path")
    files = files_under(source) if source.is_dir() else zip_members(source)
    names, prefix = _below_label_file(list(files), source)
    label_file = f"{prefix}{LABEL_FILE}"
    storage = _storage(source, files, names)
    if isinstance(storage, ZipStorage) and storage.compressed:
        log.warning(
            "%s is compressed, which costs time at every read and saves little with images; `zip -0` stores them",
            source,
        )
    labels = None
    if use_labels and label_file in files:
        content = _storage(source, files, [label_file]).read(0)
        labels = _labels(content, [name.removeprefix(prefix) for name in names], f"{label_file} of {source}")
    del files  # a million entries, no longer needed while headers are checked
    return open_stored(
        storage,
        labels,
        name=name or name_of(source),
        split=split,
        num_classes=num_classes,
        resolution=resolution,
        channels=channels,
        max_size=max_size,
        flip=flip,
        source=str(source),
    )


def _below_label_file(files: list[str], source: Path) -> tuple[list[str], str]:
    """The images that belong to `dataset.json`, of files sorted by name, and its folder: empty or with a last slash."""
    prefix = ""
    if LABEL_FILE not in files:
        places = [name for name in files if name.endswith(f"/{LABEL_FILE}") and not is_hidden(name)]
        if len(places) > 1:
            raise UserError(
                f"{source} holds several data sets ({', '.join(places[:3])}); point dataset.path at one of them"
            )
        prefix = places[0].removesuffix(LABEL_FILE) if places else ""
    names = [name for name in files if name.startswith(prefix) and is_picture(name)]
    if not names:
        if source.suffix == ".npz":
            raise UserError(f"{source} is an archive of arrays: type dataset=npz dataset.path={source}")
        latents = any(name.endswith(".npy") for name in files)
        what = "only .npy arrays, EDM2's latents, which cannot be read here" if latents else f"{len(files)} other files"
        raise UserError(f"{source} holds no images (PNG, JPEG, WebP, BMP); it has {what if files else 'no files'}")
    return names, prefix


def _storage(source: Path, files: Files, names: list[str]) -> FolderStorage | ZipStorage:
    """Some of the files of a folder or an archive."""
    if isinstance(files, dict):
        return ZipStorage(source, [files[name] for name in names])
    return FolderStorage(source, names)


def _labels(text: bytes, names: list[str], where: str) -> list[int] | None:
    """One label for each of the images, or None for ``{"labels": null}``."""
    content = parse_json(text, where)
    if not isinstance(content, dict) or "labels" not in content:
        raise UserError(f'{where}: expected {{"labels": [[name, int], ...]}} or {{"labels": null}}')
    if content["labels"] is None:
        return None
    if not isinstance(content["labels"], list):
        raise UserError(f'{where}: "labels" must be a list of [name, int], or null')
    listed: dict[str, int] = {}
    for position, entry in enumerate(content["labels"]):
        if not isinstance(entry, list) or len(entry) != 2 or not isinstance(entry[0], str):
            raise UserError(f"{where}: entry {position} must be [name, int], found {shown(entry)}")
        name, label = entry[0].replace("\\", "/"), entry[1]
        if not is_label(label):
            raise UserError(f"{where}: the label of {name} must be an int of 0 or more, found {shown(label)}")
        if listed.setdefault(name, label) != label:
            raise UserError(f"{where}: {name} has two labels, {listed[name]} and {label}")
    return _matched(listed, names, where)


def _matched(listed: dict[str, int], names: list[str], where: str) -> list[int]:
    """The labels in the order of the images; UserError if the two do not name the same files."""
    without = [name for name in names if name not in listed]
    if without:
        raise UserError(
            f"{where}: {len(without)} of {len(names)} images have no label, the first is {without[0]}; add them, or "
            "type dataset.use_labels=false"
        )
    if len(listed) > len(names):
        present = set(names)
        absent = [name for name in listed if name not in present]
        raise UserError(
            f"{where}: lists {len(listed)} images, {len(absent)} of them are not there, the first is {absent[0]}; "
            "the copy may be incomplete: restore them, or take them off the list"
        )
    return [listed[name] for name in names]
