"""NCSN++ and EDM2 once more, as plain functions of a state dict in float64: an independent reading of the descriptions.

It shares no code with the modules under test.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

Weights = dict[str, Tensor]


def _names(weights: Weights, part: str) -> list[str]:
    """Names of the layers of ``enc`` or ``dec``, in order."""
    return list(dict.fromkeys(name.split(".")[1] for name in weights if name.startswith(part)))


def _conv(x: Tensor, weights: Weights, name: str, taps: list[int], mode: str = "") -> Tensor:
    weight, bias = weights.get(f"{name}.weight"), weights.get(f"{name}.bias")
    line = torch.tensor(taps, dtype=torch.float64)
    low_pass = (line.outer(line) / line.sum() ** 2)[None, None]
    pad = (len(taps) - 1) // 2
    if mode == "fused":
        assert weight is not None and bias is not None
        x = F.conv2d(x, weight, padding=weight.shape[-1] // 2 + pad)
        x = F.conv2d(x, low_pass.repeat(x.shape[1], 1, 1, 1), groups=x.shape[1], stride=2)
        return x + bias[None, :, None, None]
    each = low_pass.repeat(x.shape[1], 1, 1, 1)
    if mode == "up":
        x = F.conv_transpose2d(x, each * 4, groups=x.shape[1], stride=2, padding=pad)
    if mode == "down":
        x = F.conv2d(x, each, groups=x.shape[1], stride=2, padding=pad)
    if weight is None:
        return x
    assert bias is not None
    return F.conv2d(x, weight, padding=weight.shape[-1] // 2) + bias[None, :, None, None]


def _norm(x: Tensor, weights: Weights, name: str) -> Tensor:
    groups = min(32, x.shape[1] // 4)
    return F.group_norm(x, groups, weights[f"{name}.weight"], weights[f"{name}.bias"], 1e-6)


def _song_block(x: Tensor, emb: Tensor, weights: Weights, name: str, taps: list[int], mode: str) -> Tensor:
    scale, shortcut = math.sqrt(0.5), x
    h = _conv(F.silu(_norm(x, weights, f"{name}.norm0")), weights, f"{name}.conv0", taps, mode)
    shift = emb @ weights[f"{name}.affine.weight"].T + weights[f"{name}.affine.bias"]
    h = _conv(F.silu(_norm(h + shift[:, :, None, None], weights, f"{name}.norm1")), weights, f"{name}.conv1", taps)
    if h.shape[1] != shortcut.shape[1] or mode:
        shortcut = _conv(shortcut, weights, f"{name}.skip", taps, mode)
    h = (h + shortcut) * scale
    if f"{name}.qkv.weight" in weights:
        batch, channels, height, width = h.shape
        qkv = _conv(_norm(h, weights, f"{name}.norm2"), weights, f"{name}.qkv", taps)
        q, k, v = qkv.reshape(batch, channels, 3, height * width).unbind(2)
        share = torch.einsum("ncq,nck->nqk", q, k / math.sqrt(channels)).softmax(2)
        attended = torch.einsum("nqk,nck->ncq", share, v).reshape(h.shape)
        h = (_conv(attended, weights, f"{name}.proj", taps) + h) * scale
    return h


def song(weights: Weights, x: Tensor, noise: Tensor, labels: Tensor | None, taps: list[int], fourier: bool) -> Tensor:
    """The raw SongUNet: x [B, C, R, R], noise [B], labels one-hot or None, all float64."""

    def linear(name: str, value: Tensor) -> Tensor:
        return value @ weights[f"{name}.weight"].T + weights.get(f"{name}.bias", torch.zeros(()))

    if fourier:
        angle = noise[:, None] * weights["map_noise.freqs"][None] * 2 * math.pi
    else:
        half = weights["map_layer0.weight"].shape[1] // 2
        angle = noise[:, None] * ((1 / 10000) ** (torch.arange(half, dtype=torch.float64) / (half - 1)))[None]
    emb = torch.cat([angle.sin(), angle.cos()], 1)
    if labels is not None:
        emb = emb + linear("map_label", labels * math.sqrt(labels.shape[1]))
    emb = F.silu(linear("map_layer1", F.silu(linear("map_layer0", emb))))
    pyramid, skips = x, []
    for name in _names(weights, "enc."):
        place = f"enc.{name}"
        if "aux_residual" in name:
            x = skips[-1] = pyramid = (x + _conv(pyramid, weights, place, taps, "fused")) / math.sqrt(2)
            continue
        mode = "down" if name.endswith("_down") else ""
        x = (
            _conv(x, weights, place, taps)
            if name.endswith("_conv")
            else _song_block(x, emb, weights, place, taps, mode)
        )
        skips.append(x)
    for name in _names(weights, "dec."):
        place = f"dec.{name}"
        if name.endswith("aux_norm"):
            x = F.silu(_norm(x, weights, place))
        elif name.endswith("aux_conv"):
            x = _conv(x, weights, place, taps)
        else:
            if "_block" in name:
                x = torch.cat([x, skips.pop()], 1)
            x = _song_block(x, emb, weights, place, taps, "up" if name.endswith("_up") else "")
    return x


def _unit(x: Tensor, dims: list[int]) -> Tensor:
    """Each slice over ``dims`` at a root mean square of one."""
    length = x.square().sum(dims, keepdim=True).sqrt()
    return x / (1e-4 + length / math.sqrt(math.prod(x.shape[dim] for dim in dims)))


def _mp_conv(x: Tensor, weight: Tensor, gain: Tensor | float = 1.0) -> Tensor:
    kernel = _unit(weight, list(range(1, weight.ndim))) * (gain / math.sqrt(weight[0].numel()))
    return x @ kernel.T if kernel.ndim == 2 else F.conv2d(x, kernel, padding=kernel.shape[-1] // 2)


def _mp_silu(x: Tensor) -> Tensor:
    return F.silu(x) / 0.596


def _mp_sum(a: Tensor, b: Tensor, share: float) -> Tensor:
    return (a + (b - a) * share) / math.sqrt((1 - share) ** 2 + share**2)


def _mp_cat(a: Tensor, b: Tensor) -> Tensor:
    scale = math.sqrt((a.shape[1] + b.shape[1]) / 0.5) / 2
    return torch.cat([a * scale / math.sqrt(a.shape[1]), b * scale / math.sqrt(b.shape[1])], 1)


def _edm2_block(x: Tensor, emb: Tensor, weights: Weights, name: str, decoder: bool, mode: str) -> Tensor:
    if mode == "up":
        x = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
    if mode == "down":
        x = F.avg_pool2d(x, 2)
    skip = weights.get(f"{name}.conv_skip.weight")
    if not decoder:
        x = _unit(x if skip is None else _mp_conv(x, skip), [1])
    scale = _mp_conv(emb, weights[f"{name}.emb_linear.weight"], weights[f"{name}.emb_gain"]) + 1
    y = _mp_conv(_mp_silu(x), weights[f"{name}.conv_res0.weight"])
    y = _mp_conv(_mp_silu(y * scale[:, :, None, None]), weights[f"{name}.conv_res1.weight"])
    if decoder and skip is not None:
        x = _mp_conv(x, skip)
    x = _mp_sum(x, y, 0.3)
    if f"{name}.attn_qkv.weight" in weights:
        batch, channels, height, width = x.shape
        y = _mp_conv(x, weights[f"{name}.attn_qkv.weight"])
        q, k, v = _unit(y.reshape(batch, channels // 64, -1, 3, height * width), [2]).unbind(3)
        share = torch.einsum("nhcq,nhck->nhqk", q, k / math.sqrt(q.shape[2])).softmax(3)
        attended = torch.einsum("nhqk,nhck->nhcq", share, v).reshape(x.shape)
        x = _mp_sum(x, _mp_conv(attended, weights[f"{name}.attn_proj.weight"]), 0.3)
    return x.clip(-256, 256)


def edm2(weights: Weights, x: Tensor, sigma: Tensor, labels: Tensor) -> Tensor:
    """The whole EDM2 denoiser with sigma_data 0.5: x [B, C, R, R], sigma [B], labels one-hot, all float64."""
    level = sigma[:, None, None, None]
    total = level**2 + 0.25
    wave = (sigma.log()[:, None] / 4 * weights["emb_fourier.freqs"] + weights["emb_fourier.phases"]).cos()
    noise = _mp_conv(wave * math.sqrt(2), weights["emb_noise.weight"])
    classes = _mp_conv(labels * math.sqrt(labels.shape[1]), weights["emb_label.weight"])
    emb = _mp_silu(_mp_sum(noise, classes, 0.5))
    h, skips = torch.cat([x / total.sqrt(), torch.ones_like(x[:, :1])], 1), []
    for name in _names(weights, "enc."):
        mode = "down" if name.endswith("_down") else ""
        is_conv = name.endswith("_conv")
        h = (
            _mp_conv(h, weights[f"enc.{name}.weight"])
            if is_conv
            else _edm2_block(h, emb, weights, f"enc.{name}", False, mode)
        )
        skips.append(h)
    for name in _names(weights, "dec."):
        if "_block" in name:
            h = _mp_cat(h, skips.pop())
        h = _edm2_block(h, emb, weights, f"dec.{name}", True, "up" if name.endswith("_up") else "")
    raw = _mp_conv(h, weights["out_conv.weight"], weights["out_gain"])
    return 0.25 / total * x + level * 0.5 / total.sqrt() * raw
