"""What the verbs build alike from their configuration."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from disback_cli.configuration import discovery, runfolder
from disback_cli.configuration.arguments import Override
from disback_cli.configuration.contradictions import data_needed
from disback_cli.configuration.entry import remove_if_empty, user_error_behind
from disback_cli.configuration.options import Metrics
from disback_cli.data.dataset import Dataset
from disback_cli.denoisers.teachers import Teacher
from disback_cli.distillation.pairs import Pairs
from disback_cli.distillation.real_data import RealSamples
from disback_cli.errors import UserError
from disback_cli.evaluation.features import FeatureExtractor, require_fitting
from disback_cli.evaluation.measure import EvaluationNoise
from disback_cli.evaluation.reference import ReferenceStatistics
from disback_cli.evaluation.suite import EvaluationSuite, open_reference
from disback_cli.files import write_bytes
from disback_cli.runtime.launch import Launch
from disback_cli.runtime.logs import set_up_logging
from disback_cli.runtime.session import process_rank

log = logging.getLogger(__name__)

EVALUATION_SEED = 0


def plain(node: DictConfig) -> dict[str, Any]:
    """A node of the configuration as plain, resolved containers."""
    container = OmegaConf.to_container(node, resolve=True)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def stage_settings(cfg: DictConfig, launch: Launch, lr: dict[str, float]) -> dict[str, Any]:
    """The arguments that every stage takes, see :class:`disback_cli.runtime.stage.Stage`.

    Args:
        cfg: of a verb that trains.
        launch: shares the batch out.
        lr: peak learning rate of each trained network.
    """
    return {
        "batch_size": cfg.batch_size,
        "iterations": cfg.iterations,
        "seed": cfg.seed,
        "optimizer": instantiate(cfg.optimizer),
        "lr": lr,
        "lr_schedule": cfg.lr.schedule,
        "lr_warmup": cfg.lr.warmup,
        "passes": launch.passes(cfg.batch_size),
    }


def build_teacher(cfg: DictConfig) -> Teacher:
    """The configured teacher; its network's description stays a description until the teacher builds it."""
    return instantiate(cfg.teacher, _recursive_=False, _convert_="all")


def build_dataset(cfg: DictConfig, shape: tuple[int, ...], source: str | None = None) -> Dataset:
    """The configured data set, checked against the shape of the model's samples.

    Args:
        cfg: with ``dataset`` and ``teacher``.
        shape: of one sample.
        source: who has such samples, for the message; None is the teacher.

    Raises:
        UserError: none is configured, or the shapes differ.
    """
    if cfg.get("dataset") is None:
        raise UserError(f"no data set is known for teacher={cfg.teacher.name}: choose one with dataset=...")
    dataset: Dataset = instantiate(cfg.dataset, _convert_="all")
    if tuple(dataset.shape) != tuple(shape):
        raise UserError(
            f"the data set {dataset.name} has samples of shape {tuple(dataset.shape)}, "
            f"{source or f'the teacher {cfg.teacher.name} makes'} {tuple(shape)}; choose another dataset= or teacher="
        )
    return dataset


def build_real_samples(cfg: DictConfig, teacher: Teacher, why: str) -> RealSamples:
    """The configured data set for terms that look at real data, in the range and with the labels of the teacher.

    Args:
        cfg: with ``dataset``.
        teacher: whose samples the data are to be like.
        why: what needs real data, for messages: "objective=dmd2 has a critic".

    Raises:
        UserError: the teacher is a latent one, no data set is configured, or it does not suit the teacher.
    """
    if teacher.decoder is not None:
        raise UserError(
            f"{why}, which needs real data, but the teacher {teacher.name} works on latents and a data set has pixels: "
            "there is no encoder here that could turn the one into the other. Choose an objective without real data, "
            "or a teacher that works on pixels"
        )
    if cfg.get("dataset") is None:
        raise data_needed(why, teacher.name)
    return RealSamples(build_dataset(cfg, teacher.denoiser.shape), teacher.denoiser.label_dim)


def open_pairs(cfg: DictConfig, teacher: Teacher, why: str) -> Pairs:
    """The pairs of the teacher that ``pairs`` names, every file verified.

    Args:
        cfg: with ``pairs``.
        teacher: whose pairs they must be.
        why: what needs pairs, for messages: "objective.regression is a term on pairs".

    Raises:
        UserError: none are named, they are damaged, or of another teacher.
    """
    if cfg.pairs is None:
        choice = HydraConfig.get().runtime.choices.get("teacher")
        raise UserError(
            f"{why} of the teacher's latents and samples, and there are none of teacher={teacher.name} yet: type "
            f"`disback pairs teacher={choice}` first, or name others with pairs=RUN"
        )
    pairs = Pairs(cfg.pairs)
    pairs.require_teacher(teacher.name, teacher.hash, teacher.spec)
    return pairs


@dataclass(frozen=True)
class SuitePlan:
    """Everything an evaluation needs, opened and checked; what is left to do is the work of all processes.

    Attributes:
        settings: the node ``metrics``.
        extractor: on its device.
        dataset: to measure against, where there is no `reference`.
        reference: statistics that were named.
    """

    settings: Metrics
    extractor: FeatureExtractor
    dataset: Dataset | None
    reference: ReferenceStatistics | None

    def build(self, n: int | None = None) -> EvaluationSuite:
        """The suite for ``metrics.n`` or ``n`` samples; computes the reference statistics that no cache has."""
        settings = self.settings
        return EvaluationSuite(
            self.extractor,
            self.dataset,
            settings.n if n is None else n,
            splits=settings.splits,
            kid=settings.kid,
            precision_recall=settings.precision_recall,
            reference=self.reference,
            batch_size=settings.batch_size,
        )


