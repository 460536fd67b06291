"""A one-step student in diffusers' own classes, for networks that are diffusers' own.

``ConsistencyModelPipeline`` starts from the largest noise level of its scheduler and leaves the rest to the scheduler.
Euler's method over the student's noise level alone, s -> 0, returns exactly D: x + (x - D) / s * (0 - s). A scheduler
whose betas end at the step with that noise level has it as its largest and only one.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save
from torch import Tensor

from disback_cli.denoisers.diffusers_networks import UNet2D
from disback_cli.denoisers.discrete import DiscreteDenoiser
from disback_cli.denoisers.protocol import Denoiser
from disback_cli.errors import UserError
from disback_cli.files import write_bytes, write_json
from disback_cli.publishing.cards import pipeline_card
from disback_cli.publishing.model import Model
from disback_cli.publishing.precision import differing, in_precision

WEIGHTS = "diffusion_pytorch_model.safetensors"
# What a learnt variance is made of: the second half of the rows of the last layer.
_LAST_LAYER = ("conv_out.weight", "conv_out.bias")


@dataclass(frozen=True)
class StockParts:
    """What the folder is made of.

    Attributes:
        network: configuration of the ``UNet2DModel``.
        weights: its state dict, in the dtype of the student's.
        betas: of the schedule, up to the student's step.
        prediction: what the network predicts, in diffusers' words.
    """

    network: dict[str, Any]
    weights: dict[str, Tensor]
    betas: list[float]
    prediction: str


def stock_parts(model: Model, denoiser: Denoiser) -> StockParts | None:
    """Express a student in diffusers' own classes; None where that is not possible.

    It is possible for a square ``UNet2DModel`` of images with sinusoidal steps and a variance-preserving schedule,
    asked once, at a noise level that it was trained at.

    Args:
        model: the student.
        denoiser: its network.
    """
    if type(denoiser) is not DiscreteDenoiser or not isinstance(denoiser.model, UNet2D) or model.decoder is not None:
        return None
    if len(model.sigmas) != 1 or model.sigmas[0] not in denoiser.levels or denoiser.shape[1] != denoiser.shape[2]:
        return None
    stock = denoiser.model.unet
    if stock.config.time_embedding_type == "learned":
        return None  # the pipeline tells the network a float, which such an embedding cannot look up
    config = {key: value for key, value in stock.config.items() if not key.startswith("_")}
    config |= {"sample_size": denoiser.shape[1], "out_channels": denoiser.shape[0]}
    prefix = "model.unet."
    weights = {name.removeprefix(prefix): w for name, w in model.weights.items() if name.startswith(prefix)}
    for name in _LAST_LAYER:
        weights[name] = weights[name][: denoiser.shape[0]]
    return StockParts(
        config, weights, _betas(model.spec)[: denoiser.levels.index(model.sigmas[0]) + 1], denoiser.prediction
    )


def _betas(spec: dict[str, Any]) -> list[float]:
    """The betas of the training, as diffusers computes them."""
    from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

    betas: list[float] = DDPMScheduler(**spec["schedule"]).betas.tolist()
    return betas


def write_stock_pipeline(model: Model, parts: StockParts, root: Path, dtype: str | None) -> None:
    """Write a folder for ``DiffusionPipeline.from_pretrained``, with nothing to trust.

    Args:
        model: a student.
        parts: from :func:`stock_parts`.
        root: the folder to make.
        dtype: of the weights; None keeps theirs.

    Raises:
        UserError: the weights do not fit in ``dtype`` or did not arrive on the disk.
    """
    from diffusers import __version__
    from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler

    weights = in_precision(parts.weights, dtype)
    folder = root / "unet"
    write_json(
        folder / "config.json", {"_class_name": "UNet2DModel", "_diffusers_version": __version__, **parts.network}
    )
    write_bytes(folder / WEIGHTS, save(weights, metadata={"format": "pt"}))
    scheduler = EulerDiscreteScheduler(
        num_train_timesteps=len(parts.betas),
        trained_betas=parts.betas,
        prediction_type=parts.prediction,
        timestep_spacing="trailing",
    )
    scheduler.save_config(root / "scheduler")
    classes = int(parts.network.get("num_class_embeds") or 0)
    write_bytes(
        root / "README.md", pipeline_card(model, weights, _call(classes, int(parts.network["in_channels"]))).encode()
    )
    write_json(
        root / "model_index.json",
        {
            "_class_name": "ConsistencyModelPipeline",
            "_diffusers_version": __version__,
            "scheduler": ["diffusers", "EulerDiscreteScheduler"],
            "unet": ["diffusers", "UNet2DModel"],
        },
    )
    wrong = differing(load_file(folder / WEIGHTS), weights)
    if wrong:
        raise UserError(f"{len(wrong)} tensors changed on their way to the disk, {wrong[0]} first: check the disk")


def _call(label_dim: int, channels: int) -> str:
    """Python code that draws images from the exported folder."""
    labels = f", class_labels={[index % label_dim for index in range(4)]}" if label_dim else ""
    given = ""
    if channels != 3:
        given = "\n# to give latents=, first switch off a check for 3 channels: pipe.check_inputs = lambda *_: None"
    return f"""\
import torch
from diffusers import DiffusionPipeline

pipe = DiffusionPipeline.from_pretrained("THIS_FOLDER")
# num_inference_steps is 1 by default; the student knows no other number{given}
pipe(batch_size=4{labels}, generator=torch.Generator().manual_seed(0)).images[0].save("sample.png")"""
