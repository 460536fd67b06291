"""DhariwalUNet: the ADM network of Dhariwal & Nichol 2021 in the form of Karras et al. 2022.

Written from a functional description; state dicts are interchangeable with the public EDM checkpoints.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from disback_cli.denoisers.embeddings import PositionalEmbedding, network_labels
from disback_cli.denoisers.layers import BlockSettings, Conv2d, GroupNorm, Init, Linear, UNetBlock, check_levels
from disback_cli.denoisers.unet_levels import fill_decoder, fill_encoder

_EPS = 1e-5
_CHANNELS_PER_HEAD = 64


class DhariwalUNet(nn.Module):
    """U-Net over images, conditioned on the noise level and optionally on a class, by adaptive group normalisation."""

    def __init__(
        self,
        img_resolution: int,
        in_channels: int,
        out_channels: int,
        label_dim: int = 0,
        augment_dim: int = 0,
        model_channels: int = 192,
        channel_mult: Sequence[int] = (1, 2, 3, 4),
        channel_mult_emb: int = 4,
        num_blocks: int = 3,
        attn_resolutions: Sequence[int] = (32, 16, 8),
        dropout: float = 0.10,
        label_dropout: float = 0,
    ) -> None:
        """Build the network; the defaults are those of the public ImageNet-64 teacher.

        Args:
            img_resolution: height and width, divisible by 2 for each level below the first.
            in_channels: channels of the input image.
            out_channels: channels of the output image.
            label_dim: number of classes, 0 = unconditional.
            augment_dim: width of the augmentation labels, 0 = none.
            model_channels: base width.
            channel_mult: width of each resolution level, in units of ``model_channels``.
            channel_mult_emb: width of the embedding, in the same units.
            num_blocks: residual blocks of a level of the encoder; the decoder has one more.
            attn_resolutions: resolutions with self-attention, with heads of 64 channels.
            dropout: probability of dropping an activation in training, 0 <= p < 1.
            label_dropout: probability of zeroing a whole label row in training, 0 <= p <= 1; 0 draws nothing.

        Raises:
            ValueError: the sizes do not fit together.
        """
        super().__init__()
        check_levels(img_resolution, channel_mult)
        self.img_resolution = img_resolution
        self.in_channels, self.out_channels = in_channels, out_channels
        self.label_dim, self.augment_dim, self.label_dropout = label_dim, augment_dim, label_dropout

        init = Init("kaiming_uniform", math.sqrt(1 / 3), math.sqrt(1 / 3))
        zero = Init(weight=0)
        one_hot = Init("kaiming_normal", math.sqrt(label_dim))
        emb_channels = model_channels * channel_mult_emb
        self.map_noise = PositionalEmbedding(model_channels, endpoint=False)
        self.map_augment = Linear(augment_dim, model_channels, bias=False, init=zero) if augment_dim else None
        self.map_layer0 = Linear(model_channels, emb_channels, init=init)
        self.map_layer1 = Linear(emb_channels, emb_channels, init=init)
        self.map_label = Linear(label_dim, emb_channels, bias=False, init=one_hot) if label_dim else None

        settings = BlockSettings(
            emb_channels=emb_channels,
            dropout=dropout,
            eps=_EPS,
            adaptive_scale=True,
            channels_per_head=_CHANNELS_PER_HEAD,
            init=init,
            init_zero=zero,
            init_attn=init,
        )
        widths = [model_channels * mult for mult in channel_mult]
        attention = frozenset(int(resolution) for resolution in attn_resolutions)
        self.enc = nn.ModuleDict()
        self.dec = nn.ModuleDict()
        block = partial(UNetBlock, settings=settings)
        stem = Conv2d(in_channels, widths[0], 3, init=settings.init)
        skips = fill_encoder(self.enc, img_resolution, stem, widths[0], widths, num_blocks, attention, block)
        fill_decoder(self.dec, img_resolution, widths, num_blocks, attention, skips, block)
        self.out_norm = GroupNorm(widths[0], _EPS)
        self.out_conv = Conv2d(widths[0], out_channels, 3, init=zero)

    def bottleneck_name(self) -> str:
        """Name of the encoder's last layer."""
        return f"enc.{list(self.enc)[-1]}"

    def embed(self, noise_labels: Tensor, class_labels: Tensor | None, augment_labels: Tensor | None) -> Tensor:
        """Embed everything the network is conditioned on.

        Args:
            noise_labels: [B].
            class_labels: one-hot, [B, label_dim], or None if unconditional.
            augment_labels: [B, augment_dim] or None, which equals zeros.

        Returns:
            [B, emb_channels], fp32.

        Raises:
            ValueError: class labels are missing, or augmentation labels are given to a network without them.
        """
        emb = self.map_noise(noise_labels)
        if augment_labels is not None:
            if self.map_augment is None:
                raise ValueError("augment_labels given to a network with augment_dim=0: pass None")
            emb = emb + self.map_augment(augment_labels.to(emb.dtype))
        emb = self.map_layer1(F.silu(self.map_layer0(emb)))
        if self.map_label is not None:
            dropout = self.label_dropout if self.training else 0.0
            emb = emb + self.map_label(network_labels(class_labels, len(emb), self.label_dim, dropout))
        return F.silu(emb)

    def forward(
        self,
        x: Tensor,
        noise_labels: Tensor,
        class_labels: Tensor | None = None,
        augment_labels: Tensor | None = None,
    ) -> Tensor:
        """Evaluate the raw network ``F`` of the preconditioning.

        Args:
            x: scaled noisy images, [B, in_channels, img_resolution, img_resolution]; their dtype is that of all
                activations.
            noise_labels: ``c_noise``, [B].
            class_labels: one-hot, [B, label_dim], or None if unconditional.
            augment_labels: [B, augment_dim] or None, which equals zeros.

        Returns:
            [B, out_channels, img_resolution, img_resolution], in the dtype of ``x``.
        """
        emb = self.embed(noise_labels, class_labels, augment_labels)
        skips: list[Tensor] = []
        for layer in self.enc.values():
            x = layer(x, emb) if isinstance(layer, UNetBlock) else layer(x)
            skips.append(x)
        for name, layer in self.dec.items():
            if "_block" in name:
                x = torch.cat([x, skips.pop()], dim=1)
            x = layer(x, emb)
        out: Tensor = self.out_conv(F.silu(self.out_norm(x)))
        return out
