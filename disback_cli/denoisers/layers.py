"""Layers shared by the EDM U-Nets: linear, resampling convolution, group norm and the residual block.

Parameter and buffer names are those of the public EDM state dicts. Computation follows Karras et al. 2022 (appendix F)
and, for the pieces, Song et al. 2021 (DDPM++, NCSN++) and Dhariwal & Nichol 2021 (ADM).

Every layer computes in the dtype of its input and casts its own parameters to it: narrow activations go with fp32
weights, which then get fp32 gradients. Casting to the dtype a tensor has is free.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

INIT_KINDS = ("xavier_uniform", "kaiming_uniform", "kaiming_normal")


@dataclass(frozen=True)
class Init:
    """How the parameters of one layer are drawn, from the global random number generator.

    Attributes:
        kind: one of ``INIT_KINDS``: uniform in +-sqrt(6 / (fan_in + fan_out)), uniform in +-sqrt(3 / fan_in), or
            normal with variance 1 / fan_in.
        weight: factor on the drawn weights; 0 gives zeros.
        bias: factor on the drawn biases.
    """

    kind: str = "xavier_uniform"
    weight: float = 1.0
    bias: float = 0.0

    def __post_init__(self) -> None:
        """Refuse an unknown kind."""
        if self.kind not in INIT_KINDS:
            raise ValueError(f"kind={self.kind!r}: valid are {', '.join(INIT_KINDS)}")

    @torch.no_grad()
    def fill_(self, weight: Tensor, bias: Tensor | None) -> None:
        """Fill a weight [out, in, ...] and its bias [out] in place."""
        receptive = math.prod(weight.shape[2:])
        fan_in, fan_out = weight.shape[1] * receptive, weight.shape[0] * receptive
        for tensor, factor in ((weight, self.weight), (bias, self.bias)):
            if tensor is None:
                continue
            if factor == 0:
                tensor.zero_()
            elif self.kind == "kaiming_normal":
                tensor.normal_(std=factor * math.sqrt(1 / fan_in))
            else:
                fan = fan_in if self.kind == "kaiming_uniform" else (fan_in + fan_out) / 2
                bound = factor * math.sqrt(3 / fan)
                tensor.uniform_(-bound, bound)


def _cast(tensor: Tensor | None, like: Tensor) -> Tensor | None:
    return None if tensor is None else tensor.to(like.dtype)


class Linear(nn.Linear):
    """Affine map of the last axis, ``y = x W^T + b``."""

    def __init__(self, in_features: int, out_features: int, bias: bool = True, init: Init | None = None) -> None:
        """Create and initialise weight [out_features, in_features] and bias [out_features]."""
        nn.Module.__init__(self)  # the base class would draw the parameters itself
        self.in_features, self.out_features = in_features, out_features
        self.weight = nn.Parameter(torch.empty(out_features, in_features))
        self.register_parameter("bias", nn.Parameter(torch.empty(out_features)) if bias else None)
        (init or Init()).fill_(self.weight, self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map [..., in_features] to [..., out_features]."""
        return F.linear(x, self.weight.to(x.dtype), _cast(self.bias, x))


