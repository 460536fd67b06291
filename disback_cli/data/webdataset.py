"""WebDataset shards: tar files in which an image and its label share a name up to the first dot."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from disback_cli.data.dataset import Dataset
from disback_cli.data.labels import is_label, label_in_text, parse_json, shown
from disback_cli.data.listing import name_of
from disback_cli.data.storage import TarStorage
from disback_cli.data.stored import open_stored
from disback_cli.data.tar_index import Member, Sample, find_shards, index_shards
from disback_cli.errors import UserError

log = logging.getLogger(__name__)


def webdataset(
    *,
    path: str,
    use_labels: bool = True,
    label_key: str = "label",
    num_classes: int | None = None,
    resolution: int | None = None,
    channels: int | None = None,
    max_size: int | None = None,
    flip: bool = False,
    name: str | None = None,
    split: str = "train",
) -> Dataset:
    """Read tar shards of images with ``.cls`` (an integer as text) or ``.json`` labels beside them.

    The headers of all shards are read once at opening; images are then read from their places in the files. Order is
    that of the shards and of the samples in them. Samples without an image are refused, other files are ignored.

    Args:
        path: a folder of .tar files, one of them, a glob pattern, or a brace pattern such as ``train-{000..012}.tar``.
        use_labels: false ignores the labels, true uses them where there are any.
        label_key: entry of the ``.json`` that holds the label.
        name: of the data set; default: the name of the folder or of the first shard.

    The remaining options are those of every reader: see `stored.open_stored`.

    Raises:
        UserError: naming shard and sample, for anything missing, damaged or contradictory.
    """
    shards = find_shards(path)
    members: list[Member] = []
    shard_of: list[int] = []
    labels: list[int | None] = []
    for sample in index_shards(shards):
        where = str(shards[sample.shard])
        members.append(_picture(sample, where))
        shard_of.append(sample.shard)
        labels.append(_label(sample, label_key, where) if use_labels else None)
    if not members:
        raise UserError(f"{path} holds no images (PNG, JPEG, WebP, BMP)")
    storage = TarStorage(
        shards,
        [member.name for member in members],
        shard_of,
        [member.offset for member in members],
        [member.size for member in members],
    )
    return open_stored(
        storage,
        _all_or_none(labels, storage, use_labels),
        name=name or _name(path, shards),
        split=split,
        num_classes=num_classes,
        resolution=resolution,
        channels=channels,
        max_size=max_size,
        flip=flip,
        source=path,
    )


def _name(path: str, shards: list[Path]) -> str:
    source = Path(path).expanduser()
    return name_of(source if source.is_dir() else shards[0])


def _picture(sample: Sample, shard: str) -> Member:
    """The one image of a sample."""
    pictures = sample.pictures()
    if len(pictures) == 1:
        return pictures[0]
    held = ", ".join(f".{ending}" for ending in sorted(sample.files))
    count = "several images" if pictures else "no image (.png, .jpg, .jpeg, .webp, .bmp)"
    raise UserError(f"{sample.key} in {shard} has {count}; it has {held}")


def _all_or_none(labels: list[int | None], storage: TarStorage, wanted: bool) -> list[int] | None:
    """The labels if every sample has one, None if none has; UserError otherwise."""
    known = [label for label in labels if label is not None]
    if known and len(known) != len(labels):
        first = labels.index(None)
        raise UserError(
            f"{len(labels) - len(known)} of {len(labels)} samples have no label, the first is {storage.where(first)}; "
            "add a .cls to each, or type dataset.use_labels=false"
        )
    if wanted and not known:
        log.info("%s has no labels: neither .cls nor an entry dataset.label_key of .json", storage.where(0))
    return known or None


def _label(sample: Sample, label_key: str, shard: str) -> int | None:
    """The label from ``.cls``, else from ``.json``, else None."""
    label: Any
    if "cls" in sample.files:
        member = sample.files["cls"]
        label = label_in_text(member.content.decode(errors="replace").strip())
    elif "json" in sample.files:
        member = sample.files["json"]
        content = parse_json(member.content, f"{member.name} in {shard}")
        if not isinstance(content, dict) or label_key not in content:
            return None
        label = content[label_key]
    else:
        return None
    if not is_label(label):
        raise UserError(f"{member.name} in {shard}: the label must be an int of 0 or more, found {shown(label)}")
    return int(label)
