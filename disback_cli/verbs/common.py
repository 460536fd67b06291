"""What the verbs build alike from their configuration."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from disback_cli.configuration import discovery, runfolder
from disback_cli.configuration.entry import remove_if_empty, user_error_behind
from disback_cli.data.dataset import Dataset
from disback_cli.denoisers.teachers import Teacher
from disback_cli.errors import UserError
from disback_cli.evaluation.measure import EvaluationNoise
from disback_cli.evaluation.suite import EvaluationSuite
from disback_cli.files import write_bytes
from disback_cli.runtime.launch import Launch
from disback_cli.runtime.logs import set_up_logging

log = logging.getLogger(__name__)

EVALUATION_SEED = 0


def plain(node: DictConfig) -> dict[str, Any]:
    """A node of the configuration as plain, resolved containers."""
    container = OmegaConf.to_container(node, resolve=True)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def build_teacher(cfg: DictConfig) -> Teacher:
    """The configured teacher; its network's description stays a description until the teacher builds it."""
    return instantiate(cfg.teacher, _recursive_=False, _convert_="all")


def build_dataset(cfg: DictConfig, shape: tuple[int, ...]) -> Dataset:
    """The configured data set, checked against the shape of the model's samples.

    Raises:
        UserError: none is configured, or the shapes differ.
    """
    if cfg.get("dataset") is None:
        raise UserError(f"no data set is known for teacher={cfg.teacher.name}: choose one with dataset=...")
    dataset: Dataset = instantiate(cfg.dataset, _convert_="all")
    if tuple(dataset.shape) != tuple(shape):
        raise UserError(
            f"the data set {dataset.name} has samples of shape {tuple(dataset.shape)}, the teacher {cfg.teacher.name} "
            f"makes {tuple(shape)}; choose another dataset= or teacher="
        )
    return dataset


def build_suite(cfg: DictConfig, shape: tuple[int, ...]) -> EvaluationSuite | None:
    """What is measured, or None with ``metrics=none``."""
    if cfg.get("metrics") is None:
        raise UserError(
            f"no metrics are known for teacher={cfg.teacher.name}: choose some with metrics=..., or metrics=none"
        )
    if cfg.metrics.n == 0:
        return None
    extractor = instantiate(cfg.metrics.extractor)
    dataset = build_dataset(cfg, shape)
    metrics = cfg.metrics
    return EvaluationSuite(extractor, dataset, metrics.n, splits=metrics.splits, batch_size=metrics.batch_size)


def evaluation_noise(teacher: Teacher, device: torch.device) -> EvaluationNoise:
    """The evaluation set: the same latents and labels for every run, so that runs can be compared."""
    return EvaluationNoise(EVALUATION_SEED, teacher.denoiser.shape, teacher.denoiser.label_dim, device)


@contextmanager
def one_shot(cfg: DictConfig, verb: str, out: str | None) -> Iterator[Path]:
    """The folder of a verb that runs once and is not resumed; removed again if the verb is refused.

    Args:
        cfg: the configuration, written beside the results.
        verb: name of the verb.
        out: where the results go instead of the run folder.

    Raises:
        UserError: several processes were asked for; these verbs use one.
    """
    run = Path(HydraConfig.get().runtime.output_dir).absolute()
    folder = Path(out).absolute() if out else run
    fresh = not folder.exists() or not any(folder.iterdir())
    try:
        launch: Launch = instantiate(cfg.trainer)
        if launch.processes > 1:
            raise UserError(f"`disback {verb}` works in one process; leave trainer=single")
        torch.set_num_threads(launch.threads)
        set_up_logging(None, 0)
        for note in discovery.notes():
            log.info(note)
        folder.mkdir(parents=True, exist_ok=True)
        text = yaml.safe_dump(plain(cfg), sort_keys=False)
        write_bytes(folder / "config.yaml", text.encode())
        if folder == run:
            runfolder.create(folder, verb, cfg.teacher.name, HydraConfig.get().overrides.task)
        yield folder
        if folder == run:
            runfolder.set_state(folder, "finished")
    except Exception as error:
        if fresh and user_error_behind(error) is not None:
            shutil.rmtree(folder, ignore_errors=True)
            remove_if_empty(folder)
        raise
    finally:
        if folder != run and run.is_dir() and not any(run.iterdir()):
            run.rmdir()
