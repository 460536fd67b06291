"""`disback stats`: the reference statistics of a data set."""

from __future__ import annotations

from typing import TYPE_CHECKING

from disback_cli.configuration.entry import verb_main

if TYPE_CHECKING:
    from pathlib import Path

    from omegaconf import DictConfig

    from disback_cli.evaluation.reference import ReferenceStatistics


def work(cfg: DictConfig) -> None:
    """Compose, compute with all processes, write and print with the first."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.utils import instantiate

    from disback_cli.errors import UserError
    from disback_cli.evaluation.reference import cached
    from disback_cli.runtime.processes import rank_and_world
    from disback_cli.runtime.workers import workers
    from disback_cli.verbs.common import build_extractor, one_shot

    launch = instantiate(cfg.trainer)
    about = str(HydraConfig.get().runtime.choices.get("dataset"))
    with one_shot(cfg, "stats", None, several=True, filed_under=about) as folder:
        if cfg.metrics.get("reference") is not None:
            raise UserError("metrics.reference= is what this verb makes; leave it out")
        extractor = build_extractor(cfg)
        dataset = instantiate(cfg.dataset, _convert_="all")
        if len(dataset.shape) != 3 and extractor.takes_uint8:
            raise UserError(f"{extractor.name} looks at images, {dataset.name} has samples of shape {dataset.shape}")
        features = bool(cfg.metrics.get("kid") or cfg.metrics.get("precision_recall"))
        with workers(launch):
            found = cached(dataset, extractor, batch_size=cfg.metrics.batch_size, features=features)
            if rank_and_world()[0] == 0:
                _report(cfg, folder, found)


def _report(cfg: DictConfig, folder: Path, found: ReferenceStatistics) -> None:
    """Write the statistics and ``summary.json``, and print what they are of."""
    from pathlib import Path

    from disback_cli.files import sha256_of, write_json
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
    print(f"next:       disback evaluate metrics.reference={shown_path(target)}")


if __name__ == "__main__":
    verb_main("stats", work)
