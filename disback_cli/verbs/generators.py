"""What `sample` and `evaluate` draw from: a student if one is named or found, else the teacher."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from omegaconf import DictConfig

from disback_cli.distillation.student_folder import load_student
from disback_cli.evaluation.measure import EvaluationNoise, Sampler, heun_sampler, one_step_sampler, teacher_evaluations
from disback_cli.verbs.common import build_teacher


@dataclass(frozen=True)
class Generator:
    """A sampler with its description.

    Attributes:
        name: for tables.
        sampler: makes the samples of the seed by their index.
        noise: the latents and labels behind them.
        shape: of one sample.
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
        shape, classes = student.denoiser.shape, student.denoiser.label_dim
        noise = EvaluationNoise(cfg.seed, shape, classes, device, label)
        facts = {
            "student": str(cfg.student.folder),
            "weights_hash": config["weights_hash"],
            "teacher": config.get("teacher"),
        }
        sampler = one_step_sampler(student, noise)
        return Generator("student", sampler, noise, shape, classes, student.network_evaluations, facts)
    teacher = build_teacher(cfg)
    denoiser = teacher.denoiser.to(device)
    noise = EvaluationNoise(cfg.seed, denoiser.shape, denoiser.label_dim, device, label)
    facts = {"teacher": {"name": teacher.name, "hash": teacher.hash}, "sampler": teacher.sampler}
    sampler = heun_sampler(denoiser, teacher.sampler, noise)
    evaluations = teacher_evaluations(teacher)
    return Generator(teacher.name, sampler, noise, denoiser.shape, denoiser.label_dim, evaluations, facts)
