"""`disback evaluate`: measure a student, a teacher or a set of images."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from disback_cli.configuration.entry import verb_main

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from omegaconf import DictConfig

    from disback_cli.data.dataset import Dataset
    from disback_cli.evaluation.measure import Measured, Sampler
    from disback_cli.evaluation.suite import EvaluationSuite

log = logging.getLogger("disback_cli.verbs.evaluate")


@dataclass(frozen=True)
class Subject:
    """What is measured.

    Attributes:
        name: for tables.
        sampler: its samples by index.
        shape: of one sample.
        evaluations: network evaluations a sample costs; None for images that are there already.
        images: the images that are there already; None for a generator, which makes as many as one likes.
        facts: where it came from, plain JSON values.
    """

    name: str
    sampler: Sampler
    shape: tuple[int, ...]
    evaluations: int | None
    images: Dataset | None
    facts: dict[str, Any]


def work(cfg: DictConfig) -> None:
    """Compose, measure with all processes, write and print with the first."""
    from hydra.utils import instantiate

    from disback_cli.errors import UserError
    from disback_cli.evaluation.measure import collect, measure_ranges
    from disback_cli.reporting.pictures import save_samples
    from disback_cli.runtime.processes import rank_and_world
    from disback_cli.runtime.workers import workers
    from disback_cli.verbs.common import one_shot, plan_suite, refuse_typed

    launch = instantiate(cfg.trainer)
    filed_under = None if cfg.images is None else "images"
    with one_shot(cfg, "evaluate", None, several=True, filed_under=filed_under) as folder:
        refuse_typed(("trainer.max_batch",), "metrics.batch_size= is what `disback evaluate` takes at a time")
        subject = _subject(cfg, launch.device)
        plan = plan_suite(cfg, subject.shape, _whose(cfg))
        if plan is None:
            raise UserError(
                "metrics.n=0 (or metrics=none) measures nothing; choose metrics=digits, points or inception"
            )
        if cfg.metrics.get("reference") is not None:
            refuse_typed(("dataset",), "metrics.reference= is what is measured against, so dataset= has no meaning")
        n = _count(cfg, subject)
        if subject.images is not None:
            subject = _drawn(cfg, subject, subject.images, n * cfg.ranges)
        with workers(launch):
            suite = plan.build(n).to(launch.device)
            parts = measure_ranges(subject.sampler, suite, cfg.metrics.batch_size, cfg.ranges, "measuring")
            if rank_and_world()[0] == 0:
                save_samples(folder / "grid.png", collect(subject.sampler, min(64, n)))
                _report(cfg, folder, subject, suite, parts)


def _subject(cfg: DictConfig, device: torch.device) -> Subject:
    """What the configuration names: images, else a student, else the teacher."""
    from disback_cli.verbs.generators import build_generator

    if cfg.images is not None:
        return _images(cfg)
    made = build_generator(cfg, device)
    return Subject(made.name, made.sampler, made.shape, made.evaluations, None, made.facts)


def _images(cfg: DictConfig) -> Subject:
    import torch

    from disback_cli.data.open_images import open_images
    from disback_cli.errors import UserError

    if cfg.student.folder is not None:
        raise UserError("images= and student= are both given; measure one of them")
    if cfg.seed != 0:
        raise UserError("images= are measured in their order, so seed= has no meaning; leave it out")
    data = open_images(cfg.images)
    # pixels become floats and the very same pixels again: see `disback_cli.data.pixels`
    facts = {"images": str(cfg.images), "name": data.name, "count": len(data), "sha256": data.sha256}
    return Subject(
        "images", lambda first, count: data.batch(torch.arange(first, first + count))[0],
        tuple(data.shape), None, data, facts,
    )  # fmt: skip


def _whose(cfg: DictConfig) -> str:
    """Who has the samples that are measured, for messages."""
    if cfg.images is not None:
        return f"images={cfg.images} holds"
    if cfg.student.folder is not None:
        return f"the student {cfg.student.folder} makes"
    return f"the teacher {cfg.teacher.name} makes"


def _drawn(cfg: DictConfig, subject: Subject, images: Dataset, wanted: int) -> Subject:
    """The images to be measured: all in their order, or where that is too many a random part that is always the same.

    The first ones would not do, because folders are often sorted by class.
    """
    from dataclasses import replace

    from disback_cli.data.sampler import epoch_order

    found = len(images)
    if wanted == found and cfg.ranges == 1:
        return replace(subject, facts={**subject.facts, "measured": f"all {found} images"})
    order = epoch_order(0, 0, found)
    part = f"{wanted} of {found} images, a fixed random part" if wanted < found else f"all {found} images"
    if cfg.ranges > 1:
        part += f", shared out at random over {cfg.ranges} ranges"
    log.info("images=%s: measuring %s", cfg.images, part)
    return replace(
        subject,
        sampler=lambda first, count: images.batch(order[first : first + count])[0],
        facts={**subject.facts, "measured": part},
    )


def _count(cfg: DictConfig, subject: Subject) -> int:
    """Samples in one range: ``metrics.n``, or as many as there are where the command does not insist on a number.

    Raises:
        UserError: there are fewer than asked for.
    """
    from hydra.core.hydra_config import HydraConfig

    from disback_cli.configuration.arguments import Override
    from disback_cli.errors import UserError

    wanted: int = cfg.metrics.n
    if subject.images is None or wanted * cfg.ranges <= len(subject.images):
        return wanted
    available = len(subject.images)
    possible = available // cfg.ranges
    insists = any(Override(word).key == "metrics.n" for word in HydraConfig.get().overrides.task)
    if insists or possible < 2:
        raise UserError(
            f"images={cfg.images} holds {available} images, metrics.n={wanted} with ranges={cfg.ranges} takes "
            f"{wanted * cfg.ranges}; give metrics.n={possible} or less"
        )
    log.info("images=%s holds %d images: n = %d", cfg.images, available, possible)
    return possible


def _report(cfg: DictConfig, folder: Path, subject: Subject, suite: EvaluationSuite, parts: list[Measured]) -> None:
    """Write ``summary.json``, print the table and what its numbers depend on."""
    from disback_cli.evaluation.comparable import describe_measurement
    from disback_cli.evaluation.measure import over_ranges
    from disback_cli.files import write_json
    from disback_cli.reporting.table import table
    from disback_cli.runtime.session import SUMMARY_FILE, shown_path

    facts = suite.provenance()
    speeds = [None if subject.evaluations is None else part.samples_per_second for part in parts]
    summary: dict[str, Any] = {
        "verb": "evaluate",
        "generator": subject.facts,
        "evaluations_per_image": subject.evaluations,
        "images_per_second": speeds[0],
        "metrics": over_ranges(parts),
        "measured_with": {**facts, "seed": cfg.seed, "ranges": cfg.ranges},
    }
    if len(parts) > 1:
        summary["ranges"] = [
            {"first": i * suite.n, "n": suite.n, **part.metrics, "images_per_second": speeds[i]}
            for i, part in enumerate(parts)
        ]
    write_json(folder / SUMMARY_FILE, summary)
    print(f"\n{table(*_rows(subject, suite, parts, speeds))}\n")
    if "measured" in subject.facts:
        print(f"images: {subject.facts['measured']}")
    print(describe_measurement(facts))
    print(f"numbers: {shown_path(folder)}/{SUMMARY_FILE}")


def _rows(
    subject: Subject, suite: EvaluationSuite, parts: list[Measured], speeds: list[float | None]
) -> tuple[list[str], list[list[Any]]]:
    """Columns and rows of the table: one row, or one for each range with their best and their mean."""
    from disback_cli.evaluation.measure import over_ranges

    names = list(parts[0].metrics)
    columns = ["generator", *names, "evaluations per image", "images per second"]
    if len(parts) == 1:
        return columns, [[subject.name, *parts[0].metrics.values(), subject.evaluations, speeds[0]]]
    found = over_ranges(parts)
    rows: list[list[Any]] = [
        [
            f"{subject.name}, samples {i * suite.n}..{(i + 1) * suite.n - 1}",
            *part.metrics.values(),
            subject.evaluations,
            speeds[i],
        ]
        for i, part in enumerate(parts)
    ]
    best = [found.get(f"{name}_min", found.get(f"{name}_max")) for name in names]
    rows.append(["best", *best, None, None])
    rows.append(["mean", *(found[f"{name}_mean"] for name in names), None, None])
    return columns, rows


if __name__ == "__main__":
    verb_main("evaluate", work)
