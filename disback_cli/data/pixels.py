"""The border between stored pixels (uint8) and the model's range [-1, 1], by EDM's convention (Karras et al. 2022)."""

from __future__ import annotations

import torch
from torch import Tensor


def to_float(images: Tensor) -> Tensor:
    """Map uint8 pixels 0..255 of any shape to float32 in [-1, 1]: ``x / 127.5 - 1``.

    Raises TypeError for anything but uint8: a float image passed twice through here would be silently black.
    """
    if images.dtype != torch.uint8:
        raise TypeError(f"expected uint8 pixels, got {images.dtype}")
    # The divisor lies on the device: by a plain number CUDA multiplies with the reciprocal, which may differ from the
    # CPU's quotient in the last bit.
    half = torch.full((), 127.5, device=images.device)
    return images.to(torch.float32) / half - 1.0


def to_uint8(x: Tensor) -> Tensor:
    """Map floats in the model range [-1, 1], any shape, to uint8: ``clip(x * 127.5 + 128, 0, 255)``, fraction dropped.

    Inverse of `to_float` on every one of the 256 values. NaN raises ValueError: cast to uint8 it would look like black.
    """
    if not x.is_floating_point():
        raise TypeError(f"expected floating point samples in [-1, 1], got {x.dtype}")
    # float32 at least: bfloat16 has 8 bits of mantissa and would merge neighbouring grey levels.
    scaled = (x.detach().to(torch.float32) * 127.5 + 128.0).clamp(0.0, 255.0)
    if bool(torch.isnan(scaled).any()):
        raise ValueError("samples contain NaN and have no pixel value")
    return scaled.to(torch.uint8)
