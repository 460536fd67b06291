"""Magnitude-preserving layers of EDM2 (Karras et al. 2024, "Analyzing and Improving the Training Dynamics ...").

Every layer returns activations of unit magnitude (root mean square 1) from independent activations of unit magnitude,
whatever its weights, because it normalises them. Written from the paper (section 2, appendix B, algorithm 1).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Keeps the normalisation of an all-zero vector finite; the paper's value, part of what a trained network computes.
_EPS = 1e-4
# Root mean square of silu of a standard normal variable, rounded as in the paper.
_SILU_MAGNITUDE = 0.596


def normalize(x: Tensor, dim: int | Sequence[int]) -> Tensor:
    """Divide by (the root mean square over ``dim`` + 1e-4), which is computed in fp32; keeps the dtype."""
    axes = [dim] if isinstance(dim, int) else list(dim)
    count = math.prod(x.shape[axis] for axis in axes)
    norm = torch.linalg.vector_norm(x, dim=axes, keepdim=True, dtype=torch.float32)
    return x / (norm / math.sqrt(count) + _EPS).to(x.dtype)


def mp_silu(x: Tensor) -> Tensor:
    """SiLU, scaled to keep the magnitude of normally distributed activations."""
    return F.silu(x) / _SILU_MAGNITUDE


def mp_sum(a: Tensor, b: Tensor, t: float) -> Tensor:
    """Weighted sum of independent a and b, t being the share of b, 0 <= t <= 1."""
    return a.lerp(b, t) / math.sqrt((1 - t) ** 2 + t**2)


def mp_cat(a: Tensor, b: Tensor, t: float) -> Tensor:
    """Concatenation along the channels, in which b counts with weight t whatever the numbers of channels."""
    channels_a, channels_b = a.shape[1], b.shape[1]
    scale = math.sqrt((channels_a + channels_b) / ((1 - t) ** 2 + t**2))
    weight_a, weight_b = scale * (1 - t) / math.sqrt(channels_a), scale * t / math.sqrt(channels_b)
    return torch.cat([a * weight_a, b * weight_b], dim=1)


class MPFourier(nn.Module):
    """Cosines of a scalar at random frequencies and phases, of unit magnitude; both are part of the state dict."""

    def __init__(self, channels: int) -> None:
        """Draw frequencies from N(0, 1) and phases uniformly; both are stored times 2 pi."""
        super().__init__()
        self.register_buffer("freqs", 2 * math.pi * torch.randn(channels))
        self.register_buffer("phases", 2 * math.pi * torch.rand(channels))
        self.freqs: Tensor
        self.phases: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """Map [B] to [B, channels], fp32."""
        angle = x.to(torch.float32).outer(self.freqs.to(torch.float32)) + self.phases.to(torch.float32)
        return angle.cos() * math.sqrt(2)


class MPConv(nn.Module):
    """Convolution or linear map without bias, whose weights are normalised whenever they are used (algorithm 1)."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int = 0) -> None:
        """Draw weights from N(0, 1).

        Args:
            in_channels: channels of the input.
            out_channels: channels of the output.
            kernel: odd size, zero-padded to keep the size of the image; 0 is a linear map of vectors.
        """
        super().__init__()
        self.out_channels = out_channels
        size = (kernel, kernel) if kernel else ()
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, *size))

    @torch.no_grad()
    def normalize_(self) -> None:
        """Project the stored weights to unit magnitude for each output channel ("forced weight normalisation").

        It does not change what the layer computes, up to the 1e-4 in ``normalize``. Without it the weights grow and the
        effective learning rate decays.
        """
        self.weight.copy_(normalize(self.weight, range(1, self.weight.ndim)))

    def forward(self, x: Tensor, gain: Tensor | float = 1.0) -> Tensor:
        """Map [B, in_channels] or [B, in_channels, H, W], in its dtype; the output is multiplied by ``gain``."""
        weight = self.weight.to(torch.float32)
        fan_in = math.prod(weight.shape[1:])
        weight = normalize(weight, range(1, weight.ndim)) * (gain / math.sqrt(fan_in))
        weight = weight.to(x.dtype)
        if weight.ndim == 2:
            return F.linear(x, weight)
        return F.conv2d(x, weight, padding=weight.shape[-1] // 2)


@dataclass(frozen=True)
class MPBlockSettings:
    """What all blocks of one network share.

    Attributes:
        emb_channels: width of the embedding that conditions the block.
        channels_per_head: width of an attention head.
        dropout: probability of dropping an activation in training, 0 <= p < 1.
        res_balance: share of the residual branch in the sum with the shortcut.
        attn_balance: share of the attention in the sum with its input.
        clip_act: bound on the absolute value of the output; None = none.
    """

    emb_channels: int
    channels_per_head: int = 64
    dropout: float = 0.0
    res_balance: float = 0.3
    attn_balance: float = 0.3
    clip_act: float | None = 256.0


class MPBlock(nn.Module):
    """Residual block of the encoder or decoder, optionally resampling and followed by cosine attention."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        settings: MPBlockSettings,
        decoder: bool = False,
        up: bool = False,
        down: bool = False,
        attention: bool = False,
    ) -> None:
        """Create the layers.

        Args:
            in_channels: channels of the input.
            out_channels: channels of the output.
            settings: what all blocks of the network share.
            decoder: the shortcut's convolution acts after the branch took its input, which is not normalised.
            up: double the resolution first.
            down: halve the resolution first.
            attention: append self-attention over the pixels.

        Raises:
            ValueError: the attention heads do not divide the channels.
        """
        super().__init__()
        self.settings, self.decoder, self.up, self.down = settings, decoder, up, down
        self.out_channels = out_channels
        self.emb_gain = nn.Parameter(torch.zeros([]))
        self.conv_res0 = MPConv(in_channels if decoder else out_channels, out_channels, 3)
        self.emb_linear = MPConv(settings.emb_channels, out_channels)
        self.conv_res1 = MPConv(out_channels, out_channels, 3)
        self.conv_skip = MPConv(in_channels, out_channels, 1) if in_channels != out_channels else None
        self.heads = 0
        if attention:
            if out_channels % settings.channels_per_head:
                raise ValueError(
                    f"{out_channels} channels do not split into attention heads of {settings.channels_per_head}"
                )
            self.heads = out_channels // settings.channels_per_head
            self.attn_qkv = MPConv(out_channels, out_channels * 3, 1)
            self.attn_proj = MPConv(out_channels, out_channels, 1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """Transform features.

        Args:
            x: features, [B, in_channels, H, W].
            emb: embedding, [B, emb_channels], fp32.

        Returns:
            Features, [B, out_channels, H', W'], in the dtype of ``x``.
        """
        s = self.settings
        if self.up:
            x = F.interpolate(x, scale_factor=2, mode="nearest")
        elif self.down:
            x = F.avg_pool2d(x, 2)
        if not self.decoder:
            # Only here does the main path pass a normalisation; the decoder's sums and concatenations keep magnitudes.
            x = normalize(x if self.conv_skip is None else self.conv_skip(x), dim=1)
        h = self.conv_res0(mp_silu(x))
        scale = self.emb_linear(emb, gain=self.emb_gain) + 1
        h = mp_silu(h * scale[:, :, None, None].to(h.dtype))
        if s.dropout:
            h = F.dropout(h, s.dropout, self.training)
        h = self.conv_res1(h)
        if self.decoder and self.conv_skip is not None:
            x = self.conv_skip(x)
        x = mp_sum(x, h, s.res_balance)
        if self.heads:
            x = mp_sum(x, self._attend(x), s.attn_balance)
        return x if s.clip_act is None else x.clamp(-s.clip_act, s.clip_act)

    def _attend(self, x: Tensor) -> Tensor:
        """Self-attention over the pixels of [B, C, H, W] by the cosine between queries and keys."""
        batch, channels, height, width = x.shape
        # As in EDM, queries, keys and values are interleaved channel by channel.
        qkv = self.attn_qkv(x).reshape(batch, self.heads, channels // self.heads, 3, height * width)
        query, key, value = normalize(qkv, dim=2).permute(3, 0, 1, 4, 2).contiguous().unbind(0)
        attended = F.scaled_dot_product_attention(query, key, value)
        out: Tensor = self.attn_proj(attended.transpose(2, 3).reshape(x.shape))
        return out
