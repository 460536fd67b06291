"""Decoding latents equals what diffusers' own pipeline does."""

from __future__ import annotations

import pytest
import tiny_pipelines
import torch
from diffusers import AutoencoderKL
from torch import nn

from disback_cli.denoisers.decoders import VAEDecoder
from disback_cli.denoisers.diffusers_folder import read_diffusers
from disback_cli.denoisers.folder import build_network, load_decoder, save_decoder


@pytest.mark.parametrize("settings", [{}, {"scaling_factor": 0.7, "shift_factor": 0.2}, {"use_post_quant_conv": False}])
def test_decodes_like_diffusers(tmp_path, settings):
    tiny_pipelines.latent(tmp_path, **settings)
    source = read_diffusers(tmp_path).decoder
    decoder = build_network(source.spec, source.weights, "decoder", nn.Module)
    latents = torch.randn(3, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    stock = AutoencoderKL.from_pretrained(tmp_path / "vae")
    z = latents / stock.config.scaling_factor + (stock.config.shift_factor or 0.0)
    with torch.no_grad():
        expected = stock.decode(z).sample
        images = decoder(latents)
    assert images.shape == (3, 3, 8, 8) and images.dtype == torch.float32
    torch.testing.assert_close(images, expected.clamp(-1, 1), rtol=0, atol=1e-6)


def test_only_the_decoding_half_is_kept(tmp_path):
    """And it survives being saved beside a student."""
    tiny_pipelines.latent(tmp_path / "pipeline")
    source = read_diffusers(tmp_path / "pipeline").decoder
    assert {name.split(".")[0] for name in source.weights} == {"decoder", "post_quant_conv"}
    decoder = build_network(source.spec, source.weights, "decoder", nn.Module)
    save_decoder(tmp_path / "student", source.spec, decoder)
    loaded, spec = load_decoder(tmp_path / "student")
    latents = torch.randn(1, 4, 4, 4)
    assert spec == source.spec and torch.equal(loaded(latents), decoder(latents))


def test_images_stay_in_range():
    config = {key: value for key, value in tiny_pipelines.tiny_autoencoder().config.items() if not key.startswith("_")}
    decoder = VAEDecoder(config, scaling_factor=0.001)
    with torch.no_grad():
        decoder.decoder.conv_out.weight.mul_(1000)
        images = decoder(torch.randn(1, 4, 4, 4))
    assert images.min() == -1 and images.max() == 1
    with pytest.raises(ValueError, match="scaling_factor=0"):
        VAEDecoder(config, scaling_factor=0)
