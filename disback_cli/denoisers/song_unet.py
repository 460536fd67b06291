"""SongUNet: the DDPM++ and NCSN++ networks of Song et al. 2021 in the form of Karras et al. 2022.

Written from a functional description; state dicts are interchangeable with the public EDM checkpoints.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from disback_cli.denoisers.embeddings import FourierEmbedding, PositionalEmbedding, network_labels
from disback_cli.denoisers.layers import BlockSettings, Conv2d, GroupNorm, Init, Linear, UNetBlock, check_levels
from disback_cli.denoisers.unet_levels import fill_decoder, fill_encoder

EMBEDDING_TYPES = ("positional", "fourier")
ENCODER_TYPES = ("standard", "residual")
DECODER_TYPES = ("standard",)

_EPS = 1e-6


def _check_option(name: str, value: str, valid: tuple[str, ...]) -> None:
    """Raise a ValueError that names the valid values."""
    if value not in valid:
        raise ValueError(f"{name}={value!r}: valid are {', '.join(valid)}")


class SongUNet(nn.Module):
    """U-Net over images, conditioned on the noise level and optionally on a class.

    DDPM++: positional embedding, standard encoder, filter (1, 1). NCSN++: fourier embedding, residual encoder,
    ``channel_mult_noise=2``, filter (1, 3, 3, 1).
    """

    def __init__(
        self,
        img_resolution: int,
        in_channels: int,
        out_channels: int,
        label_dim: int = 0,
        augment_dim: int = 0,
        model_channels: int = 128,
        channel_mult: Sequence[int] = (1, 2, 2, 2),
        channel_mult_emb: int = 4,
        num_blocks: int = 4,
        attn_resolutions: Sequence[int] = (16,),
        dropout: float = 0.10,
        label_dropout: float = 0,
        embedding_type: str = "positional",
        channel_mult_noise: int = 1,
        encoder_type: str = "standard",
        decoder_type: str = "standard",
        resample_filter: Sequence[float] = (1, 1),
    ) -> None:
        """Build the network; the defaults are DDPM++ for 64x64 images.

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
            attn_resolutions: resolutions with self-attention.
            dropout: probability of dropping an activation in training, 0 <= p < 1.
            label_dropout: probability of zeroing a whole label row in training, 0 <= p <= 1; 0 draws nothing.
            embedding_type: of the noise level, "positional" or "fourier".
            channel_mult_noise: width of the noise embedding, in units of ``model_channels``.
            encoder_type: "standard", or "residual" with a pyramid of the input image.
            decoder_type: "standard".
            resample_filter: low-pass filter of the resampling layers.

        Raises:
            ValueError: an option is unknown, or the sizes do not fit together.
        """
        super().__init__()
        _check_option("embedding_type", embedding_type, EMBEDDING_TYPES)
        _check_option("encoder_type", encoder_type, ENCODER_TYPES)
        _check_option("decoder_type", decoder_type, DECODER_TYPES)
        check_levels(img_resolution, channel_mult)
        self.img_resolution = img_resolution
        self.in_channels, self.out_channels = in_channels, out_channels
        self.label_dim, self.augment_dim, self.label_dropout = label_dim, augment_dim, label_dropout

        emb_channels = model_channels * channel_mult_emb
        noise_channels = model_channels * channel_mult_noise
        embedding = PositionalEmbedding if embedding_type == "positional" else FourierEmbedding
        self.map_noise = embedding(noise_channels)
        self.map_label = Linear(label_dim, noise_channels) if label_dim else None
        self.map_augment = Linear(augment_dim, noise_channels, bias=False) if augment_dim else None
        self.map_layer0 = Linear(noise_channels, emb_channels)
        self.map_layer1 = Linear(emb_channels, emb_channels)

        settings = BlockSettings(
            emb_channels=emb_channels,
            dropout=dropout,
            skip_scale=math.sqrt(0.5),
            eps=_EPS,
            resample_filter=tuple(resample_filter),
            resample_proj=True,
            init_zero=Init(weight=1e-5),
            init_attn=Init(weight=math.sqrt(0.2)),
        )
        widths = [model_channels * mult for mult in channel_mult]
        attention = frozenset(int(resolution) for resolution in attn_resolutions)
        self.enc = nn.ModuleDict()
        self.dec = nn.ModuleDict()
        self._build_levels(model_channels, widths, num_blocks, attention, encoder_type, settings)

    def _build_levels(
        self,
        model_channels: int,
        widths: list[int],
        num_blocks: int,
        attention: frozenset[int],
        encoder_type: str,
        settings: BlockSettings,
    ) -> None:
        """Fill ``self.enc`` and ``self.dec``."""
        aux_channels = self.in_channels

        def add_pyramid(size: int, channels: int) -> None:
            nonlocal aux_channels
            self.enc[f"{size}x{size}_aux_residual"] = Conv2d(
                aux_channels, channels, 3, down=True, resample_filter=settings.resample_filter, fused=True
            )
            aux_channels = channels

        size = self.img_resolution
        block = partial(UNetBlock, settings=settings)
        stem = Conv2d(self.in_channels, model_channels, 3)
        skips = fill_encoder(
            self.enc, size, stem, model_channels, widths, num_blocks, attention, block,
            after_down=add_pyramid if encoder_type == "residual" else None,
        )  # fmt: skip
        fill_decoder(self.dec, size, widths, num_blocks, attention, skips, block, attend_last_only=True)
        self.dec[f"{size}x{size}_aux_norm"] = GroupNorm(widths[0], _EPS)
        self.dec[f"{size}x{size}_aux_conv"] = Conv2d(widths[0], self.out_channels, 3, init=settings.init_zero)

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
        cosine, sine = self.map_noise(noise_labels).chunk(2, dim=1)
        # The public networks were trained with the sines first.
        emb = torch.cat([sine, cosine], dim=1)
        if self.map_label is not None:
            dropout = self.label_dropout if self.training else 0.0
            labels = network_labels(class_labels, len(emb), self.label_dim, dropout)
            emb = emb + self.map_label(labels * math.sqrt(self.label_dim))
        if augment_labels is not None:
            if self.map_augment is None:
                raise ValueError("augment_labels given to a network with augment_dim=0: pass None")
            emb = emb + self.map_augment(augment_labels.to(emb.dtype))
        return F.silu(self.map_layer1(F.silu(self.map_layer0(emb))))

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
        aux = x
        skips: list[Tensor] = []
        for name, layer in self.enc.items():
            if name.endswith("_aux_residual"):
                # The pyramid merges into the features and into the skip that the level's first layer just made.
                x = skips[-1] = aux = (x + layer(aux)) * math.sqrt(0.5)
                continue
            x = layer(x, emb) if isinstance(layer, UNetBlock) else layer(x)
            skips.append(x)
        for name, layer in self.dec.items():
            if "_block" in name:
                x = torch.cat([x, skips.pop()], dim=1)
            if name.endswith("_aux_conv"):
                x = F.silu(x)
            x = layer(x, emb) if isinstance(layer, UNetBlock) else layer(x)
        return x
