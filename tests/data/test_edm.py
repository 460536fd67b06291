"""EDM's format from archives and folders: what comes back, and what is said when it cannot."""

from __future__ import annotations

import json
import logging
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from image_files import edm_files, edm_names, encoded, labels_of, pixels_of, some_images, write_folder, write_zip

from disback_cli.data.dataset import Dataset
from disback_cli.data.edm import edm
from disback_cli.errors import UserError

IMAGES = some_images(7)
LABELS = [2, 0, 1, 1, 0, 2, 4]

Write = Callable[[Path, dict[str, bytes]], Path]


@pytest.fixture(params=["zip", "folder"])
def write(request: pytest.FixtureRequest) -> Write:
    """Writes files as an archive or a folder named ``set``."""
    if request.param == "zip":
        return lambda tmp_path, files: write_zip(tmp_path / "set.zip", files)
    return lambda tmp_path, files: write_folder(tmp_path / "set", files)


def test_images_and_labels_come_back(tmp_path: Path, write: Write) -> None:
    path = str(write(tmp_path, edm_files(IMAGES, LABELS)))
    data = edm(path=path)
    assert isinstance(data, Dataset) and edm(path=path, num_classes=10).num_classes == 10
    assert (data.name, data.split, len(data), data.shape, data.num_classes) == ("set", "train", 7, (3, 8, 8), 5)
    assert np.array_equal(pixels_of(data), IMAGES) and labels_of(data) == LABELS
    x, labels = data.batch(torch.tensor([6, 0]))
    assert x.dtype == torch.float32 and x.min() >= -1 and x.max() <= 1
    assert labels is not None and labels.shape == (2, 5) and labels.dtype == torch.float32


@pytest.mark.parametrize("variant", ["null", "absent", "ignored"])
def test_unlabelled_sets(tmp_path: Path, write: Write, variant: str) -> None:
    files = edm_files(IMAGES, LABELS if variant == "ignored" else None, label_file=variant != "absent")
    data = edm(path=str(write(tmp_path, files)), use_labels=variant != "ignored")
    assert data.num_classes == 0 and labels_of(data) is None and np.array_equal(pixels_of(data), IMAGES)


def test_an_outer_folder_is_looked_through(tmp_path: Path, write: Write) -> None:
    files = {f"cifar/{name}": content for name, content in edm_files(IMAGES, LABELS).items()}
    files |= {"__MACOSX/cifar/._dataset.json": b"", "README.txt": b""}
    data = edm(path=str(write(tmp_path, files)))
    assert labels_of(data) == LABELS and np.array_equal(pixels_of(data), IMAGES)


def test_order_is_that_of_the_names(tmp_path: Path, write: Write) -> None:
    files = dict(reversed(edm_files(IMAGES, LABELS).items()))
    assert np.array_equal(pixels_of(edm(path=str(write(tmp_path, files)))), IMAGES)


def test_labels_go_by_name_not_by_order(tmp_path: Path, write: Write) -> None:
    files = edm_files(IMAGES)
    listed = [[name.replace("/", "\\"), label] for name, label in zip(edm_names(7), LABELS, strict=True)]
    files["dataset.json"] = json.dumps({"labels": listed[::-1]}).encode()
    assert labels_of(edm(path=str(write(tmp_path, files)))) == LABELS


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "not valid JSON"),
        (b"\xff\xfe\xfa", "not valid JSON"),
        (b"[]", r'expected \{"labels"'),
        (b'{"classes": 3}', r'expected \{"labels"'),
        (b'{"labels": 3}', "must be a list"),
        (b'{"labels": [3]}', r"entry 0 must be \[name, int\], found 3"),
        (b'{"labels": [["00000/img00000000.png", 1.5]]}', "img00000000.png must be an int of 0 or more, found 1.5"),
        (b'{"labels": [["00000/img00000000.png", [0, 1]]]}', "must be an int"),
        (b'{"labels": [["00000/img00000000.png", true]]}', "must be an int"),
        (b'{"labels": [["00000/img00000000.png", -1]]}', "0 or more, found -1"),
        (b'{"labels": [["00000/img00000000.png", 1], ["00000/img00000000.png", 2]]}', "two labels, 1 and 2"),
        (b"[" * 100_000, "not valid JSON: nested too deeply"),
        (b'{"labels": [' + b"[" * 400 + b"]" * 400 + b"]}", r"entry 0 must be \[name, int\], found a list"),
        (b'{"labels": []}', "7 of 7 images have no label, the first is 00000/img00000000.png.*use_labels=false"),
    ],
)
def test_bad_label_files_are_explained(tmp_path: Path, write: Write, content: bytes, message: str) -> None:
    path = write(tmp_path, edm_files(IMAGES) | {"dataset.json": content})
    with pytest.raises(UserError, match=message) as raised:
        edm(path=str(path))
    assert f"dataset.json of {path}" in str(raised.value)
    assert edm(path=str(path), use_labels=False).num_classes == 0


