"""CIFAR-10's archive, in small."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_files import labels_of, pixels_of, some_images, write_folder, write_tar

from disback_cli.data.cifar10 import cifar10
from disback_cli.data.dataset import Dataset
from disback_cli.errors import UserError

PER_FILE = 4
TRAIN = some_images(5 * PER_FILE, size=32)
TEST = some_images(PER_FILE, size=32, seed=1)
LABELS = [index * 7 % 10 for index in range(5 * PER_FILE)]


def batch(images: np.ndarray, labels: list[int], **changes: Any) -> bytes:
    """One of the archive's files."""
    content = {b"data": images.reshape(len(images), -1), b"labels": labels, b"filenames": [b"x.png"] * len(images)}
    return pickle.dumps(content | {key.encode(): value for key, value in changes.items()}, protocol=2)


def cifar_files() -> dict[str, bytes]:
    """All files of the archive."""
    files = {"batches.meta": pickle.dumps({b"label_names": [b"airplane"]}, protocol=2)}
    for number in range(5):
        part = slice(number * PER_FILE, (number + 1) * PER_FILE)
        files[f"data_batch_{number + 1}"] = batch(TRAIN[part], LABELS[part])
    files["test_batch"] = batch(TEST, [9, 8, 7, 6])
    return {f"cifar-10-batches-py/{name}": content for name, content in files.items()}


@pytest.mark.parametrize("place", ["archive", "outer folder", "inner folder", "folder with the archive"])
def test_train_and_test(tmp_path: Path, place: str) -> None:
    if "archive" in place:
        path = write_tar(tmp_path / "cifar-10-python.tar.gz", cifar_files(), "w:gz")
        path = path.parent if "folder" in place else path
    else:
        path = write_folder(tmp_path / "data", cifar_files())
        path = path / "cifar-10-batches-py" if place == "inner folder" else path
    train, test = cifar10(path=str(path)), cifar10(path=str(path), split="test")
    assert isinstance(train, Dataset)
    assert (train.name, train.split, train.shape, train.num_classes) == ("cifar10", "train", (3, 32, 32), 10)
    assert np.array_equal(pixels_of(train), TRAIN) and labels_of(train) == LABELS
    assert np.array_equal(pixels_of(test), TEST) and labels_of(test) == [9, 8, 7, 6] and test.split == "test"
    assert test.num_classes == 10 and test.sha256 != train.sha256


def test_options(tmp_path: Path) -> None:
    path = str(write_folder(tmp_path, cifar_files()))
    data = cifar10(path=path, use_labels=False, max_size=3, flip=True)
    assert len(data) == 6 and data.num_classes == 0 and labels_of(data) is None
    assert np.array_equal(pixels_of(data, [5]), pixels_of(data, [2])[..., ::-1])


def test_a_missing_archive_tells_where_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="absent.tar.gz: download https://www.cs.toronto.edu/.*cifar-10-python.tar.gz"):
        cifar10(path=str(tmp_path / "absent.tar.gz"))


def test_damaged_or_other_archives(tmp_path: Path) -> None:
    whole = write_tar(tmp_path / "whole.tar.gz", cifar_files(), "w:gz").read_bytes()
    (tmp_path / "cut.tar.gz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.tar.gz").write_text("404 not found")
    for name in ("cut.tar.gz", "text.tar.gz"):
        with pytest.raises(UserError, match=f"{name} is damaged or no tar archive .* download it again"):
            cifar10(path=str(tmp_path / name))
    files = cifar_files()
    del files["cifar-10-batches-py/data_batch_3"]
    with pytest.raises(UserError, match="lacks data_batch_3: it is not CIFAR-10's python version"):
        cifar10(path=str(write_tar(tmp_path / "less.tar.gz", files, "w:gz")))
    with pytest.raises(UserError, match="lacks data_batch_3 of CIFAR-10"):
        cifar10(path=str(write_folder(tmp_path / "less", files)))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (batch(TEST, [0, 1, 2, 3], data=[1, 2]), r"test_batch in .* holds no `data` uint8 \[N, 3072\]"),
        (batch(TEST, [0, 1, 2, 3], data=np.zeros((4, 100), np.uint8)), "holds no `data`"),
        (batch(TEST, [0, 1, 2]), r"holds no `labels` 0..9, one for each of 4 images"),
        (batch(TEST, [0, 1, 2, 10]), "holds no `labels` 0..9"),
        (pickle.dumps([1], protocol=2), "holds no `data`"),
        (b"garbage", "test_batch in"),
    ],
)
def test_wrong_content_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    files = cifar_files() | {"cifar-10-batches-py/test_batch": content}
    with pytest.raises(UserError, match=message):
        cifar10(path=str(write_folder(tmp_path, files)), split="test")


class _Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("executed"),)


def test_nothing_in_the_archive_is_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    files = cifar_files() | {"cifar-10-batches-py/test_batch": pickle.dumps({b"data": _Evil()}, protocol=2)}
    with pytest.raises(UserError):
        cifar10(path=str(write_folder(tmp_path / "data", files)), split="test")
    assert not (tmp_path / "executed").exists()
