"""What `sample` and `evaluate` draw from: a student if one is named or found, else the teacher."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from omegaconf import DictConfig
from torch import nn

from disback_cli.denoisers.folder import load_decoder
from disback_cli.distillation.student_folder import load_student, student_place
from disback_cli.evaluation.measure import EvaluationNoise, Sampler, heun_sampler, student_sampler, teacher_evaluations
from disback_cli.verbs.common import build_teacher


@dataclass(frozen=True)
class Generator:
    """A sampler with its description.

    Attributes:
        name: for tables.
        sampler: makes the samples of the seed by their index.
        noise: the latents and labels behind them.
        shape: of one sample as it comes out, an image's where a decoder follows.
        classes: number of classes, 0 for an unconditional one.
        evaluations: network evaluations a sample costs.
        facts: where it came from, plain JSON values.
    """

    name: str
    sampler: Sampler
    noise: EvaluationNoise
    shape: tuple[int, ...]
    classes: int
    evaluations: int
    facts: dict[str, Any]


def build_generator(cfg: DictConfig, device: torch.device, label: int | None = None) -> Generator:
    """The student in ``student.folder``, or the teacher where that is null.

    Args:
        cfg: with ``student.folder``, ``teacher`` and ``seed``.
        device: where to sample.
        label: class of every sample; None draws classes uniformly.

    Raises:
        UserError: the student's folder is missing or damaged, or there is no such class.
    """
    if cfg.student.folder is not None:
        student, config = load_student(cfg.student.folder)
        student.to(device)
        shape, classes = student.shape, student.label_dim
        noise = EvaluationNoise(cfg.seed, shape, classes, device, label)
        facts = {
            "student": str(cfg.student.folder),
            "weights_hash": config.get("weights_hash"),
            "teacher": config.get("teacher"),
        }
        decoder, _ = load_decoder(student_place(cfg.student.folder))
        sampler = decoded(student_sampler(student, noise), decoder, device)
        shape = shape_of_images(shape, decoder)
        return Generator("student", sampler, noise, shape, classes, student.network_evaluations, facts)
    teacher = build_teacher(cfg)
    denoiser = teacher.denoiser.to(device)
    noise = EvaluationNoise(cfg.seed, denoiser.shape, denoiser.label_dim, device, label)
    facts = {"teacher": {"name": teacher.name, "hash": teacher.hash}, "sampler": teacher.sampler}
    sampler = decoded(heun_sampler(denoiser, teacher.sampler, noise), teacher.decoder, device)
    evaluations = teacher_evaluations(teacher)
    shape = shape_of_images(denoiser.shape, teacher.decoder)
    return Generator(teacher.name, sampler, noise, shape, denoiser.label_dim, evaluations, facts)


def decoded(sampler: Sampler, decoder: nn.Module | None, device: torch.device) -> Sampler:
    """The sampler of what is looked at: the decoder turns the latents of a latent model into images."""
    if decoder is None:
        return sampler
    images = decoder.to(device)
    return lambda first, count: images(sampler(first, count))


@torch.no_grad()
def shape_of_images(shape: tuple[int, ...], decoder: nn.Module | None) -> tuple[int, ...]:
    """Shape of what the decoder makes of one sample; the sample's own without a decoder."""
    if decoder is None:
        return shape
    device = next(decoder.parameters()).device
    return tuple(decoder(torch.zeros(1, *shape, device=device)).shape[1:])
