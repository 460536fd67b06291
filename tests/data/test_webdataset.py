"""Tar shards: patterns, grouping, labels, damage."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from image_files import encoded, labels_of, pixels_of, some_images, write_tar

from disback_cli.data.dataset import Dataset
from disback_cli.data.tar_index import expand_braces
from disback_cli.data.webdataset import webdataset
from disback_cli.errors import UserError

IMAGES = some_images(6)
LABELS = [3, 0, 1, 1, 2, 0]


def shard_files(indices: range, *, label: str | None = "cls") -> dict[str, bytes]:
    """The members of a shard."""
    files = {}
    for index in indices:
        files[f"./sample.d/{index:04d}.png"] = encoded(IMAGES[index])
        if label == "cls":
            files[f"./sample.d/{index:04d}.cls"] = f"{LABELS[index]}\n".encode()
        elif label == "json":
            files[f"./sample.d/{index:04d}.json"] = json.dumps({"label": LABELS[index], "y": 9}).encode()
    return files


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Three shards of two samples, and a file that is none."""
    for number in range(3):
        write_tar(tmp_path / f"train-{8 + number:03d}.tar", shard_files(range(2 * number, 2 * number + 2)))
    (tmp_path / "index.txt").touch()
    return tmp_path


@pytest.mark.parametrize("pattern", ["", "train-{008..010}.tar", "train-*.tar", "train-{008,009,010}.tar"])
def test_every_way_to_name_shards(shards: Path, pattern: str) -> None:
    data = webdataset(path=str(shards / pattern))
    assert isinstance(data, Dataset) and data.shape == (3, 8, 8) and data.num_classes == 4
    assert np.array_equal(pixels_of(data), IMAGES) and labels_of(data) == LABELS
    assert data.name == ("train-008" if pattern else shards.name)


def test_one_shard_and_options(shards: Path) -> None:
    path = str(shards / "train-009.tar")
    data = webdataset(path=path, use_labels=False, flip=True)
    assert len(data) == 4 and labels_of(data) is None
    assert np.array_equal(pixels_of(data, [0, 3]), [IMAGES[2], IMAGES[3][..., ::-1]])
    assert webdataset(path=path, num_classes=10).num_classes == 10


def test_json_labels(tmp_path: Path) -> None:
    path = str(write_tar(tmp_path / "a.tar", shard_files(range(6), label="json")))
    assert labels_of(webdataset(path=path)) == LABELS
    assert labels_of(webdataset(path=path, label_key="y")) == [9] * 6
    assert labels_of(webdataset(path=path, label_key="absent")) is None


def test_no_labels_other_files_and_long_names(tmp_path: Path) -> None:
    long = "a" * 150
    files = {f"{long}.JPG.txt": b"x", f"{long}/1.png": encoded(IMAGES[0]), f"{long}/1.seg.png": b"mask"}
    files |= {f"{long}.PNG": encoded(IMAGES[1]), "._junk.png": b""}
    data = webdataset(path=str(write_tar(tmp_path / "a.tar", files)))
    assert np.array_equal(pixels_of(data), IMAGES[[1, 0]]) and labels_of(data) is None


def test_braces() -> None:
    assert expand_braces("a{8..10}b") == ["a8b", "a9b", "a10b"]
    assert expand_braces("{08..10}") == ["08", "09", "10"]
    assert expand_braces("{2..0}{x,y}") == ["2x", "2y", "1x", "1y", "0x", "0y"]
    assert expand_braces("plain{}{z}") == ["plain{}{z}"]