def plan_suite(cfg: DictConfig, shape: tuple[int, ...], source: str | None = None) -> SuitePlan | None:
    """What is to be measured, or None with ``metrics=none``.

    Args:
        cfg: with ``metrics``, ``trainer``, and, without ``metrics.reference``, ``dataset``.
        shape: of one sample as it is looked at (an image's, where a decoder makes images of latents).
        source: who has such samples, for messages; None is the teacher.

    Raises:
        UserError: nothing is configured, a file is missing or of another kind, or the shapes differ.
    """
    if cfg.get("metrics") is None:
        raise UserError(
            f"no metrics are known for teacher={cfg.teacher.name}: choose some with metrics=..., or metrics=none"
        )
    settings = Metrics(**plain(cfg.metrics))
    if settings.n == 0:
        return None
    whose = source or f"the teacher {cfg.teacher.name} makes"
    extractor = build_extractor(cfg)
    require_fitting(extractor, shape, whose)
    if settings.reference is None:
        return SuitePlan(settings, extractor, build_dataset(cfg, shape, source), None)
    features = settings.kid or settings.precision_recall
    reference = open_reference(settings.reference, extractor, features=features)
    stated = reference.provenance.get("shape")
    if stated is not None and tuple(stated) != tuple(shape):
        raise UserError(
            f"metrics.reference={settings.reference} was made of samples of shape {tuple(stated)}, "
            f"{whose} {tuple(shape)}"
        )
    return SuitePlan(settings, extractor, None, reference)


def build_extractor(cfg: DictConfig) -> FeatureExtractor:
    """The configured feature extractor, on the device of this process; UserError if there is none."""
    if cfg.metrics.extractor is None:
        raise UserError("metrics.extractor=null has no features; choose metrics=digits, points or inception")
    extractor: FeatureExtractor = instantiate(cfg.metrics.extractor)
    launch: Launch = instantiate(cfg.trainer)
    extractor.to(launch.device)
    return extractor


def build_suite(cfg: DictConfig, shape: tuple[int, ...]) -> EvaluationSuite | None:
    """What is measured of samples of this shape, or None with ``metrics=none``; see :func:`plan_suite`."""
    plan = plan_suite(cfg, shape)
    return None if plan is None else plan.build()


def refuse_typed(keys: Sequence[str], reason: str) -> None:
    """Raise UserError if one of these keys, or one below it, was typed: an option that is ignored misleads.

    Args:
        keys: dotted keys or groups, ``metrics.n``.
        reason: why they have no meaning.
    """
    for word in HydraConfig.get().overrides.task:
        key = Override(word).key
        if any(key == refused or key.startswith(f"{refused}.") for refused in keys):
            raise UserError(f"{word} would be ignored: {reason}; leave it out")


def evaluation_noise(teacher: Teacher, device: torch.device) -> EvaluationNoise:
    """The evaluation set: the same latents and labels for every run, so that runs can be compared."""
    return EvaluationNoise(EVALUATION_SEED, teacher.denoiser.shape, teacher.denoiser.label_dim, device)


@contextmanager
def one_shot(
    cfg: DictConfig, verb: str, out: str | None, *, several: bool = False, filed_under: str | None = None
) -> Iterator[Path]:
    """The folder of a verb that runs once and is not resumed; removed again if the verb is refused.

    Every process enters; the first one alone writes, and so should the body.

    Args:
        cfg: the configuration, written beside the results.
        verb: name of the verb.
        out: where the results go instead of the run folder.
        several: whether the verb can work in several processes.
        filed_under: what ``run.json`` says the run is about; None is the teacher.

    Raises:
        UserError: several processes were asked for, and the verb uses one.
    """
    run = Path(HydraConfig.get().runtime.output_dir).absolute()
    folder = Path(out).absolute() if out else run
    main = process_rank() == 0
    fresh = main and (not folder.exists() or not any(folder.iterdir()))
    try:
        launch: Launch = instantiate(cfg.trainer)
        if launch.processes > 1 and not several:
            raise UserError(f"`disback {verb}` works in one process; leave trainer=single")
        torch.set_num_threads(launch.threads)
        set_up_logging(None, process_rank())
        if main:
            begin(cfg, verb, folder, as_run=folder == run, filed_under=filed_under)
        yield folder
        if main and folder == run:
            runfolder.set_state(folder, "finished")
    except Exception as error:
        if fresh and user_error_behind(error) is not None:
            shutil.rmtree(folder, ignore_errors=True)
            remove_if_empty(folder)
        raise
    finally:
        if main and folder != run and run.is_dir() and not any(run.iterdir()):
            run.rmdir()


def begin(cfg: DictConfig, verb: str, folder: Path, *, as_run: bool, filed_under: str | None = None) -> None:
    """Say what was found, and write down what was asked for; ``as_run`` declares the folder a new run."""
    for note in discovery.notes():
        log.info(note)
    folder.mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump(plain(cfg), sort_keys=False)
    write_bytes(folder / "config.yaml", text.encode())
    if as_run:
        runfolder.create(folder, verb, filed_under or cfg.teacher.name, HydraConfig.get().overrides.task)
