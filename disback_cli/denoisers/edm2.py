"""EDM2: the magnitude-preserving U-Net of Karras et al. 2024 (configuration G) as a denoiser.

Written from the paper; names in the state dict follow the public files as far as they are known, and no such file was
at hand to check names or outputs against. What was checked are the published numbers of parameters.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from disback_cli.denoisers.edm2_layers import MPBlock, MPBlockSettings, MPConv, MPFourier, mp_cat, mp_silu, mp_sum
from disback_cli.denoisers.embeddings import network_labels
from disback_cli.denoisers.layers import check_levels
from disback_cli.denoisers.preconditioned import PreconditionedDenoiser
from disback_cli.denoisers.preconditioning import Coefficients, edm_coefficients
from disback_cli.denoisers.unet_levels import fill_decoder, fill_encoder


class EDM2UNet(nn.Module):
    """Magnitude-preserving U-Net over images or latents, conditioned on the noise level and optionally on a class."""

    def __init__(
        self,
        img_resolution: int,
        img_channels: int,
        label_dim: int,
        model_channels: int = 192,
        channel_mult: Sequence[int] = (1, 2, 3, 4),
        channel_mult_noise: int | None = None,
        channel_mult_emb: int | None = None,
        num_blocks: int = 3,
        attn_resolutions: Sequence[int] = (16, 8),
        label_balance: float = 0.5,
        concat_balance: float = 0.5,
        channels_per_head: int = 64,
        dropout: float = 0.0,
        res_balance: float = 0.3,
        attn_balance: float = 0.3,
        clip_act: float | None = 256,
    ) -> None:
        """Build the network; the defaults are size S.

        Args:
            img_resolution: height and width, divisible by 2 for each level below the first.
            img_channels: channels of input and output.
            label_dim: number of classes, 0 = unconditional.
            model_channels: base width: 128 is size XS, 192 S, 256 M, 320 L, 384 XL.
            channel_mult: width of each resolution level, in units of ``model_channels``.
            channel_mult_noise: width of the noise embedding, in the same units; None means that of the first level.
            channel_mult_emb: width of the embedding, in the same units; None means that of the widest level.
            num_blocks: residual blocks of a level of the encoder; the decoder has one more.
            attn_resolutions: resolutions with self-attention.
            label_balance: share of the class in the sum with the noise embedding, 0 to 1.
            concat_balance: share of the skip connection in the decoder's concatenations, 0 to 1.
            channels_per_head: width of an attention head.
            dropout: probability of dropping an activation in training, 0 <= p < 1.
            res_balance: share of the residual branch in the sum with the shortcut, 0 to 1.
            attn_balance: share of the attention in the sum with its input, 0 to 1.
            clip_act: bound on the absolute value of a block's output; None = none.

        Raises:
            ValueError: the sizes do not fit together.
        """
        super().__init__()
        check_levels(img_resolution, channel_mult)
        self.img_resolution, self.label_dim = img_resolution, label_dim
        self.in_channels = self.out_channels = img_channels
        self.label_balance, self.concat_balance = label_balance, concat_balance

        widths = [model_channels * mult for mult in channel_mult]
        noise_channels = widths[0] if channel_mult_noise is None else model_channels * channel_mult_noise
        emb_channels = max(widths) if channel_mult_emb is None else model_channels * channel_mult_emb
        settings = MPBlockSettings(emb_channels, channels_per_head, dropout, res_balance, attn_balance, clip_act)
        attention = frozenset(int(resolution) for resolution in attn_resolutions)
        self.emb_fourier = MPFourier(noise_channels)
        self.emb_noise = MPConv(noise_channels, emb_channels)
        self.emb_label = MPConv(label_dim, emb_channels) if label_dim else None
        self.enc = nn.ModuleDict()
        self.dec = nn.ModuleDict()
        # One more input channel, of ones, stands in for the biases that no layer has.
        stem = MPConv(img_channels + 1, widths[0], 3)
        block = partial(MPBlock, settings=settings)
        skips = fill_encoder(self.enc, img_resolution, stem, widths[0], widths, num_blocks, attention, block)
        block = partial(MPBlock, settings=settings, decoder=True)
        fill_decoder(self.dec, img_resolution, widths, num_blocks, attention, skips, block)
        self.out_conv = MPConv(widths[0], img_channels, 3)
        # The only factor that may leave unit magnitude; at 0 a fresh network adds nothing to the skip connection.
        self.out_gain = nn.Parameter(torch.zeros([]))

    def bottleneck_name(self) -> str:
        """Name of the encoder's last layer."""
        return f"enc.{list(self.enc)[-1]}"

    def embed(self, noise_labels: Tensor, class_labels: Tensor | None) -> Tensor:
        """Embed the noise level [B] and the class [B, label_dim], if any, into [B, emb_channels], fp32.

        Raises:
            ValueError: class labels are missing.
        """
        emb = self.emb_noise(self.emb_fourier(noise_labels))
        if self.emb_label is not None:
            labels = network_labels(class_labels, len(emb), self.label_dim, dropout=0.0)
            # A one-hot vector of unit magnitude.
            emb = mp_sum(emb, self.emb_label(labels * math.sqrt(self.label_dim)), self.label_balance)
        return mp_silu(emb)

    def forward(self, x: Tensor, noise_labels: Tensor, class_labels: Tensor | None = None) -> Tensor:
        """Evaluate the raw network ``F`` of the preconditioning.

        Args:
            x: scaled noisy images, [B, img_channels, img_resolution, img_resolution]; their dtype is that of all
                activations.
            noise_labels: ``c_noise``, [B].
            class_labels: one-hot, [B, label_dim]; rows of zeros mean "no class"; None if unconditional.

        Returns:
            [B, img_channels, img_resolution, img_resolution], in the dtype of ``x``.
        """
        emb = self.embed(noise_labels, class_labels)
        x = torch.cat([x, torch.ones_like(x[:, :1])], dim=1)
        skips: list[Tensor] = []
        for layer in self.enc.values():
            x = layer(x, emb) if isinstance(layer, MPBlock) else layer(x)
            skips.append(x)
        for name, layer in self.dec.items():
            if "_block" in name:
                x = mp_cat(x, skips.pop(), self.concat_balance)
            x = layer(x, emb)
        out: Tensor = self.out_conv(x, gain=self.out_gain)
        return out


