"""Images from NumPy archives: the user's own, our samples, guided-diffusion's samples."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from image_files import labels_of, pixels_of, some_images

from disback_cli.data.arrays import npz
from disback_cli.errors import UserError

IMAGES = some_images(5)
CHANNELS_LAST = IMAGES.transpose(0, 2, 3, 1)


def test_colour_and_grey(tmp_path: Path) -> None:
    np.savez(tmp_path / "mine.npz", images=CHANNELS_LAST, labels=np.array([0, 1, 2, 1, 0], dtype=np.uint8))
    data = npz(path=str(tmp_path / "mine.npz"))
    assert data.name == "mine" and data.shape == (3, 8, 8) and data.num_classes == 3
    assert np.array_equal(pixels_of(data), IMAGES) and labels_of(data) == [0, 1, 2, 1, 0]
    np.savez(tmp_path / "grey.npz", images=CHANNELS_LAST[..., 0])
    assert npz(path=str(tmp_path / "grey.npz")).shape == (1, 8, 8)


@pytest.mark.parametrize(("image_key", "label_key"), [("samples", "labels"), ("arr_0", "arr_1")])
def test_generated_samples(tmp_path: Path, image_key: str, label_key: str) -> None:
    np.savez(tmp_path / "s.npz", **{image_key: CHANNELS_LAST, label_key: np.arange(5)})
    data = npz(path=str(tmp_path / "s.npz"))
    assert np.array_equal(pixels_of(data), IMAGES) and labels_of(data) == [0, 1, 2, 3, 4]


def test_options(tmp_path: Path) -> None:
    path = str(tmp_path / "mine.npz")
    np.savez(path, images=CHANNELS_LAST, labels=np.array([0, 1, 2, 1, 0]))
    data = npz(path=path, use_labels=False, max_size=2, flip=True, split="test", name="x", resolution=8)
    assert len(data) == 4 and data.num_classes == 0 and (data.name, data.split) == ("x", "test")
    assert npz(path=path, num_classes=10).num_classes == 10
    with pytest.raises(UserError, match="mine.npz is 8x8, dataset.resolution=32 asks for 32x32"):
        npz(path=path, resolution=32)
    with pytest.raises(UserError, match="label 2 does not fit dataset.num_classes=2"):
        npz(path=path, num_classes=2)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"pictures": np.zeros((2, 4, 4), np.uint8)}, "no array `images`.*it holds pictures"),
        ({"images": np.zeros((2, 4, 4), np.float32)}, "must be uint8"),
        ({"images": np.zeros((4, 4), np.uint8)}, r"\[N, H, W, C\]"),
        ({"images": np.zeros((0, 4, 4), np.uint8)}, "empty"),
        ({"images": np.zeros((2, 3, 4, 4), np.uint8)}, "channel"),
        ({"images": np.zeros((2, 4, 4), np.uint8), "labels": np.zeros(3, np.int64)}, "one per image"),
        ({"images": np.zeros((2, 4, 4), np.uint8), "labels": np.zeros(2)}, "integers"),
        ({"images": np.zeros((2, 4, 4), np.uint8), "labels": np.array([0, -1])}, "label -1 of image 1 is negative"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, arrays: dict[str, np.ndarray], message: str) -> None:
    path = tmp_path / "wrong.npz"
    np.savez(path, **arrays)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=message) as raised:
        npz(path=str(path))
    assert str(path) in str(raised.value)


def test_missing_and_damaged(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is nothing at .*absent.npz: expected a .npz with `images`"):
        npz(path=str(tmp_path / "absent.npz"))
    (tmp_path / "text.npz").write_text(hashlib.sha256(b"").hexdigest())
    np.savez(tmp_path / "objects.npz", images=np.array([{}], dtype=object))
    np.savez(tmp_path / "whole.npz", images=CHANNELS_LAST)
    whole = (tmp_path / "whole.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    np.save(tmp_path / "array.npy", CHANNELS_LAST)
    for name in ("text.npz", "objects.npz", "cut.npz", "array.npy"):
        with pytest.raises(UserError, match=f"{name} is not a readable"):
            npz(path=str(tmp_path / name))
