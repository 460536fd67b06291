"""Tiny random pipelines in diffusers' format, written to disk by diffusers itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DDPMPipeline,
    DDPMScheduler,
    DiTPipeline,
    DiTTransformer2DModel,
    FlowMatchEulerDiscreteScheduler,
    UNet2DModel,
)

CLASSES = 3


def tiny_unet(
    channels: int = 1, size: int = 8, classes: int | None = None, seed: int = 0, **config: Any
) -> UNet2DModel:
    """A UNet of about 45 thousand weights, with attention at the coarser of two resolutions."""
    torch.manual_seed(seed)
    settings: dict[str, Any] = {
        "sample_size": size,
        "in_channels": channels,
        "out_channels": channels,
        "num_class_embeds": classes,
        "block_out_channels": (8, 16),
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "attention_head_dim": 4,
    }
    return UNet2DModel(**settings | config).eval()


def tiny_transformer(classes: int = CLASSES, seed: int = 0, **config: Any) -> DiTTransformer2DModel:
    """A DiT of about 20 thousand weights on latents 4x4x4, which also learnt a variance."""
    torch.manual_seed(seed)
    settings: dict[str, Any] = {
        "num_attention_heads": 2,
        "attention_head_dim": 8,
        "in_channels": 4,
        "out_channels": 8,
        "num_layers": 2,
        "sample_size": 4,
        "patch_size": 2,
        "num_embeds_ada_norm": classes,
    }
    return DiTTransformer2DModel(**settings | config).eval()


def tiny_autoencoder(seed: int = 0, **config: Any) -> AutoencoderKL:
    """An autoencoder from images 3x8x8 to latents 4x4x4."""
    torch.manual_seed(seed)
    settings: dict[str, Any] = {
        "block_out_channels": (8, 8),
        "down_block_types": ("DownEncoderBlock2D", "DownEncoderBlock2D"),
        "up_block_types": ("UpDecoderBlock2D", "UpDecoderBlock2D"),
        "norm_num_groups": 4,
        "sample_size": 8,
    }
    return AutoencoderKL(**settings | config).eval()


def unconditional(folder: Path, channels: int = 1, size: int = 8, seed: int = 0, **scheduler: Any) -> Path:
    """A DDPM that predicts noise on the linear schedule; ``scheduler`` changes that."""
    settings = {"clip_sample": False} | scheduler
    DDPMPipeline(tiny_unet(channels, size, seed=seed), DDPMScheduler(**settings)).save_pretrained(folder)
    return folder


def class_conditional(folder: Path, channels: int = 3, classes: int = CLASSES, seed: int = 0) -> Path:
    """A DDPM of several classes, without a class for "no class"."""
    scheduler = DDPMScheduler(clip_sample=False)
    DDPMPipeline(tiny_unet(channels, classes=classes, seed=seed), scheduler).save_pretrained(folder)
    return folder


def velocity(folder: Path, seed: int = 0) -> Path:
    """A network that predicts velocity on the cosine schedule."""
    return unconditional(folder, seed=seed, prediction_type="v_prediction", beta_schedule="squaredcos_cap_v2")


def sample_prediction(folder: Path, seed: int = 0) -> Path:
    """A network that predicts the sample."""
    return unconditional(folder, seed=seed, prediction_type="sample")


def flow(folder: Path, seed: int = 0, **scheduler: Any) -> Path:
    """A network of flow matching."""
    DDPMPipeline(tiny_unet(seed=seed), FlowMatchEulerDiscreteScheduler(**scheduler)).save_pretrained(folder)
    return folder


def latent(folder: Path, classes: int = CLASSES, seed: int = 0, **autoencoder: Any) -> Path:
    """A DiT with its autoencoder and the names of its classes."""
    names: dict[int, str] = {index: f"class {index}" for index in range(classes)}
    scheduler = DDIMScheduler(clip_sample=False)
    pipeline = DiTPipeline(tiny_transformer(classes, seed), tiny_autoencoder(seed, **autoencoder), scheduler, names)
    pipeline.register_to_config(id2label=names)
    pipeline.save_pretrained(folder)
    return folder
