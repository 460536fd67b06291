"""Folders of images, by class and flat."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from image_files import encoded, labels_of, pixels_of, some_images, write_folder

from disback_cli.data.dataset import Dataset
from disback_cli.data.image_folder import image_folder
from disback_cli.errors import UserError

IMAGES = some_images(5)
NAMES = ["cat/1.png", "cat/deep/2.bmp", "dog/0.webp", "zebra/3.PNG", "zebra/4.png"]
KINDS = {".png": "PNG", ".bmp": "BMP", ".webp": "WEBP"}


def class_files() -> dict[str, bytes]:
    """Three classes in lossless formats."""
    options = {".webp": {"lossless": True}}
    files = {}
    for name, image in zip(NAMES, IMAGES, strict=True):
        ending = Path(name).suffix.lower()
        files[name] = encoded(image, KINDS[ending], **options.get(ending, {}))
    return files


def test_class_folders_are_labels(tmp_path: Path) -> None:
    data = image_folder(
        path=str(write_folder(tmp_path / "pets", class_files() | {"cat/notes.txt": b"", ".x/a.png": b""}))
    )
    assert isinstance(data, Dataset) and data.name == "pets" and data.num_classes == 3
    assert np.array_equal(pixels_of(data), IMAGES) and labels_of(data) == [0, 0, 1, 2, 2]


@pytest.mark.parametrize("numbers", [range(12), range(8, 11), ["7", "007b", "10"], ["00", "01", "10"], ["1", "2", "3"]])
def test_numbers_sort_as_text_and_that_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, numbers: list[int | str]
) -> None:
    names = [str(number) for number in numbers]
    files = {f"{name}/a.png": encoded(image) for name, image in zip(names, some_images(12), strict=False)}
    with caplog.at_level(logging.INFO, "disback_cli"):
        data = image_folder(path=str(write_folder(tmp_path / "set", files)))
    assert np.array_equal(pixels_of(data), some_images(12)[[names.index(name) for name in sorted(names)]])
    assert labels_of(data) == list(range(len(names)))
    assert f"set: {sorted(names)[0]} -> 0, {sorted(names)[1]} -> 1, " in caplog.text
    assert ("... (12 classes)" in caplog.text) == (len(names) == 12)
    warned = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warned) == (len(names) == 12 or "9" in names)
    for message in warned:
        assert ("folder 10 has label 2" if len(names) == 12 else "folder 10 has label 0") in message
        assert "dataset.use_labels=false" in message and ("(00)" if len(names) == 12 else "(08)") in message


def test_without_labels_at_any_depth(tmp_path: Path) -> None:
    path = str(write_folder(tmp_path / "pets", class_files() | {"a.png": encoded(IMAGES[0])}))
    data = image_folder(path=path, use_labels=False)
    assert len(data) == 6 and data.num_classes == 0 and labels_of(data) is None
    with pytest.raises(UserError, match=r"in class folders and beside them \(a.png\).*use_labels=false"):
        image_folder(path=path)


def test_linked_class_folders_are_followed(tmp_path: Path) -> None:
    pets = write_folder(tmp_path / "pets", class_files())
    (tmp_path / "two").mkdir()
    for name in ("zebra", "cat"):
        (tmp_path / "two" / name).symlink_to(pets / name)
    data = image_folder(path=str(tmp_path / "two"))
    assert np.array_equal(pixels_of(data), IMAGES[[0, 1, 3, 4]]) and labels_of(data) == [0, 0, 1, 1]


def test_flat_folder_is_unlabelled_and_sorted(tmp_path: Path) -> None:
    files = {f"{9 - index}.png": encoded(image) for index, image in enumerate(IMAGES)}
    data = image_folder(path=str(write_folder(tmp_path, files)), name="mine", split="test")
    assert (data.name, data.split, data.num_classes) == ("mine", "test", 0)
    assert np.array_equal(pixels_of(data), IMAGES[::-1])


def test_options_reach_the_set(tmp_path: Path) -> None:
    path = str(write_folder(tmp_path / "pets", class_files()))
    assert len(image_folder(path=path, flip=True, max_size=3)) == 6
    assert image_folder(path=path, num_classes=7).num_classes == 7
    with pytest.raises(UserError, match="label 2 does not fit dataset.num_classes=2"):
        image_folder(path=path, num_classes=2)
    with pytest.raises(UserError, match="cat/1.png is 8x8, dataset.resolution=64"):
        image_folder(path=path, resolution=64)


def test_folders_that_are_no_classes(tmp_path: Path) -> None:
    splits = {f"{part}/cat/{part}.png": encoded(IMAGES[0]) for part in ("train", "val")}
    with pytest.raises(UserError, match=r"splits, not classes \(train, val\).*dataset.path=.*imagenet/train"):
        image_folder(path=str(write_folder(tmp_path / "imagenet", splits)))
    path = write_folder(tmp_path / "pets", class_files())
    (path / "horse").mkdir()
    with pytest.raises(UserError, match="pets/horse holds no images"):
        image_folder(path=str(path))


def test_nothing_to_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is nothing at .*absent: expected a folder of images"):
        image_folder(path=str(tmp_path / "absent"))
    with pytest.raises(UserError, match="holds no images .* it has nothing"):
        image_folder(path=str(tmp_path))
    (tmp_path / "a.gif").write_bytes(b"")
    with pytest.raises(UserError, match="holds no images .* it has 1 other files"):
        image_folder(path=str(tmp_path))
    with pytest.raises(UserError, match="is a file, not a folder; archives are read by dataset=edm"):
        image_folder(path=str(tmp_path / "a.gif"))


def test_a_file_that_vanishes_is_named(tmp_path: Path) -> None:
    data = image_folder(path=str(write_folder(tmp_path, class_files())))
    (tmp_path / "dog/0.webp").unlink()
    with pytest.raises(UserError, match="dog/0.webp: cannot be read: No such file"):
        pixels_of(data)
