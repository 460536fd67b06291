"""`disback evaluate`: measure a student or a teacher."""

from __future__ import annotations

from typing import TYPE_CHECKING

from disback_cli.configuration.entry import verb_main

if TYPE_CHECKING:
    from omegaconf import DictConfig


def work(cfg: DictConfig) -> None:
    """Compose, measure, print the table."""
    from hydra.utils import instantiate

    from disback_cli.errors import UserError
    from disback_cli.evaluation.measure import measure
    from disback_cli.files import write_json
    from disback_cli.reporting.pictures import save_samples
    from disback_cli.reporting.table import table
    from disback_cli.runtime.session import SUMMARY_FILE, shown_path
    from disback_cli.verbs.common import build_suite, one_shot
    from disback_cli.verbs.generators import build_generator

    launch = instantiate(cfg.trainer)
    with one_shot(cfg, "evaluate", None) as folder:
        generator = build_generator(cfg, launch.device)
        suite = build_suite(cfg, generator.shape)
        if suite is None:
            raise UserError("metrics=none measures nothing; choose metrics=digits, points or inception")
        measured = measure(generator.sampler, suite.to(launch.device), cfg.metrics.batch_size, "measuring")
        save_samples(folder / "grid.png", generator.sampler(0, min(64, suite.n)))
        summary = {
            "verb": "evaluate",
            "generator": generator.facts,
            "evaluations_per_image": generator.evaluations,
            "images_per_second": measured.samples_per_second,
            "metrics": measured.metrics,
            "measured_with": {**suite.provenance(), "seed": cfg.seed},
        }
        write_json(folder / SUMMARY_FILE, summary)
        heads = [*measured.metrics, "evaluations per image", "images per second"]
        numbers = [*measured.metrics.values(), generator.evaluations, measured.samples_per_second]
        print(f"\n{table(['generator', *heads], [[generator.name, *numbers]])}\n")
        facts = suite.provenance()
        weights = str(facts["extractor_sha256"])[:12]
        print(f"n = {suite.n}, features {facts['extractor']} ({weights}), resize {facts['resize']},")
        print(f"reference {facts['reference_dataset']} {facts['reference_split']}, {facts['reference_n']} samples")
        print(f"numbers: {shown_path(folder)}/{SUMMARY_FILE}")


if __name__ == "__main__":
    verb_main("evaluate", work)
