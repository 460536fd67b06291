"""`disback record`: stage 1, from a teacher to a degradation path on disk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from disback_cli.configuration.entry import verb_main

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from disback_cli.denoisers.teachers import Teacher
    from disback_cli.distillation.diagnostics import TeacherProbe
    from disback_cli.distillation.path import Node
    from disback_cli.distillation.path_recorder import PathRecorder
    from disback_cli.distillation.recording import Recording
    from disback_cli.runtime.session import Session


def work(cfg: DictConfig) -> None:
    """Compose, record, say where the path is."""
    from hydra.utils import instantiate

    from disback_cli.distillation.costs import measure_costs
    from disback_cli.distillation.diagnostics import TeacherProbe
    from disback_cli.distillation.path_recorder import PathRecorder
    from disback_cli.distillation.recording import Recording
    from disback_cli.runtime.callbacks import Telemetry
    from disback_cli.runtime.session import open_session
    from disback_cli.verbs.common import build_teacher, stage_settings
    from disback_cli.verbs.path_facts import student_facts

    with open_session(cfg, "record") as session:
        teacher = build_teacher(cfg)
        student, fake = instantiate(cfg.student, teacher), instantiate(cfg.fake, teacher)
        start = student_facts(student)
        stage = Recording(
            student=student,
            fake=fake,
            costs=measure_costs(teacher.denoiser, student, fake),
            law=instantiate(cfg.noise.fake),
            weighting=instantiate(cfg.noise.fake_weighting),
            **stage_settings(cfg, session.launch, {"fake": cfg.lr.fake}),
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
        telemetry = Telemetry(cfg.log_every)
        probe = TeacherProbe(
            teacher,
            law=stage.law,
            samples=cfg.probe_samples,
            telemetry=telemetry,
            at_log_points=True,
            at_once=session.launch.max_batch,
        )
        session.run(stage, telemetry, [recorder, probe], recorder.steps)
        if session.main:
            _finish(session, cfg, teacher, stage, recorder, probe, start)


def _finish(
    session: Session,
    cfg: DictConfig,
    teacher: Teacher,
    stage: Recording,
    recorder: PathRecorder,
    probe: TeacherProbe,
    start: dict[str, Any],
) -> None:
    from hydra.utils import instantiate

    from disback_cli.distillation.adapters import settings_of
    from disback_cli.distillation.fake_scores import node_weights
    from disback_cli.distillation.student_folder import save_student
    from disback_cli.evaluation.measure import collect, student_sampler
    from disback_cli.reporting.curves import draw_curves
    from disback_cli.reporting.pictures import save_samples
    from disback_cli.verbs.common import evaluation_noise, plain
    from disback_cli.verbs.generators import decoded
    from disback_cli.verbs.path_facts import path_facts

    cost = {
        "images": stage.images_seen,
        "network_passes": stage.network_passes + recorder.probe_passes(stage),
        "probe_passes": probe.passes,
        "seconds": round(stage.seconds, 1),
    }
    adapter = settings_of(stage.fake)
    nodes = recorder.finish(
        node_weights(instantiate(cfg.fake, teacher)),  # node 0: a fresh fake score is the teacher
        cfg.batch_size,
        {
            **path_facts(cfg, teacher),
            "student": start,
            **({} if adapter is None else {"adapter": adapter.document()}),
            "objective": "denoising score matching on the untrained student's samples",
            "recording": {
                "iterations": cfg.iterations, "batch_size": cfg.batch_size, "seed": cfg.seed, "spacing": cfg.spacing,
                "lr": plain(cfg.lr),
            },
            "teacher_loss_ratio": probe.ratio,
            "cost": cost,
        },
    )  # fmt: skip
    save_student(session.folder / "untrained_student", stage.student, teacher, {})
    sampler = student_sampler(stage.student, evaluation_noise(teacher, stage.device))
    images = collect(decoded(sampler, teacher.decoder, stage.device), 64)
    save_samples(session.folder / "samples" / "untrained_student.png", images)
    draw_curves(session.folder / "metrics.csv", session.folder / "curves.png")
    metrics = {"nodes": len(nodes) - 1, "mismatch": nodes[-1].mismatch, "teacher_loss_ratio": probe.ratio}
    session.write_summary(
        {"teacher": teacher.name, "metrics": metrics, "cost": cost, "path": str(recorder.path_folder)}
    )
    _tell(session, nodes, probe)


def _tell(session: Session, nodes: list[Node], probe: TeacherProbe) -> None:
    from disback_cli.reporting.table import table
    from disback_cli.runtime.session import shown_path

    rows = [(f"{n.index}{' (teacher)' if n.index == 0 else ''}", n.iteration, n.images, n.mismatch) for n in nodes]
    print(f"\n{table(('node', 'iteration', 'images', 'mismatch to the teacher'), rows)}\n")
    print(f"teacher's loss on the untrained student's samples, its own counting 1: {probe.ratio:.4g}\n")
    print(f"path:  {shown_path(session.folder)}/path")
    print(f"next:  disback backtrack path={shown_path(session.folder)}")


if __name__ == "__main__":
    verb_main("record", work)