class EDM2Denoiser(PreconditionedDenoiser):
    """EDM's parametrisation around a magnitude-preserving network.

    The network's parameters are named ``unet.*``. The uncertainty head of EDM2's training loss (``logvar_fourier``,
    ``logvar_linear``) is there because it is part of the state dict; denoising does not use it.
    """

    NETWORK_NAME = "unet"

    def __init__(
        self,
        network: nn.Module,
        shape: Sequence[int],
        label_dim: int,
        sigma_data: float = 0.5,
        logvar_channels: int = 128,
        network_dtype: Literal["fp32", "fp16", "bf16"] = "fp16",
        sigma_min: float = 0.002,
        sigma_max: float = 80.0,
    ) -> None:
        """Wrap a network.

        Args:
            network: called as ``network(x [B, *shape], c_noise [B], labels [B, label_dim] or None) -> [B, *shape]``.
            shape: shape of one sample, (C, H, W).
            label_dim: width of the one-hot labels, 0 = unconditional.
            sigma_data: standard deviation of the data, > 0.
            logvar_channels: width of the uncertainty head.
            network_dtype: dtype of the activations inside the network; fp16 acts on CUDA only.
            sigma_min: smallest noise level, > 0.
            sigma_max: largest noise level.

        Raises:
            ValueError: a number is outside its range, or network and wrapper disagree about labels or channels.
        """
        super().__init__(network, shape, label_dim, sigma_min, sigma_max, sigma_data, network_dtype)
        self.logvar_fourier = MPFourier(logvar_channels)
        self.logvar_linear = MPConv(logvar_channels, 1)

    def coefficients(self, sigma: Tensor) -> Coefficients:
        """EDM's coefficients, see :func:`edm_coefficients`."""
        return edm_coefficients(sigma, self.sigma_data)

    def unused_parameters(self) -> frozenset[str]:
        """Names of the parameters that get no gradient: those of the uncertainty head."""
        return super().unused_parameters() | {"logvar_linear.weight"}

    def constrain_(self) -> None:
        """Project the weights of all layers to unit magnitude; see :meth:`MPConv.normalize_`."""
        for module in self.modules():
            if isinstance(module, MPConv):
                module.normalize_()
