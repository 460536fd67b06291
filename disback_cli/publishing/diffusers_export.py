"""A student as a diffusers pipeline: with diffusers' own classes where they can express it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from disback_cli.denoisers.kinds import words_of_student
from disback_cli.denoisers.protocol import Denoiser
from disback_cli.errors import UserError
from disback_cli.publishing.clean_process import sampled_in_clean_process
from disback_cli.publishing.custom_pipeline import write_custom_pipeline
from disback_cli.publishing.model import Model
from disback_cli.publishing.precision import in_precision
from disback_cli.publishing.stock_pipeline import stock_parts, write_stock_pipeline

CHECKED_IMAGES = 4
_SEED = 0


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        custom: it brings its own code, so loading needs ``trust_remote_code=True``.
        difference: largest difference of a pixel (0..1) from the student, in a clean process; 0 = bit for bit.
        activations: precision that the student computes in and the pipeline does not follow, or None.
    """

    custom: bool
    difference: float
    activations: str | None


def write_diffusers(model: Model, root: Path, dtype: str | None, say: Callable[[str], None]) -> Exported:
    """Write a folder that ``DiffusionPipeline.from_pretrained`` loads, and check it in a process without this package.

    Args:
        model: a student of images.
        root: the folder to make.
        dtype: of the weights; None keeps theirs.
        say: told what is being done.

    Raises:
        UserError: the model is no student of images, or what was written does not make the student's samples.
    """
    if model.settings is None:
        raise UserError(
            f"{model.place} is a teacher: a diffusers pipeline is made of students. Distil it first "
            "(`disback record`, `disback backtrack`), or use to=folder, to=safetensors or to=state_dict"
        )
    denoiser = model.network()
    if not isinstance(denoiser, Denoiser):
        raise UserError(
            f"{model.place} is a {words_of_student(model.facts)}, for which there is no diffusers pipeline: use "
            "to=folder, to=safetensors or to=state_dict"
        )
    if len(denoiser.shape) != 3 and model.decoder is None:
        raise UserError(
            f"{model.place} makes points of shape {denoiser.shape}, and a diffusers pipeline makes images: "
            "use to=folder, to=safetensors or to=state_dict"
        )
    parts = stock_parts(model, denoiser)
    if parts is None:
        write_custom_pipeline(model, root, dtype, denoiser.label_dim)
    else:
        write_stock_pipeline(model, parts, root, dtype)
    activations = getattr(denoiser, "network_dtype", "fp32")
    if parts is not None and activations != "fp32":
        denoiser.network_dtype = "fp32"  # type: ignore[assignment]
    say("checking it in a process without disback ...")
    meant = _samples(model, denoiser, dtype)
    found = sampled_in_clean_process(root, CHECKED_IMAGES, _SEED, denoiser.label_dim, custom=parts is None)
    difference = float((found - meant).abs().max()) if found.shape == meant.shape else float("inf")
    if not difference <= _tolerated(
        getattr(denoiser, "network_dtype", "fp32"), model.sigmas[0], stock=parts is not None
    ):
        raise UserError(
            f"the exported pipeline's images differ from the student's by {difference:.3g} of 1; nothing was kept. "
            "Please report this with the output of `disback inspect`"
        )
    return Exported(parts is None, difference, activations if parts is not None and activations != "fp32" else None)


def _tolerated(activations: str, sigma_init: float, stock: bool) -> float:
    """The largest difference of pixels (0..1) that is rounding; ``sigma_init`` is the first noise level.

    Matrix products round by where the matrices lie in memory, so two processes can differ in the last bits. Stock
    schedulers compute x + (x - D) / s * (0 - s), which rounds off what of D is small against x = s z.
    """
    return (0.02 if activations == "bf16" else 1e-4) + (4e-6 * sigma_init if stock else 0)


@torch.no_grad()
def _samples(model: Model, denoiser: Denoiser, dtype: str | None) -> Tensor:
    """The student's images in [0, 1], from weights in the precision that was written."""
    denoiser.load_state_dict({name: w.float() for name, w in in_precision(model.weights, dtype).items()})
    student = model.student_around(denoiser)
    generator = torch.Generator().manual_seed(_SEED)
    z, *further = [
        torch.randn((CHECKED_IMAGES, *denoiser.shape), generator=generator) for _ in range(student.network_evaluations)
    ]
    labels = None
    if denoiser.label_dim:
        labels = torch.eye(denoiser.label_dim)[torch.arange(CHECKED_IMAGES) % denoiser.label_dim]
    samples = student(z, labels, lambda step: further[step - 1])
    if model.decoder is not None:
        samples = _decoder(model, dtype)(samples)
    return (samples / 2 + 0.5).clamp(0, 1)


def _decoder(model: Model, dtype: str | None) -> torch.nn.Module:
    from disback_cli.denoisers.folder import build_network

    assert model.decoder is not None
    weights = in_precision(model.decoder.weights, dtype)
    decoder: nn.Module = build_network(model.decoder.spec, weights, "the decoder", nn.Module)
    return decoder
