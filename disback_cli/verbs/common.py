"""What the verbs build alike from their configuration."""

from __future__ import annotations

from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from disback_cli.data.dataset import Dataset
from disback_cli.denoisers.teachers import Teacher
from disback_cli.errors import UserError
from disback_cli.evaluation.measure import EvaluationNoise
from disback_cli.evaluation.suite import EvaluationSuite

EVALUATION_SEED = 0


def plain(node: DictConfig) -> dict[str, Any]:
    """A node of the configuration as plain, resolved containers."""
    container = OmegaConf.to_container(node, resolve=True)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def build_teacher(cfg: DictConfig) -> Teacher:
    """The configured teacher; its network's description stays a description until the teacher builds it."""
    return instantiate(cfg.teacher, _recursive_=False, _convert_="all")  # type: ignore[no-any-return]


def build_dataset(cfg: DictConfig, shape: tuple[int, ...]) -> Dataset:
    """The configured data set, checked against the shape of the model's samples.

    Raises:
        UserError: the shapes differ.
    """
    dataset: Dataset = instantiate(cfg.dataset, _convert_="all")
    if tuple(dataset.shape) != tuple(shape):
        raise UserError(
            f"the data set {dataset.name} has samples of shape {tuple(dataset.shape)}, the teacher {cfg.teacher.name} "
            f"makes {tuple(shape)}; choose another dataset= or teacher="
        )
    return dataset


def build_suite(cfg: DictConfig, shape: tuple[int, ...]) -> EvaluationSuite | None:
    """What is measured, or None with ``metrics=none``."""
    if cfg.metrics.n == 0:
        return None
    extractor = instantiate(cfg.metrics.extractor)
    dataset = build_dataset(cfg, shape)
    metrics = cfg.metrics
    return EvaluationSuite(extractor, dataset, metrics.n, splits=metrics.splits, batch_size=metrics.batch_size)


def evaluation_noise(teacher: Teacher, device: torch.device) -> EvaluationNoise:
    """The evaluation set: the same latents and labels for every run, so that runs can be compared."""
    return EvaluationNoise(EVALUATION_SEED, teacher.denoiser.shape, teacher.denoiser.label_dim, device)
