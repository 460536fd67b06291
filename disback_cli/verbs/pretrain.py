"""`disback pretrain`: train a teacher on real data with EDM's loss."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from disback_cli.configuration.entry import verb_main

if TYPE_CHECKING:
    import torch
    from omegaconf import DictConfig

    from disback_cli.distillation.pretraining import Pretraining
    from disback_cli.evaluation.callback import Evaluation
    from disback_cli.runtime.callbacks import Telemetry
    from disback_cli.runtime.session import Session


def work(cfg: DictConfig) -> None:
    """Compose, train, say where the teacher is."""
    from hydra.utils import instantiate

    from disback_cli.denoisers.folder import build
    from disback_cli.distillation.pretraining import Pretraining
    from disback_cli.distillation.snapshots import Snapshots
    from disback_cli.errors import UserError
    from disback_cli.runtime.callbacks import Telemetry
    from disback_cli.runtime.randomness import counter_seed
    from disback_cli.runtime.session import open_session
    from disback_cli.verbs.common import build_dataset, plain, stage_settings

    with open_session(cfg, "pretrain") as session:
        import torch

        if "denoiser" not in cfg.teacher:
            raise UserError(
                f"teacher={cfg.teacher.name} describes no network to train; choose one with teacher.denoiser"
            )
        torch.manual_seed(counter_seed(cfg.seed, "initial weights"))
        spec = plain(cfg.teacher.denoiser)
        denoiser = build(spec, allow=None).trainable_()
        dataset = build_dataset(cfg, denoiser.shape)
        # read here, since hashing a large set takes a while and a run must not fail over it when it is done
        data = {"name": dataset.name, "split": dataset.split, "sha256": dataset.sha256, "n": len(dataset)}
        stage = Pretraining(
            denoiser=denoiser,
            dataset=dataset,
            law=instantiate(cfg.noise.fake),
            weighting=instantiate(cfg.noise.fake_weighting),
            ema_halflife=cfg.ema.halflife,
            ema_rampup=cfg.ema.rampup,
            **stage_settings(cfg, session.launch, {"denoiser": cfg.lr.denoiser}),
        )
        telemetry = Telemetry(cfg.log_every)
        evaluation = _build_evaluation(cfg, session, stage, telemetry)
        snapshots = Snapshots(
            session.folder / "snapshots",
            at=list(cfg.snapshots.at),
            every=cfg.snapshots.every,
            iterations=cfg.iterations,
            spec=spec,
            facts=_origin(cfg, data),
            dtype=_stored_as(cfg),
        )
        session.run(stage, telemetry, [evaluation, snapshots], frozenset())
        if session.main:
            _finish(session, cfg, spec, data, stage, evaluation)


def _build_evaluation(cfg: DictConfig, session: Session, stage: Pretraining, telemetry: Telemetry) -> Evaluation:
    from disback_cli.evaluation.callback import Evaluation
    from disback_cli.evaluation.measure import EvaluationNoise, heun_sampler
    from disback_cli.verbs.common import EVALUATION_SEED, build_suite, plain

    suite = build_suite(cfg, stage.denoiser.shape)
    average: Any = stage.ema.network
    noise = EvaluationNoise(EVALUATION_SEED, average.shape, average.label_dim, session.launch.device)
    return Evaluation(
        heun_sampler(average, plain(cfg.teacher.sampler), noise),
        suite,
        every=cfg.evaluate.every,
        at_start=cfg.evaluate.at_start,
        batch_size=cfg.metrics.batch_size,
        telemetry=telemetry,
        folder=session.folder / "samples",
    )


def _origin(cfg: DictConfig, data: dict[str, Any]) -> dict[str, Any]:
    """What every model folder of this run says of where it comes from."""
    from hydra.core.hydra_config import HydraConfig

    from disback_cli.denoisers.kinds import TEACHER

    return {
        "kind": TEACHER,
        "name": cfg.teacher.name,
        "dataset": data,
        "command": " ".join(["disback", "pretrain", *HydraConfig.get().overrides.task]),
        "batch_size": cfg.batch_size,
    }


def _stored_as(cfg: DictConfig) -> torch.dtype | None:
    import torch

    return {"fp16": torch.float16, "fp32": None}[cfg.save_as]


def _finish(
    session: Session,
    cfg: DictConfig,
    spec: dict[str, Any],
    data: dict[str, Any],
    stage: Pretraining,
    evaluation: Evaluation,
) -> None:
    """Save the average as a model folder with its card, and say how to use it."""
    from disback_cli.denoisers.folder import save_model
    from disback_cli.evaluation.comparable import describe_measurement
    from disback_cli.files import write_bytes
    from disback_cli.reporting.cards import teacher_card
    from disback_cli.reporting.curves import draw_curves
    from disback_cli.runtime.session import shown_path

    metrics = dict(evaluation.latest.metrics) if evaluation.latest else {}
    cost = {
        "images": stage.images_seen,
        "network_passes": stage.images_seen * stage.passes_per_sample,
        "seconds": round(stage.seconds, 1),
    }
    facts: dict[str, Any] = {
        **_origin(cfg, data),
        "iterations": stage.iterations,
        "metrics": metrics,
        "measured_with": evaluation.suite.provenance() if evaluation.suite else None,
        "cost": cost,
    }
    folder = session.folder / "teacher"
    save_model(folder, spec, stage.ema.network.state_dict(), facts, dtype=_stored_as(cfg))
    parameters = sum(p.numel() for p in stage.denoiser.parameters())
    card = teacher_card(facts, parameters, cfg.save_as, dict(cfg.teacher.sampler))
    write_bytes(folder / "README.md", card.encode())
    draw_curves(session.folder / "metrics.csv", session.folder / "curves.png")
    measured_with = facts["measured_with"]
    session.write_summary(
        {"teacher": cfg.teacher.name, "metrics": metrics, "measured_with": measured_with, "cost": cost}
    )
    for name, value in metrics.items():
        print(f"{name}: {value:.4g}")
    if metrics and measured_with is not None:
        print(describe_measurement(measured_with))
    print(f"teacher:  {shown_path(folder)}")
    print(f"next:     disback record teacher=folder teacher.folder={shown_path(folder)}")
    # the state at the end is the teacher itself; a path begins next to it
    newest = f"iteration_{stage.iteration:08d}"
    earlier = [place for place in sorted((session.folder / "snapshots").glob("iteration_*")) if place.name != newest]
    if earlier:
        kept = ",".join(shown_path(place) for place in reversed(earlier))
        print(f"or:       disback assemble teacher=folder teacher.folder={shown_path(folder)} snapshots=[{kept}]")


if __name__ == "__main__":
    verb_main("pretrain", work)
