"""Small networks of every family that LoRA is put on, with weights that leave no branch at zero."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from disback_cli.denoisers.dhariwal_unet import DhariwalUNet
from disback_cli.denoisers.diffusers_networks import DiT, UNet2D
from disback_cli.denoisers.discrete import DiscreteDenoiser
from disback_cli.denoisers.edm import EDMDenoiser
from disback_cli.denoisers.folder import weights_hash
from disback_cli.denoisers.gaussian_mixture import MixtureDenoiser
from disback_cli.denoisers.protocol import Denoiser
from disback_cli.denoisers.song_unet import SongUNet
from disback_cli.denoisers.teachers import Teacher

sys.path.insert(0, str(Path(__file__).parents[1] / "denoisers"))

from tiny_pipelines import tiny_transformer, tiny_unet  # noqa: E402

IMAGE, CLASSES = (3, 16, 16), 4
_UNET = {"model_channels": 16, "channel_mult": (1, 2), "num_blocks": 1, "attn_resolutions": (8,)}


def song() -> Denoiser:
    """DDPM++: conditional, with an input for augmentations that is never given."""
    network = SongUNet(16, 3, 3, label_dim=CLASSES, augment_dim=9, **_UNET)
    return EDMDenoiser(network, IMAGE, label_dim=CLASSES)


def ncsn() -> Denoiser:
    """NCSN++: four-tap filters, and convolutions that are fused with theirs."""
    network = SongUNet(
        16, 3, 3, embedding_type="fourier", encoder_type="residual", channel_mult_noise=2,
        resample_filter=(1, 3, 3, 1), **_UNET,
    )  # fmt: skip
    return EDMDenoiser(network, IMAGE)


def adm() -> Denoiser:
    """Dhariwal and Nichol's network."""
    return EDMDenoiser(
        DhariwalUNet(16, 3, 3, label_dim=CLASSES, **(_UNET | {"model_channels": 32})), IMAGE, label_dim=CLASSES
    )


def mixture() -> Denoiser:
    """A ring of Gaussians with a small correction."""
    return MixtureDenoiser("ring", hidden=16, depth=2)


def stock_unet() -> Denoiser:
    """diffusers' UNet2DModel."""
    config = {key: value for key, value in tiny_unet().config.items() if not key.startswith("_")}
    return DiscreteDenoiser(UNet2D(config), (1, 8, 8), {})


def stock_transformer() -> Denoiser:
    """diffusers' DiT."""
    config = {key: value for key, value in tiny_transformer().config.items() if not key.startswith("_")}
    return DiscreteDenoiser(DiT(config), (4, 4, 4), {}, label_dim=3)


NETWORKS: dict[str, Callable[[], Denoiser]] = {
    make.__name__: make for make in (song, ncsn, adm, mixture, stock_unet, stock_transformer)
}


def network(name: str) -> Denoiser:
    """One of them, all of its weights moved a little."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = NETWORKS[name]()
        with torch.no_grad():
            for parameter in made.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
    return made.requires_grad_(False).eval()


def teacher_of(denoiser: Denoiser) -> Teacher:
    """A teacher around a network."""
    return Teacher("tiny", denoiser, {}, weights_hash(denoiser.state_dict()))


def inputs(denoiser: Denoiser, batch: int = 3) -> tuple[Tensor, Tensor, Tensor | None]:
    """Noisy samples, noise levels and labels."""
    generator = torch.Generator().manual_seed(1)
    labels = torch.eye(denoiser.label_dim)[:batch] if denoiser.label_dim else None
    levels = torch.tensor([denoiser.nearest_sigma(level) for level in (0.2, 1.0, 4.0)])[:batch]
    return torch.randn(batch, *denoiser.shape, generator=generator), levels, labels


@torch.no_grad()
def trained_(adapted: Denoiser, seed: int = 3) -> Denoiser:
    """Move the adapters, as training would; returns the network."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return adapted
