"""Pictures of samples."""

import numpy as np
import pytest
import torch
from PIL import Image

from disback_cli.reporting.pictures import (
    MARGIN,
    grid_image,
    picture_of,
    save_png,
    save_samples,
    scatter_image,
    side_by_side,
)


def images(values, channels: int = 1, size: int = 32) -> torch.Tensor:
    """Images of one colour each, in the model's range."""
    return torch.tensor(values).reshape(-1, 1, 1, 1).expand(-1, channels, size, size)


@pytest.mark.parametrize(
    ("count", "columns", "expected"),
    [(6, 3, (3, 2)), (5, None, (2, 3)), (64, None, (8, 8)), (1, None, (1, 1)), (4, 4, (4, 1))],
)
def test_grid_has_room_for_every_image_and_a_margin_around(count, columns, expected):
    grid = grid_image(torch.zeros(count, 3, 32, 40), columns)
    wide, high = expected
    assert grid.size == (wide * (40 + MARGIN) + MARGIN, high * (32 + MARGIN) + MARGIN)
    assert grid.mode == "RGB"


@pytest.mark.parametrize(("size", "scale"), [(8, 4), (16, 2), (31, 2), (32, 1), (64, 1)])
def test_small_images_are_enlarged_by_whole_factors(size, scale):
    assert grid_image(torch.zeros(1, 1, size, size)).size == (size * scale + 2 * MARGIN,) * 2


def test_images_are_laid_out_row_by_row_in_their_colours():
    grid = np.asarray(grid_image(images([-1.0, 0.0, 1.0, 5.0]), columns=2))
    step = 32 + MARGIN
    centres = [int(grid[MARGIN + 16 + r * step, MARGIN + 16 + c * step, 0]) for r in range(2) for c in range(2)]
    assert centres == [0, 128, 255, 255]
    assert bool((grid[:MARGIN] == 255).all())


def test_enlarging_does_not_blur():
    checkers = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(4, 4)[None, None]
    assert set(np.unique(np.asarray(grid_image(checkers)))) == {0, 255}


def test_single_image_can_come_as_it_is():
    picture = grid_image(images([-1.0, 1.0], 3, 8)[:1], enlarge=False)
    assert picture.size == (8, 8)
    assert bool((np.asarray(picture) == 0).all())


def test_channels_keep_their_order():
    sample = torch.tensor([1.0, -1.0, 0.0]).reshape(1, 3, 1, 1).expand(1, 3, 32, 32)
    assert grid_image(sample, enlarge=False).getpixel((5, 5)) == (255, 0, 128)


def test_of_latents_the_first_channels_are_shown() -> None:
    latents = torch.rand(4, 4, 8, 8) * 2 - 1
    assert grid_image(latents).tobytes() == grid_image(latents[:, :3]).tobytes()
    assert grid_image(latents[:, :2]).tobytes() == grid_image(latents[:, :1]).tobytes()


def test_scatter_shows_points_where_they_are():
    dark = np.asarray(scatter_image(torch.full((50, 2), 0.5), extent=1.0)).min(axis=2) < 250
    corner = torch.tensor([0.5, -0.5]).repeat(50, 1)
    moved = np.asarray(scatter_image(corner, extent=1.0)).min(axis=2) < 250
    difference = np.argwhere(dark != moved)
    assert len(difference) > 0
    height, width = dark.shape
    assert difference[:, 1].min() > width / 2  # both are to the right, one above the middle, one below
    assert difference[:, 0].min() < height / 2 < difference[:, 0].max()


def test_picture_suits_the_samples():
    assert picture_of(torch.zeros(4, 1, 8, 8)).size == grid_image(torch.zeros(4, 1, 8, 8)).size
    assert picture_of(torch.randn(10, 2)).size == (400, 400)
    with pytest.raises(ValueError, match=r"no picture of samples of shape \(4, 3\)"):
        picture_of(torch.zeros(4, 3))


def test_pictures_next_to_each_other_fit_with_their_titles():
    panels = [("first", Image.new("RGB", (40, 30), (255, 0, 0))), ("second", Image.new("RGB", (60, 50), (0, 0, 255)))]
    sheet = side_by_side(panels)
    gap, head = 16, 26
    assert sheet.size == (40 + 60 + 3 * gap, 50 + head + gap)
    pixels = np.asarray(sheet)
    assert bool((pixels[head : head + 30, gap : gap + 40] == (255, 0, 0)).all())
    assert bool((pixels[head : head + 50, 40 + 2 * gap : 100 + 2 * gap] == (0, 0, 255)).all())
    assert pixels[:head].min() < 100  # the titles
    assert bool((pixels[head + 30 :, gap : gap + 40] == 255).all())


def test_pictures_are_saved_whole(tmp_path):
    save_png(tmp_path / "a" / "x.png", Image.new("RGB", (7, 5), (1, 2, 3)))
    with Image.open(tmp_path / "a" / "x.png") as read:
        assert read.size == (7, 5)
        assert read.getpixel((0, 0)) == (1, 2, 3)
    assert [file.name for file in (tmp_path / "a").iterdir()] == ["x.png"]


@pytest.mark.parametrize(("shape", "drawn"), [((4, 1, 8, 8), True), ((4, 2), True), ((4, 5), False)])
def test_samples_without_a_picture_are_skipped(tmp_path, shape, drawn):
    save_samples(tmp_path / "x.png", torch.rand(shape))
    assert (tmp_path / "x.png").exists() == drawn