def test_shards_that_are_not_there(shards: Path) -> None:
    with pytest.raises(UserError, match=r"there is no shard .*train-011.tar of .*train-\{008..011\}.tar"):
        webdataset(path=str(shards / "train-{008..011}.tar"))
    with pytest.raises(UserError, match=r"there is no shard .*val-\*.tar; dataset.path takes"):
        webdataset(path=str(shards / "val-*.tar"))
    with pytest.raises(UserError, match="there is no shard .*absent"):
        webdataset(path=str(shards / "absent"))
    (shards / "empty").mkdir()
    with pytest.raises(UserError, match="empty holds no .tar files"):
        webdataset(path=str(shards / "empty"))
    write_tar(shards / "none.tar", {})
    with pytest.raises(UserError, match="none.tar holds no images"):
        webdataset(path=str(shards / "none.tar"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sample.d/0001.cls": b"cat"}, "0001.cls in .*a.tar: the label must be an int of 0 or more, found 'cat'"),
        ({"sample.d/0001.cls": b"-1"}, "0001.cls in .*a.tar: .* found '-1'"),
        ({"sample.d/0001.cls": b"1.5"}, "found '1.5'"),
        ({"sample.d/0001.cls": b"9" * 5000}, "0001.cls in .*a.tar: .* found '9999"),
        ({"sample.d/0001.cls": b"123456789012"}, "label 123456789012 of image 1 makes more than 1,000,000 classes"),
        ({"sample.d/0001.cls": None, "sample.d/0001.json": b"[" * 100_000}, "0001.json .*nested too deeply"),
        ({"sample.d/0001.cls": None}, "1 of 6 samples have no label, the first is sample.d/0001.png in .*a.tar"),
        ({"sample.d/0001.png": None}, "sample.d/0001 in .*a.tar has no image .* it has .cls"),
        ({"sample.d/0001.jpg": b""}, "sample.d/0001 in .*a.tar has several images; it has .cls, .jpg, .png"),
        ({"sample.d/0001.png": b"x"}, "sample.d/0001.png in .*a.tar: damaged or no image"),
        ({"sample.d/0001.cls": None, "sample.d/0001.json": b"{"}, "0001.json in .*a.tar: not valid JSON"),
        ({"sample.d/0001.cls": None, "sample.d/0001.json": b'{"label": "cat"}'}, "0001.json .* found 'cat'"),
    ],
)
def test_bad_samples_are_named(tmp_path: Path, changes: dict[str, bytes | None], message: str) -> None:
    files = {name.removeprefix("./"): content for name, content in shard_files(range(6)).items()}
    merged = {name: content for name, content in (files | changes).items() if content is not None}
    path = write_tar(tmp_path / "a.tar", merged)
    with pytest.raises(UserError, match=message):
        webdataset(path=str(path))


def test_a_file_twice(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", shard_files(range(2)))
    with tarfile.open(path, "a") as archive:
        archive.add(__file__, "sample.d/0000.cls")
    with pytest.raises(UserError, match="a.tar holds sample.d/0000.cls twice"):
        webdataset(path=str(path))


def test_damaged_shards(tmp_path: Path) -> None:
    whole = write_tar(tmp_path / "a.tar", shard_files(range(6))).read_bytes()
    end = whole.rindex(b"ustar") - 257  # of the last member's header
    damaged = bytearray(whole)
    damaged[end + 20] ^= 1  # its checksum no longer fits
    cut = tmp_path / "cut.tar"
    for content in (whole[: end + 100], whole[:end], whole[: end + 512], whole[: end // 2], bytes(damaged), b"x" * 600):
        cut.write_bytes(content)
        with pytest.raises(UserError, match="cut.tar is damaged or cut short"):
            webdataset(path=str(cut))
    write_tar(tmp_path / "packed.tar", shard_files(range(2)), "w:gz")
    with pytest.raises(UserError, match="packed.tar is compressed .* uncompress it first"):
        webdataset(path=str(tmp_path / "packed.tar"))


def test_a_shard_cut_after_opening_is_named(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", shard_files(range(6)))
    data = webdataset(path=str(path))
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(UserError, match=r"0005.png in .*a.tar: cut short, 0 of \d+ bytes"):
        pixels_of(data, [5])
    path.unlink()
    with pytest.raises(UserError, match="0000.png in .*a.tar: cannot be read"):
        pixels_of(data, [0])