def test_label_file_and_images_must_agree(tmp_path: Path, write: Write) -> None:
    files = edm_files(IMAGES, LABELS)
    extra = encoded(IMAGES[0])
    with pytest.raises(UserError, match=r"1 of 8 images have no label, the first is 00009/img9.png"):
        edm(path=str(write(tmp_path, files | {"00009/img9.png": extra})))
    names = edm_names(7)
    more = [[name, 0] for name in [*names, "00002/gone.png"]]
    lists_more = {name: files[name] for name in names} | {"dataset.json": json.dumps({"labels": more}).encode()}
    with pytest.raises(UserError, match=r"lists 8 images, 1 of them are not there, the first is 00002/gone.png"):
        edm(path=str(write(tmp_path / "other", lists_more)))


def test_number_of_classes_is_checked(tmp_path: Path, write: Write) -> None:
    with pytest.raises(UserError, match=r"label 4 does not fit dataset.num_classes=3"):
        edm(path=str(write(tmp_path, edm_files(IMAGES, LABELS))), num_classes=3)


@pytest.mark.parametrize("label", [10**6, 10**9, 2**70, 10**4000])
def test_labels_beyond_reason_are_refused(tmp_path: Path, label: int) -> None:
    path = str(write_zip(tmp_path / "set.zip", edm_files(IMAGES, [0, label, *LABELS[2:]])))
    with pytest.raises(UserError, match=r"label \d+ of image 1 makes more than 1,000,000 classes"):
        edm(path=path)
    assert edm(path=path, use_labels=False).num_classes == 0
    with pytest.raises(UserError, match="num_classes=2000000 makes more than 1,000,000 classes"):
        edm(path=str(write_zip(tmp_path / "fine.zip", edm_files(IMAGES, LABELS))), num_classes=2_000_000)


def test_sizes_are_checked(tmp_path: Path, write: Write) -> None:
    files = edm_files(IMAGES)
    path = str(write(tmp_path, files))
    assert edm(path=path, resolution=8).shape == (3, 8, 8)
    with pytest.raises(UserError, match=r"img00000000.png.* is 8x8, dataset.resolution=32 asks for 32x32.*resize"):
        edm(path=path, resolution=32)
    files["00001/img00000004.png"] = encoded(some_images(1, size=16)[0])
    with pytest.raises(UserError, match=r"img00000004.png.* is 16x16, the first image, .*img00000000.png.*, is 8x8"):
        edm(path=str(write(tmp_path / "other", files)))


def test_colours_are_checked(tmp_path: Path, write: Write) -> None:
    files = edm_files(IMAGES)
    grey = some_images(1, channels=1, seed=3)[0]
    files["00001/img00000004.png"] = encoded(grey)
    path = str(write(tmp_path, files))
    with pytest.raises(UserError, match=r"img00000004.png.* is grey, RGB is expected; dataset.channels=3 repeats"):
        edm(path=path)
    data = edm(path=path, channels=3)
    assert np.array_equal(pixels_of(data, [4])[0], np.repeat(grey, 3, axis=0))
    assert np.array_equal(pixels_of(data, [5])[0], IMAGES[5])
    with pytest.raises(UserError, match="is RGB, grey is expected; convert"):
        edm(path=path, channels=1)
    with pytest.raises(UserError, match="dataset.channels=4"):
        edm(path=path, channels=4)


