"""Weights in another precision."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from disback_cli.errors import UserError

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def in_precision(weights: Mapping[str, Tensor], dtype: str | None) -> dict[str, Tensor]:
    """Private contiguous CPU copies of the weights, floating-point ones in ``dtype``.

    Args:
        weights: tensors by name.
        dtype: one of ``DTYPES``; None keeps what each has.

    Raises:
        UserError: a weight is too large for fp16.
    """
    found = {}
    for name, tensor in weights.items():
        target = DTYPES[dtype] if dtype and tensor.is_floating_point() else tensor.dtype
        cast = tensor.detach().to("cpu", target).clone(memory_format=torch.contiguous_format)
        if cast.is_floating_point() and bool((cast.isinf() & tensor.detach().cpu().isfinite()).any()):
            raise UserError(f"{name} holds values that {dtype} cannot represent: use dtype=bf16 or dtype=fp32")
        found[name] = cast
    return found


def precision_of(weights: Mapping[str, Tensor]) -> str:
    """The precision that all floating-point weights share, or ``mixed``."""
    found = {tensor.dtype for tensor in weights.values() if tensor.is_floating_point()}
    names = {dtype: name for name, dtype in DTYPES.items()}
    return names.get(next(iter(found)), str(next(iter(found)))) if len(found) == 1 else "mixed"


def differing(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> list[str]:
    """Names of the tensors that are not the same bit for bit in both."""
    names = sorted(first.keys() | second.keys())
    return [name for name in names if not (name in first and name in second and _same_bits(first[name], second[name]))]


def _same_bits(a: Tensor, b: Tensor) -> bool:
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    one, other = (tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8) for tensor in (a, b))
    return torch.equal(one, other)
