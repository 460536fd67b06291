"""Formats are recognised by what is there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from image_files import edm_files, encoded, labels_of, pixels_of, some_images, write_folder, write_tar, write_zip
from test_cifar10 import TRAIN, cifar_files

from disback_cli.data.open_images import open_images
from disback_cli.errors import UserError

IMAGES = some_images(6)
LABELS = [0, 1, 2, 0, 1, 2]


def _shard(path: Path) -> Path:
    files = {f"{index}.png": encoded(image) for index, image in enumerate(IMAGES)}
    return write_tar(path, files | {f"{index}.cls": str(label).encode() for index, label in enumerate(LABELS)})


def _npz(path: Path, key: str) -> Path:
    np.savez(path, **{key: IMAGES.transpose(0, 2, 3, 1), "labels": np.array(LABELS)})
    return path.with_name(path.name if path.suffix == ".npz" else f"{path.name}.npz")


@pytest.mark.parametrize("kind", ["zip", "folder", "tar", "shards", "pattern", "samples", "npz", "renamed npz", "grid"])
def test_formats_are_recognised(tmp_path: Path, kind: str) -> None:
    if kind in ("zip", "folder"):
        write = write_zip if kind == "zip" else write_folder
        path = write(tmp_path / ("set.data" if kind == "zip" else "set"), edm_files(IMAGES, LABELS))
    elif kind in ("tar", "shards", "pattern"):
        path = _shard(tmp_path / "a0.tar")
        path = {"tar": path, "shards": tmp_path, "pattern": tmp_path / "a{0..0}.tar"}[kind]
    elif kind == "grid":  # sample folders of EDM's kind have no label file: their folders mean nothing
        path = write_folder(tmp_path, edm_files(IMAGES, label_file=False))
    else:
        path = _npz(tmp_path / "samples.npz", "samples" if kind == "samples" else "images")
        path = path.rename(tmp_path / "samples.bin") if kind == "renamed npz" else path
    data = open_images(path)
    assert np.array_equal(pixels_of(data), IMAGES)
    assert labels_of(data) == (None if kind == "grid" else LABELS)


def test_cifar10_is_recognised(tmp_path: Path) -> None:
    archive = write_tar(tmp_path / "any.name", cifar_files(), "w:gz")
    folder = write_folder(tmp_path / "data", cifar_files())
    for path in (archive, folder, folder / "cifar-10-batches-py"):
        data = open_images(str(path))
        assert data.name == "cifar10" and np.array_equal(pixels_of(data), TRAIN)
    cut = tmp_path / "cifar-10-python.tar.gz"
    cut.write_bytes(archive.read_bytes()[:3000])
    with pytest.raises(UserError, match="is damaged or no tar archive|lacks data_batch"):
        open_images(cut)


def test_hugging_face_folders_are_recognised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    (tmp_path / "state.json").touch()
    with pytest.raises(UserError, match="needs the library `datasets`"):
        open_images(tmp_path)


def test_other_things_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is nothing at .*absent; expected a .npz of images, a ZIP"):
        open_images(tmp_path / "absent")
    (tmp_path / "model.pkl").write_bytes(b"\x80\x04")
    with pytest.raises(UserError, match="model.pkl is no set of images"):
        open_images(tmp_path / "model.pkl")
    for name in ("cut.zip", "cut.npz"):
        (tmp_path / name).write_bytes(b"PK\x03\x04 and no more")
        with pytest.raises(UserError, match=f"{name} is no"):
            open_images(tmp_path / name)
    with pytest.raises(UserError, match="holds no images"):
        open_images(tmp_path)
    np.savez(tmp_path / "points.npz", samples=np.zeros((4, 2), np.float32))
    with pytest.raises(UserError, match="must be uint8"):
        open_images(tmp_path / "points.npz")
