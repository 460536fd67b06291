"""From the latents of a latent model to images."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


class VAEDecoder(nn.Module):
    """The decoding half of diffusers' AutoencoderKL (Rombach et al. 2022).

    Its parameters are named ``decoder.*`` and ``post_quant_conv.*``, as in the autoencoder's own file.
    """

    def __init__(self, config: dict[str, Any], scaling_factor: float, shift: float = 0.0) -> None:
        """Build the decoder with random weights.

        Args:
            config: keyword arguments of ``diffusers.AutoencoderKL``, as in its config.json without the entries that
                begin with an underscore.
            scaling_factor: the denoiser's latents are the autoencoder's, less ``shift``, times this; not 0.
            shift: in units of the autoencoder's latents.

        Raises:
            ValueError: a number is outside its range.
            TypeError: an unknown argument.
        """
        super().__init__()
        from diffusers import AutoencoderKL

        if scaling_factor == 0:
            raise ValueError("scaling_factor=0: need another number")
        autoencoder: Any = AutoencoderKL(**config)
        self.decoder: nn.Module = autoencoder.decoder
        self.post_quant_conv: nn.Module | None = autoencoder.post_quant_conv
        self.scaling_factor = float(scaling_factor)
        self.shift = float(shift)

    def forward(self, latents: Tensor) -> Tensor:
        """Decode.

        Args:
            latents: samples of the denoiser, [B, C, h, w].

        Returns:
            Images, [B, 3, H, W] in [-1, 1], fp32.
        """
        z = latents.to(next(self.decoder.parameters()).dtype) / self.scaling_factor + self.shift
        if self.post_quant_conv is not None:
            z = self.post_quant_conv(z)
        images: Tensor = self.decoder(z)
        return images.float().clamp(-1, 1)
