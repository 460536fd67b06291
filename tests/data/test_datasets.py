"""Pixels, image and point sets, the shipped digits."""

from __future__ import annotations

import pytest
import torch

from disback_cli.data.dataset import Dataset, ImageDataset, PointDataset
from disback_cli.data.digits import digits
from disback_cli.data.pixels import to_float, to_uint8
from disback_cli.data.points import mixture, ring


def test_every_grey_level_survives_the_round_trip() -> None:
    levels = torch.arange(256, dtype=torch.uint8)
    x = to_float(levels)
    assert x.min() == -1.0 and x.max() == 1.0
    assert torch.equal(to_uint8(x), levels)


def test_out_of_range_is_clipped_and_nan_is_refused() -> None:
    assert to_uint8(torch.tensor([-7.0, 0.0, 7.0])).tolist() == [0, 128, 255]
    with pytest.raises(ValueError, match="NaN"):
        to_uint8(torch.tensor([0.0, float("nan")]))
    with pytest.raises(TypeError):
        to_uint8(torch.zeros(2, dtype=torch.uint8))
    with pytest.raises(TypeError):
        to_float(torch.zeros(2))


def test_digits_are_the_known_set() -> None:
    data = digits()
    assert isinstance(data, Dataset)
    assert len(data) == 1797 and data.shape == (1, 8, 8) and data.num_classes == 10
    assert data.images.min() == 0 and data.images.max() == 255
    assert digits().sha256 == data.sha256
    x, labels = data.batch(torch.tensor([0, 5]))
    assert x.dtype == torch.float32 and x.shape == (2, 1, 8, 8) and x.min() >= -1 and x.max() <= 1
    assert labels is not None and labels.argmax(1).tolist() == [0, 5] and labels.sum(1).tolist() == [1, 1]


def test_the_hash_follows_the_content() -> None:
    images = torch.zeros(3, 1, 2, 2, dtype=torch.uint8)
    labels = torch.tensor([0, 1, 1])
    base = ImageDataset(images, labels, name="a")
    assert base.sha256 == ImageDataset(images.clone(), labels, name="b").sha256
    changed = images.clone()
    changed[0, 0, 0, 0] = 1
    others = [
        ImageDataset(changed, labels, name="a"),
        ImageDataset(images, labels.flip(0), name="a"),
        ImageDataset(images, name="a"),
        ImageDataset(images.reshape(3, 1, 1, 4), labels, name="a"),
    ]
    assert len({base.sha256, *(other.sha256 for other in others)}) == 5


def test_unlabelled_images_have_no_classes() -> None:
    data = ImageDataset(torch.zeros(3, 1, 2, 2, dtype=torch.uint8), name="a", num_classes=7)
    assert data.num_classes == 0 and data.batch(torch.tensor([0]))[1] is None


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        (torch.zeros(2, 1, 2, 2), None),
        (torch.zeros(2, 2, 2, dtype=torch.uint8), None),
        (torch.zeros(0, 1, 2, 2, dtype=torch.uint8), None),
        (torch.zeros(2, 1, 2, 2, dtype=torch.uint8), torch.tensor([0])),
        (torch.zeros(2, 1, 2, 2, dtype=torch.uint8), torch.tensor([-1, 0])),
    ],
)
def test_wrong_images_are_refused(images: torch.Tensor, labels: torch.Tensor | None) -> None:
    with pytest.raises(ValueError):
        ImageDataset(images, labels, name="wrong")


def test_points_keep_their_scale_and_repeat() -> None:
    data = ring(modes=4, radius=3.0, std=0.1, n=4000)
    assert isinstance(data, Dataset)
    assert data.shape == (2,) and data.num_classes == 4 and data.sha256 == ring(4, 3.0, 0.1, n=4000).sha256
    points, labels = data.batch(torch.arange(4000))
    assert points.norm(dim=1).mean() == pytest.approx(3.0, abs=0.02)
    assert labels is not None and labels.mean(0).tolist() == pytest.approx([0.25] * 4, abs=0.03)
    law = PointDataset.from_law(lambda n, g: torch.randn(n, 3, generator=g), 10, seed=1, name="normal")
    assert law.shape == (3,) and law.batch(torch.tensor([1]))[1] is None
    with pytest.raises(ValueError):
        PointDataset(torch.full((2, 2), float("inf")), name="wrong")


def test_mixture_weights() -> None:
    data = mixture([[0.0], [10.0]], 0.0, weights=[3.0, 1.0], n=8000)
    assert data.points.mean() == pytest.approx(2.5, abs=0.2)
    with pytest.raises(ValueError):
        mixture([[0.0], [1.0]], 0.1, weights=[1.0])
