"""Ways to bring images to the extractor's size, by name: a resize alone moves FID by whole points.

``tf_bilinear`` is TensorFlow 1's, through which published figures were measured; the resampling grid with which
NVIDIA's detector enlarges its input takes the same samples. ``clean`` is the antialiased bicubic of Parmar et al. 2022
(arXiv 2104.11222). ``torch_bilinear`` is what torch does when nobody chooses: half-pixel centres, no antialiasing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

ResizerName = Literal["tf_bilinear", "clean", "torch_bilinear"]
Resizer = Callable[[Tensor, int], Tensor]


def tf_bilinear(x: Tensor, size: int) -> Tensor:
    """Bilinear resize of float [B, C, H, W] to [B, C, size, size] the way TensorFlow 1 did: no antialiasing.

    Output pixel i samples the source at i * H / size, with no half-pixel shift, and the last row and column are
    repeated.
    """
    return _resize_axis(_resize_axis(x, size, axis=3), size, axis=2)


def _resize_axis(x: Tensor, size: int, axis: int) -> Tensor:
    """Linear interpolation along one axis."""
    length = x.shape[axis]
    # TensorFlow computes positions in float32; float64 would choose another pixel where a position is nearly whole.
    position = torch.arange(size, dtype=torch.float32, device=x.device) * torch.tensor(
        length / size, dtype=torch.float32
    )
    low = position.to(torch.int64).clamp(max=length - 1)
    high = (low + 1).clamp(max=length - 1)
    fraction = (position - low).to(x.dtype).view([-1 if a == axis else 1 for a in range(x.ndim)])
    below = x.index_select(axis, low)
    return below + (x.index_select(axis, high) - below) * fraction


def clean(x: Tensor, size: int) -> Tensor:
    """Antialiased bicubic (a = -0.5) of float [B, C, H, W] in 0..255 to [B, C, size, size], unrounded, within 0..255.

    Pillow's filter on each channel in float32. Its weights are float64, and so is the arithmetic here: in float32 the
    two differ by thousandths of a grey level.
    """
    wide = functional.interpolate(x.double(), (size, size), mode="bicubic", align_corners=False, antialias=True)
    return wide.clamp(0.0, 255.0).to(x.dtype)


def torch_bilinear(x: Tensor, size: int) -> Tensor:
    """Bilinear resize of float [B, C, H, W] to [B, C, size, size] with half-pixel centres and no antialiasing."""
    return functional.interpolate(x, (size, size), mode="bilinear", align_corners=False, antialias=False)


RESIZERS: dict[str, Resizer] = {"tf_bilinear": tf_bilinear, "clean": clean, "torch_bilinear": torch_bilinear}
