"""`disback record`: stage 1, from a teacher to a degradation path on disk."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING

from disback_cli.configuration.entry import verb_main

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from disback_cli.denoisers.teachers import Teacher
    from disback_cli.distillation.path import Node
    from disback_cli.distillation.path_recorder import PathRecorder
    from disback_cli.distillation.recording import Recording
    from disback_cli.runtime.session import Session


def work(cfg: DictConfig) -> None:
    """Compose, record, say where the path is."""
    from hydra.utils import instantiate

    from disback_cli.distillation.path_recorder import PathRecorder
    from disback_cli.distillation.recording import Recording
    from disback_cli.runtime.callbacks import Telemetry
    from disback_cli.runtime.session import open_session
    from disback_cli.verbs.common import build_teacher

    with open_session(cfg, "record") as session:
        teacher = build_teacher(cfg)
        stage = Recording(
            student=instantiate(cfg.student, teacher.copy()),
            fake=teacher.copy(),
            law=instantiate(cfg.noise.fake),
            batch_size=cfg.batch_size,
            iterations=cfg.iterations,
            seed=cfg.seed,
            optimizer=instantiate(cfg.optimizer),
            lr={"fake": cfg.lr.fake},
            lr_schedule=cfg.lr.schedule,
            lr_warmup=cfg.lr.warmup,
            passes=session.launch.passes(cfg.batch_size),
        )
        recorder = PathRecorder(
            run_dir=session.folder,
            teacher=teacher.denoiser,
            nodes=cfg.nodes,
            spacing=cfg.spacing,
            iterations=cfg.iterations,
            probe_samples=cfg.probe_samples,
            at_once=session.launch.max_batch,
        )
        session.run(stage, Telemetry(cfg.log_every), [recorder], recorder.steps)
        if session.main:
            _finish(session, cfg, teacher, stage, recorder)


def _finish(session: Session, cfg: DictConfig, teacher: Teacher, stage: Recording, recorder: PathRecorder) -> None:
    from datetime import datetime

    from hydra.core.hydra_config import HydraConfig

    from disback_cli.configuration.arguments import places
    from disback_cli.distillation.student_folder import save_student
    from disback_cli.evaluation.measure import collect, one_step_sampler
    from disback_cli.reporting.curves import draw_curves
    from disback_cli.reporting.pictures import save_samples
    from disback_cli.verbs.common import evaluation_noise, plain
    from disback_cli.verbs.generators import decoded

    cost = {
        "images": stage.images_seen,
        "network_passes": stage.images_seen * stage.passes_per_sample + recorder.probe_passes,
        "seconds": round(stage.seconds, 1),
    }
    hydra = HydraConfig.get()
    choices = hydra.runtime.choices
    nodes = recorder.finish(
        teacher.denoiser.state_dict(),
        cfg.batch_size,
        {
            "created": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "teacher": {**teacher.identity(), "denoiser": teacher.spec},
            "teacher_choice": choices["teacher"],
            "choices": {group: choices.get(group) for group in ("teacher", "student", "noise/fake")},
            "student": stage.student.settings(),
            "noise": plain(cfg.noise),
            "objective": "denoising score matching on the untrained student's samples",
            "recording": {
                "iterations": cfg.iterations, "batch_size": cfg.batch_size, "seed": cfg.seed, "spacing": cfg.spacing,
                "lr": plain(cfg.lr),
            },
            "cost": cost,
            "overrides": list(hydra.overrides.task),
            "places": places({"teacher": session.config["teacher"]}),
        },
    )  # fmt: skip
    save_student(session.folder / "untrained_student", stage.student, teacher, {})
    sampler = one_step_sampler(stage.student, evaluation_noise(teacher, stage.device))
    images = collect(decoded(sampler, teacher.decoder, stage.device), 64)
    save_samples(session.folder / "samples" / "untrained_student.png", images)
    draw_curves(session.folder / "metrics.csv", session.folder / "curves.png")
    metrics = {"nodes": len(nodes) - 1, "mismatch": nodes[-1].mismatch}
    session.write_summary(
        {"teacher": teacher.name, "metrics": metrics, "cost": cost, "path": str(recorder.path_folder)}
    )
    _tell(session, nodes)


def _tell(session: Session, nodes: list[Node]) -> None:
    from disback_cli.reporting.table import table
    from disback_cli.runtime.session import shown_path

    rows = [(f"{n.index}{' (teacher)' if n.index == 0 else ''}", n.iteration, n.images, n.mismatch) for n in nodes]
    print(f"\n{table(('node', 'iteration', 'images', 'mismatch to the teacher'), rows)}\n")
    print(f"path:  {shown_path(session.folder)}/path")
    print(f"next:  disback backtrack path={shown_path(session.folder)}")


if __name__ == "__main__":
    verb_main("record", work)