class Conv2d(nn.Module):
    """Convolution that may halve or double the resolution with a fixed low-pass filter.

    Order: resample, then the weighted convolution, then the bias. ``fused`` (NCSN++ input pyramid) convolves before it
    filters.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        up: bool = False,
        down: bool = False,
        resample_filter: Sequence[float] = (1, 1),
        fused: bool = False,
        init: Init | None = None,
    ) -> None:
        """Create the layer.

        Args:
            in_channels: channels of the input.
            out_channels: channels of the output; equal to ``in_channels`` if ``kernel`` is 0.
            kernel: 1 or 3, zero-padded to keep the size; 0 resamples only and has no parameters.
            up: double the resolution.
            down: halve the resolution.
            resample_filter: 1-D filter of even length, normalised here; the 2-D one is its outer product.
            fused: convolve first, then filter and decimate; only with ``down`` and kernel 3.
            init: how to draw the parameters.

        Raises:
            ValueError: the arguments contradict each other.
        """
        super().__init__()
        if kernel not in (0, 1, 3):
            raise ValueError(f"kernel={kernel}: valid are 0 (resample only), 1, 3")
        if kernel == 0 and in_channels != out_channels:
            raise ValueError("kernel=0 cannot change the number of channels")
        if up and down:
            raise ValueError("up and down exclude each other")
        if fused and not (down and kernel == 3):
            raise ValueError("fused needs down=True and kernel=3")
        if (up or down) and (len(resample_filter) < 2 or len(resample_filter) % 2):
            raise ValueError(f"resample_filter={tuple(resample_filter)}: need an even number of taps")
        self.kernel, self.up, self.down, self.fused = kernel, up, down, fused
        self.weight: Tensor | None = None
        self.bias: Tensor | None = None
        if kernel:
            self.weight = nn.Parameter(torch.empty(out_channels, in_channels, kernel, kernel))
            self.bias = nn.Parameter(torch.empty(out_channels))
            (init or Init()).fill_(self.weight, self.bias)
        self.resample_filter: Tensor | None = None
        if up or down:
            taps = torch.tensor(list(resample_filter), dtype=torch.float32)
            # It is part of the public state dicts, hence a persistent buffer.
            del self.resample_filter
            self.register_buffer("resample_filter", (taps.outer(taps) / taps.sum().square())[None, None])
        # The two-tap box is average pooling and nearest-neighbour repetition, which have much faster kernels.
        self.box = len(resample_filter) == 2 and resample_filter[0] == resample_filter[1]

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, in_channels, H, W] to [B, out_channels, H', W'] with H' = H, H/2 or 2H."""
        return self.with_weight(x, self.weight, self.bias)

    def with_weight(self, x: Tensor, weight: Tensor | None, bias: Tensor | None = None) -> Tensor:
        """The same layer with another weight in place of its own.

        Args:
            x: [B, in_channels, H, W].
            weight: [C, in_channels, kernel, kernel]; None only if kernel is 0, where there is nothing to weigh.
            bias: [C], or None for no bias.

        Returns:
            [B, C, H', W'].
        """
        if self.fused:
            return self._convolve_then_decimate(x, weight, bias)
        if self.up and self.box and self.kernel == 1:
            # A pointwise convolution commutes with repetition and costs a quarter at the lower resolution.
            return self._upsample(self._convolve(x, weight, bias))
        if self.up:
            x = self._upsample(x)
        elif self.down:
            x = self._downsample(x)
        return self._convolve(x, weight, bias)

    def _convolve(self, x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
        """The weighted convolution with bias; the identity if kernel is 0."""
        if weight is None:
            return x
        return F.conv2d(x, weight.to(x.dtype), _cast(bias, x), padding=self.kernel // 2)

    def _depthwise_filter(self, channels: int, like: Tensor) -> tuple[Tensor, int]:
        """The low-pass filter repeated for each channel, [channels, 1, k, k], and its padding."""
        assert self.resample_filter is not None
        taps = self.resample_filter.to(like.dtype)
        return taps.expand(channels, -1, -1, -1), (taps.shape[-1] - 1) // 2

    def _upsample(self, x: Tensor) -> Tensor:
        """Double the resolution; the filter times 4 keeps the mean of the inserted zeros' neighbours."""
        if self.box:
            return F.interpolate(x, scale_factor=2, mode="nearest")
        taps, padding = self._depthwise_filter(x.shape[1], x)
        return F.conv_transpose2d(x, taps * 4, stride=2, padding=padding, groups=x.shape[1])

    def _downsample(self, x: Tensor) -> Tensor:
        """Halve the resolution."""
        if self.box:
            return F.avg_pool2d(x, 2)
        taps, padding = self._depthwise_filter(x.shape[1], x)
        return F.conv2d(x, taps, stride=2, padding=padding, groups=x.shape[1])

    def _convolve_then_decimate(self, x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
        """Convolve with enough padding for both kernels, then filter and decimate without padding."""
        assert weight is not None
        taps, padding = self._depthwise_filter(weight.shape[0], x)
        h = F.conv2d(x, weight.to(x.dtype), padding=self.kernel // 2 + padding)
        return F.conv2d(h, taps, _cast(bias, x), stride=2, groups=h.shape[1])


class GroupNorm(nn.Module):
    """Group normalisation with ``min(32, channels // 4)`` groups."""

    def __init__(self, channels: int, eps: float) -> None:
        """Create weight and bias [channels], at 1 and 0.

        Raises:
            ValueError: the channels cannot be split into that many groups.
        """
        super().__init__()
        self.groups = min(32, channels // 4)
        self.eps = eps
        if self.groups == 0 or channels % self.groups:
            raise ValueError(f"{channels} channels cannot be normalised in {max(self.groups, 1)} groups of 4 or more")
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise [B, channels, H, W] for each sample and group; torch keeps the statistics in fp32."""
        return F.group_norm(x, self.groups, self.weight.to(x.dtype), self.bias.to(x.dtype), self.eps)


def check_levels(img_resolution: int, channel_mult: Sequence[int]) -> None:
    """Check that an image can be halved once per level of a U-Net below the first.

    Raises:
        ValueError: it cannot, or there is no level.
    """
    if not channel_mult or img_resolution % 2 ** (len(channel_mult) - 1):
        raise ValueError(
            f"img_resolution={img_resolution} cannot be halved once per level below the first: "
            f"channel_mult={tuple(channel_mult)} has {len(channel_mult)} levels"
        )


@dataclass(frozen=True)
class BlockSettings:
    """What all blocks of one network share.

    Attributes:
        emb_channels: width of the embedding that conditions the block.
        dropout: probability of dropping an activation in training, 0 <= p < 1.
        skip_scale: factor on the sum of both branches; sqrt(1/2) keeps the variance.
        eps: of the group norms.
        resample_filter: low-pass filter of the blocks that resample.
        resample_proj: give the shortcut of a resampling block a 1x1 convolution even if the channels stay.
        adaptive_scale: the embedding scales and shifts the activations (ADM) instead of only shifting them.
        channels_per_head: width of an attention head; None means a single head.
        init: of ordinary layers.
        init_zero: of the last layer of a residual branch, (near) zero so that the block starts as a shortcut.
        init_attn: of the query-key-value projection.
    """

    emb_channels: int
    dropout: float = 0.0
    skip_scale: float = 1.0
    eps: float = 1e-5
    resample_filter: tuple[float, ...] = (1, 1)
    resample_proj: bool = False
    adaptive_scale: bool = False
    channels_per_head: int | None = None
    init: Init = Init()
    init_zero: Init = Init(weight=0)
    init_attn: Init = Init()


class UNetBlock(nn.Module):
    """Residual block, conditioned on the embedding, optionally resampling and followed by self-attention."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        settings: BlockSettings,
        up: bool = False,
        down: bool = False,
        attention: bool = False,
    ) -> None:
        """Create the layers.

        Args:
            in_channels: channels of the input.
            out_channels: channels of the output.
            settings: what all blocks of the network share.
            up: double the resolution.
            down: halve the resolution.
            attention: append self-attention over the pixels.

        Raises:
            ValueError: the attention heads do not divide the channels, or a group norm cannot be built.
        """
        super().__init__()
        s = settings
        resample: dict[str, bool | tuple[float, ...]] = {"up": up, "down": down, "resample_filter": s.resample_filter}
        self.dropout, self.skip_scale, self.adaptive_scale = s.dropout, s.skip_scale, s.adaptive_scale
        self.norm0 = GroupNorm(in_channels, s.eps)
        self.conv0 = Conv2d(in_channels, out_channels, 3, init=s.init, **resample)  # type: ignore[arg-type]
        self.affine = Linear(s.emb_channels, out_channels * (2 if s.adaptive_scale else 1), init=s.init)
        self.norm1 = GroupNorm(out_channels, s.eps)
        self.conv1 = Conv2d(out_channels, out_channels, 3, init=s.init_zero)
        self.skip: Conv2d | None = None
        if in_channels != out_channels or up or down:
            kernel = 1 if in_channels != out_channels or s.resample_proj else 0
            self.skip = Conv2d(in_channels, out_channels, kernel, init=s.init, **resample)  # type: ignore[arg-type]
        self.heads = 0
        if attention:
            width = s.channels_per_head or out_channels
            if out_channels % width:
                raise ValueError(f"{out_channels} channels do not split into attention heads of {width}")
            self.heads = out_channels // width
            self.norm2 = GroupNorm(out_channels, s.eps)
            self.qkv = Conv2d(out_channels, out_channels * 3, 1, init=s.init_attn)
            self.proj = Conv2d(out_channels, out_channels, 1, init=s.init_zero)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """Transform features.

        Args:
            x: features, [B, in_channels, H, W].
            emb: embedding, [B, emb_channels], fp32.

        Returns:
            Features, [B, out_channels, H', W'], in the dtype of ``x``.
        """
        h = self.conv0(F.silu(self.norm0(x)))
        condition = self.affine(emb)[:, :, None, None]
        if self.adaptive_scale:
            scale, shift = condition.chunk(2, dim=1)
            h = F.silu(torch.addcmul(shift.to(h.dtype), self.norm1(h), (scale + 1).to(h.dtype)))
        else:
            h = F.silu(self.norm1(h + condition.to(h.dtype)))
        if self.dropout:
            h = F.dropout(h, self.dropout, self.training)
        h = self.conv1(h) + (x if self.skip is None else self.skip(x))
        if self.skip_scale != 1:
            h = h * self.skip_scale
        return self._attend(h) if self.heads else h

    def _attend(self, x: Tensor) -> Tensor:
        """Self-attention over the pixels of [B, C, H, W], added to it."""
        batch, channels, height, width = x.shape
        # Queries, keys and values are interleaved channel by channel: third axis of the reshaped projection.
        qkv = self.qkv(self.norm2(x)).reshape(batch, self.heads, channels // self.heads, 3, height * width)
        # Channels last and contiguous: the fused kernels fall back to slow ones otherwise.
        query, key, value = qkv.permute(3, 0, 1, 4, 2).contiguous().unbind(0)
        # Its softmax is fp32 for narrow types too.
        attended = F.scaled_dot_product_attention(query, key, value)
        out: Tensor = self.proj(attended.transpose(2, 3).reshape(x.shape)) + x
        return out * self.skip_scale if self.skip_scale != 1 else out
