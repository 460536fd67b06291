"""Mirror images and parts of a data set."""

from __future__ import annotations

import pytest
import torch
from image_files import some_images

from disback_cli.data.dataset import Dataset, HasPixels, ImageDataset
from disback_cli.data.pixels import to_float
from disback_cli.data.points import ring
from disback_cli.data.views import Mirrored, Subset, unmirrored, view
from disback_cli.errors import UserError


@pytest.fixture
def plain() -> ImageDataset:
    return ImageDataset(torch.from_numpy(some_images(10)), torch.arange(10) % 3, name="ten", split="test")


def test_mirrored_is_the_set_and_then_its_mirror_images(plain: ImageDataset) -> None:
    data = Mirrored(plain)
    assert isinstance(data, Dataset) and len(data) == 20
    assert (data.name, data.split, data.num_classes, data.shape) == ("ten", "test", 3, (3, 8, 8))
    x, labels = data.batch(torch.arange(20))
    own, own_labels = plain.batch(torch.arange(10))
    assert own_labels is not None and labels is not None
    assert torch.equal(x[:10], own) and torch.equal(x[10:], own.flip(3)) and not torch.equal(x[10:], own)
    assert torch.equal(labels, torch.cat([own_labels, own_labels]))
    mixed, _ = data.batch(torch.tensor([13, 3, 3, 19]))
    assert torch.equal(mixed, torch.stack([own[3].flip(2), own[3], own[3], own[9].flip(2)]))
    assert data.plain is plain and unmirrored(data) is plain and unmirrored(plain) is plain
    assert data.sha256 not in (plain.sha256, "") and data.sha256 == Mirrored(plain).sha256
    with pytest.raises(IndexError, match="end at 19"):
        data.batch(torch.tensor([20]))


def test_pixels_are_those_of_the_batches_and_stay_bytes(plain: ImageDataset) -> None:
    for data in (plain, view(plain, flip=True), view(plain, max_size=4), view(plain, max_size=4, flip=True)):
        order = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))
        assert isinstance(data, HasPixels)
        pixels, labels = data.pixels(order)
        x, batch_labels = data.batch(order)
        assert pixels.dtype == torch.uint8 and torch.equal(to_float(pixels), x)
        assert labels is not None and batch_labels is not None and torch.equal(labels, batch_labels)
    assert not isinstance(ring(n=4), HasPixels)


def test_points_have_no_mirror_image() -> None:
    with pytest.raises(ValueError, match="only images"):
        Mirrored(ring(n=4))


def test_parts_are_nested_and_keep_the_order(plain: ImageDataset) -> None:
    small, large = view(plain, max_size=4), view(plain, max_size=7)
    assert isinstance(small, Subset) and isinstance(large, Subset) and isinstance(small, Dataset)
    assert len(small) == 4 and small.num_classes == 3
    assert small.indices.tolist() == sorted(small.indices.tolist())
    assert set(small.indices.tolist()) < set(large.indices.tolist())
    x, labels = small.batch(torch.tensor([3, 0]))
    own, own_labels = plain.batch(small.indices[[3, 0]])
    assert labels is not None and own_labels is not None
    assert torch.equal(x, own) and torch.equal(labels, own_labels)
    assert len({small.sha256, large.sha256, plain.sha256}) == 3
    assert view(plain, max_size=4).sha256 == small.sha256


def test_a_part_as_large_as_the_set_is_the_set(plain: ImageDataset) -> None:
    assert view(plain, max_size=10) is plain and view(plain, max_size=99) is plain and view(plain) is plain
    with pytest.raises(UserError, match="dataset.max_size=0"):
        view(plain, max_size=0)


def test_a_part_is_mirrored_as_a_whole(plain: ImageDataset) -> None:
    data = view(plain, max_size=4, flip=True)
    assert len(data) == 8 and isinstance(unmirrored(data), Subset) and len(unmirrored(data)) == 4
