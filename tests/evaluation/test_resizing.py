"""The resizers against other programs' and against their formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from disback_cli.evaluation.resizing import RESIZERS, clean, tf_bilinear, torch_bilinear

SIZES = [(5, 7, 19), (32, 20, 23), (40, 30, 11), (32, 32, 299)]


def picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width)).astype(np.float32)


def numpy_bilinear(image: np.ndarray, size: int, shift: float) -> np.ndarray:
    """Bilinear resize of one plane [H, W], pixel by pixel; `shift` is 0 for corners, 0.5 for centres of pixels."""
    height, width = image.shape
    out = np.empty((size, size))
    for i in range(size):
        for j in range(size):
            y = max((i + shift) * height / size - shift, 0.0)
            x = max((j + shift) * width / size - shift, 0.0)
            y0, x0 = int(y), int(x)
            y1, x1 = min(y0 + 1, height - 1), min(x0 + 1, width - 1)
            dy, dx = y - y0, x - x0
            top = image[y0, x0] * (1 - dx) + image[y0, x1] * dx
            bottom = image[y1, x0] * (1 - dx) + image[y1, x1] * dx
            out[i, j] = top * (1 - dy) + bottom * dy
    return out


def plane(resized: Tensor) -> np.ndarray:
    return resized[0, 0].numpy()


@pytest.mark.parametrize(("height", "width", "size"), SIZES)
def test_tf_bilinear_is_tensorflows_formula(height: int, width: int, size: int) -> None:
    image = picture(height, width)
    ours = plane(tf_bilinear(torch.from_numpy(image)[None, None], size))
    assert np.abs(ours - numpy_bilinear(image, size, shift=0.0)).max() < 2e-3


@pytest.mark.parametrize(("height", "width"), [(32, 32), (64, 48), (299, 299), (512, 400)])
def test_a_sampling_grid_with_shifted_centres_is_tf_bilinear(height: int, width: int) -> None:
    """The other way to write it: an affine grid of pixel centres, moved by half a source and half a target pixel."""
    x = torch.from_numpy(np.stack([picture(height, width)] * 2))[None]
    size = 299
    shift = [1.0 / width - 1.0 / size, 1.0 / height - 1.0 / size]
    theta = torch.tensor([[[1.0, 0.0, shift[0]], [0.0, 1.0, shift[1]]]])
    grid = functional.affine_grid(theta, [1, 2, size, size], align_corners=False)
    sampled = functional.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)
    assert (sampled - tf_bilinear(x, size)).abs().max() < 0.02  # of 255: float32 positions
    assert (sampled - tf_bilinear(x, size)).abs().mean() < 1e-3


@pytest.mark.parametrize(("height", "width"), [(8, 8), (32, 32), (64, 48), (299, 299), (600, 400)])
def test_clean_is_pillows_bicubic_on_float_channels(height: int, width: int) -> None:
    image = picture(height, width)
    theirs = np.asarray(Image.fromarray(image).resize((299, 299), Image.Resampling.BICUBIC)).clip(0, 255)
    ours = plane(clean(torch.from_numpy(image)[None, None], 299))
    assert ours.dtype == np.float32 and ours.min() >= 0 and ours.max() <= 255
    assert np.abs(ours - theirs).max() < 1e-4


@pytest.mark.parametrize(("height", "width", "size"), SIZES)
def test_torch_bilinear_has_half_pixel_centres(height: int, width: int, size: int) -> None:
    image = picture(height, width)
    ours = plane(torch_bilinear(torch.from_numpy(image)[None, None], size))
    assert np.abs(ours - numpy_bilinear(image, size, shift=0.5)).max() < 2e-3


def test_the_resizers_differ() -> None:
    x = torch.from_numpy(picture(32, 32))[None, None]
    found = [resize(x, 299) for resize in RESIZERS.values()]
    assert all((a - b).abs().mean() > 1 for i, a in enumerate(found) for b in found[:i])
