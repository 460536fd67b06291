"""Folders of images: one folder per class, or one flat folder without labels."""

from __future__ import annotations

import logging
from pathlib import Path

from disback_cli.data.dataset import Dataset
from disback_cli.data.decode import is_hidden, is_picture
from disback_cli.data.listing import existing, files_under, name_of
from disback_cli.data.storage import FolderStorage
from disback_cli.data.stored import open_stored
from disback_cli.errors import UserError

log = logging.getLogger(__name__)

_SHOWN = 5  # classes named in the log
_SPLITS = {"train", "training", "val", "valid", "validation", "test", "testing"}


def image_folder(
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
    """Read PNG, JPEG, WebP and BMP files under a folder, sorted by name; nothing is decoded before it is asked for.

    Images in folders are labelled by the sorted names of the topmost folders (0, 1, ...), images right in the
    folder are unlabelled. Names sort as text, as in torchvision and EDM's tools: "10" comes before "2", which is
    logged. JPEG files carry artefacts that an FID sees: do not mix them with PNG files.

    Args:
        path: the folder.
        use_labels: false reads class folders as one unlabelled set.
        num_classes: default: the number of class folders.

    The remaining options are those of every reader: see `stored.open_stored`.

    Raises:
        UserError: naming the file, for anything missing, damaged or contradictory.
    """
    source = existing(path, "a folder of images", "dataset.path")
    if not source.is_dir():
        raise UserError(
            f"{source} is a file, not a folder; archives are read by dataset=edm (.zip), webdataset (.tar), npz (.npz)"
        )
    files = files_under(source)
    names = [file for file in files if is_picture(file)]
    if not names:
        found = f"{len(files)} other files" if files else "nothing"
        raise UserError(f"{source} holds no images (PNG, JPEG, WebP, BMP); it has {found}")
    labels = None
    if use_labels and any("/" in file for file in names):
        classes = _class_folders(source, names)
        labels = [classes[file.split("/", 1)[0]] for file in names]
        num_classes = len(classes) if num_classes is None else num_classes
    return open_stored(
        FolderStorage(source, names),
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


def _class_folders(source: Path, names: list[str]) -> dict[str, int]:
    """Label of each class folder; UserError for folders that cannot mean classes."""
    flat = [name for name in names if "/" not in name]
    if flat:
        raise UserError(
            f"{source} holds images both in class folders and beside them ({flat[0]}); move them, or type "
            "dataset.use_labels=false to read all of them without labels"
        )
    with_images = {name.split("/", 1)[0] for name in names}
    if with_images <= _SPLITS:
        first = sorted(with_images)[0]
        raise UserError(
            f"the folders of {source} are splits, not classes ({', '.join(sorted(with_images))}); point at one: "
            f"dataset.path={source / first}"
        )
    empty = sorted(
        entry.name
        for entry in source.iterdir()
        if entry.is_dir() and not is_hidden(entry.name) and entry.name not in with_images
    )
    if empty:
        raise UserError(
            f"the class folder {source / empty[0]} holds no images; fill or remove it, since labels count the folders"
        )
    classes = {folder: label for label, folder in enumerate(sorted(with_images))}
    _tell(classes, source)
    return classes


def _tell(classes: dict[str, int], source: Path) -> None:
    """Log which folder got which label; warn where names that are numbers are not the labels' order."""
    folders = list(classes)
    first = ", ".join(f"{folder} -> {classes[folder]}" for folder in folders[:_SHOWN])
    more = f", ... ({len(folders)} classes)" if len(folders) > _SHOWN else ""
    log.info("labels of %s: %s%s", source, first, more)
    if all(folder.isascii() and folder.isdigit() for folder in folders):
        order = sorted(folders, key=lambda folder: (len(folder.lstrip("0")), folder.lstrip("0")))
        if order != folders:
            moved = next(folder for folder, wanted in zip(folders, order, strict=True) if folder != wanted)
            log.warning(
                "the class folders of %s are numbers and are sorted as text, as in torchvision: folder %s has label "
                "%d. For labels in the numbers' order pad the names with zeros (%s); dataset.use_labels=false reads "
                "the images without labels",
                source,
                moved,
                classes[moved],
                order[0].zfill(max(map(len, folders))),
            )