def test_damaged_images_are_named(tmp_path: Path, write: Write) -> None:
    files = edm_files(IMAGES)
    files["00001/img00000003.png"] = files["00001/img00000003.png"][:60]
    data = edm(path=str(write(tmp_path, files)))  # the header is whole
    data.batch(torch.tensor([2]))
    with pytest.raises(UserError, match="img00000003.png.*: damaged or no image"):
        data.batch(torch.arange(7))
    files["00001/img00000003.png"] = b"text"
    with pytest.raises(UserError, match="img00000003.png.*: damaged or no image"):
        edm(path=str(write(tmp_path / "other", files)))


def test_nothing_to_read(tmp_path: Path, write: Write) -> None:
    with pytest.raises(UserError, match=r"nothing at .*absent.zip.*type dataset.path=PATH"):
        edm(path=str(tmp_path / "absent.zip"))
    path = write(tmp_path, {"dataset.json": b"{}", "a.npy": b""})
    with pytest.raises(UserError, match=r"holds no images .*\.npy"):
        edm(path=str(path))


def test_several_sets_in_one_place(tmp_path: Path, write: Write) -> None:
    files = {f"{part}/{name}": data for part in ("a", "b") for name, data in edm_files(IMAGES).items()}
    with pytest.raises(UserError, match="several data sets"):
        edm(path=str(write(tmp_path, files)))


def test_a_compressed_archive_works_and_is_mentioned(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = edm_files(IMAGES, LABELS)
    stored = edm(path=str(write_zip(tmp_path / "stored.zip", files)))
    with caplog.at_level(logging.WARNING, "disback_cli"):
        packed = edm(path=str(write_zip(tmp_path / "packed.zip", files, zipfile.ZIP_DEFLATED)))
    assert "packed.zip is compressed" in caplog.text and "stored.zip" not in caplog.text
    assert np.array_equal(pixels_of(packed), IMAGES) and packed.sha256 == stored.sha256
    with pytest.raises(UserError, match="compressed by method 12"):
        edm(path=str(write_zip(tmp_path / "odd.zip", files, zipfile.ZIP_BZIP2)))


def test_damaged_archives(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "set.zip", edm_files(IMAGES))
    data = edm(path=str(path))
    whole = path.read_bytes()
    content = bytearray(whole)
    content[whole.index(b"IDAT") + 20] ^= 1  # a pixel of the first image
    path.write_bytes(content)
    with pytest.raises(UserError, match="img00000000.png in .*set.zip: damaged .its checksum differs"):
        data.batch(torch.tensor([0]))
    (tmp_path / "cut.zip").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="cut.zip is no readable ZIP archive"):
        edm(path=str(tmp_path / "cut.zip"))
    np.savez(tmp_path / "arrays.npz", images=IMAGES)
    with pytest.raises(UserError, match="type dataset=npz"):
        edm(path=str(tmp_path / "arrays.npz"))


def test_the_hash_follows_pixels_and_labels(tmp_path: Path, write: Write) -> None:
    changed = IMAGES.copy()
    changed[3, 0, 0, 0] ^= 1
    variants = [
        edm_files(IMAGES, LABELS),
        edm_files(changed, LABELS),
        edm_files(IMAGES, LABELS[::-1]),
        edm_files(IMAGES),
        edm_files(IMAGES[:6], LABELS[:6]),
    ]
    hashes = [edm(path=str(write(tmp_path / str(n), files))).sha256 for n, files in enumerate(variants)]
    assert len(set(hashes)) == len(variants) and all(len(value) == 64 for value in hashes)
    assert edm(path=str(write(tmp_path / "again", variants[0]))).sha256 == hashes[0]
