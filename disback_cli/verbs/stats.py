"""`disback stats`: the reference statistics of a data set."""

from __future__ import annotations

from typing import TYPE_CHECKING

from disback_cli.configuration.arguments import Override
from disback_cli.configuration.entry import verb_main

if TYPE_CHECKING:
    from pathlib import Path

    from omegaconf import DictConfig

    from disback_cli.evaluation.reference import ReferenceStatistics


def work(cfg: DictConfig) -> None:
    """Compose, compute with all processes, write and print with the first."""
    from pathlib import Path

    from hydra.core.hydra_config import HydraConfig
    from hydra.utils import instantiate

    from disback_cli.errors import UserError
    from disback_cli.evaluation.features import require_fitting
    from disback_cli.evaluation.reference import cached
    from disback_cli.runtime.processes import rank_and_world
    from disback_cli.runtime.workers import workers
    from disback_cli.verbs.common import build_extractor, one_shot, refuse_typed

    launch = instantiate(cfg.trainer)
    about = str(HydraConfig.get().runtime.choices.get("dataset"))
    with one_shot(cfg, "stats", None, several=True, filed_under=about) as folder:
        refuse_typed(
            ("metrics.n", "metrics.splits", "metrics.teacher"), "statistics are of the whole data set and of no model"
        )
        refuse_typed(("trainer.max_batch",), "metrics.batch_size= is what `disback stats` takes at a time")
        if cfg.metrics.get("reference") is not None:
            raise UserError("metrics.reference= is what this verb makes; leave it out")
        if cfg.out is not None and Path(cfg.out).expanduser().is_dir():
            raise UserError(
                f"out={cfg.out} is a folder, and the statistics are one file; try out={cfg.out}/reference.npz"
            )
        extractor = build_extractor(cfg)
        dataset = instantiate(cfg.dataset, _convert_="all")
        require_fitting(extractor, tuple(dataset.shape), f"{dataset.name} has")
        features = bool(cfg.metrics.get("kid") or cfg.metrics.get("precision_recall"))
        with workers(launch):
            found = cached(dataset, extractor, batch_size=cfg.metrics.batch_size, features=features)
            if rank_and_world()[0] == 0:
                _report(cfg, folder, found)


def _report(cfg: DictConfig, folder: Path, found: ReferenceStatistics) -> None:
    """Write the statistics and ``summary.json``, and print what they are of."""
    from pathlib import Path

    from disback_cli.files import sha256_of, write_json
    from disback_cli.inspection.report import command
    from disback_cli.runtime.session import SUMMARY_FILE, shown_path

    target = folder / "reference.npz" if cfg.out is None else Path(cfg.out).expanduser().absolute()
    found.save(target)
    kept = 0 if found.features is None else len(found.features)
    sha256 = sha256_of(target)
    facts = {**found.provenance, "features": kept, "file": str(target), "file_sha256": sha256}
    write_json(folder / SUMMARY_FILE, {"verb": "stats", **facts})
    stated = found.provenance
    print(f"\ndata:       {stated['dataset']} {stated['split']}, {stated['n']} samples of shape {stated['shape']}")
    print(f"            sha256 {stated['sha256']}")
    print(f"features:   {stated['extractor']}, resize {stated['resize']}, {found.feature_dim} numbers a sample")
    print(f"            sha256 {stated['extractor_sha256']}")
    print(f"kept:       mean and covariance{f', features of {kept} samples' if kept else ''}")
    print(f"statistics: {shown_path(target)}, sha256 {sha256[:12]}")
    print(f"next:       {command('evaluate', *_metrics_typed(cfg), ('metrics.reference', target))}")


def _metrics_typed(cfg: DictConfig) -> list[str | tuple[str, Path]]:
    """The words that give an evaluation the features of these statistics."""
    from pathlib import Path

    from hydra.core.hydra_config import HydraConfig

    chosen = str(HydraConfig.get().runtime.choices.get("metrics"))
    words: list[str | tuple[str, Path]] = [] if chosen == "digits" else [f"metrics={chosen}"]
    for key, value in cfg.metrics.extractor.items():
        if key == "weights":
            words.append(("metrics.extractor.weights", Path(value).expanduser().absolute()))
        elif any(Override(word).key == f"metrics.extractor.{key}" for word in HydraConfig.get().overrides.task):
            words.append(f"metrics.extractor.{key}={value}")
    return words


if __name__ == "__main__":
    verb_main("stats", work)
