"""NCSN++ and EDM2 agree with an independent reading of their descriptions."""

from __future__ import annotations

import pytest
import torch
from independent_networks import edm2, song
from nvidia_files import EDM2, NCSNPP, SONG, tiny_denoiser


@pytest.mark.parametrize(
    ("arguments", "changes"),
    [(NCSNPP, {}), (NCSNPP, {"label_dim": 3, "channel_mult": [1, 2, 2], "img_resolution": 16}), (SONG, {})],
    ids=["ncsnpp", "ncsnpp, three levels, conditional", "ddpmpp"],
)
def test_song_unet(arguments, changes):
    settings = {**arguments, **changes}
    denoiser = tiny_denoiser(arguments, **changes)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(3, *denoiser.shape, generator=generator)
    noise = torch.tensor([-1.0, 0.2, 0.9])
    labels = torch.eye(denoiser.label_dim)[:3] if denoiser.label_dim else None
    weights = {name: tensor.double() for name, tensor in denoiser.model.state_dict().items()}
    expected = song(
        weights, x.double(), noise.double(), None if labels is None else labels.double(),
        list(settings.get("resample_filter", [1, 1])), settings.get("embedding_type") == "fourier",
    )  # fmt: skip
    with torch.no_grad():
        found = denoiser.model(x, noise, labels).double()
    assert float((found - expected).abs().max() / expected.abs().max()) < 1e-5


def test_edm2():
    denoiser = tiny_denoiser(EDM2, "Precond")
    denoiser.network_dtype = "fp32"
    weights = {
        name.removeprefix("unet."): tensor.double()
        for name, tensor in denoiser.state_dict().items()
        if name.startswith("unet.")
    }
    x = torch.randn(3, *denoiser.shape, generator=torch.Generator().manual_seed(1))
    sigma, labels = torch.tensor([0.1, 1.0, 20.0]), torch.eye(denoiser.label_dim)[:3]
    with torch.no_grad():
        found = denoiser(x, sigma, labels).double()
    expected = edm2(weights, x.double(), sigma.double(), labels.double())
    assert float((found - expected).abs().max() / expected.abs().max()) < 1e-5
