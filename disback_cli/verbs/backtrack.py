"""`disback backtrack`: stage 2, from a degradation path to a one-step student."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from disback_cli.configuration.entry import verb_main

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from disback_cli.denoisers.teachers import Teacher
    from disback_cli.distillation.backtracking import Backtracking
    from disback_cli.distillation.diagnostics import TeacherProbe
    from disback_cli.distillation.path import DegradationPath
    from disback_cli.distillation.students import Student
    from disback_cli.evaluation.callback import Evaluation
    from disback_cli.runtime.session import Session

log = logging.getLogger("disback_cli.verbs.backtrack")


def work(cfg: DictConfig) -> None:
    """Compose, distil, report."""
    from hydra.utils import instantiate

    from disback_cli.distillation.diagnostics import TeacherProbe
    from disback_cli.runtime.callbacks import Telemetry
    from disback_cli.runtime.session import open_session
    from disback_cli.verbs.backtrack_stage import build_stage, open_path
    from disback_cli.verbs.common import build_teacher
    from disback_cli.verbs.student_report import build_evaluation

    with open_session(cfg, "backtrack") as session:
        teacher = build_teacher(cfg)
        schedule, objective = instantiate(cfg.schedule), instantiate(cfg.objective)
        path = open_path(cfg, teacher, schedule)
        stage = build_stage(cfg, session, teacher, schedule, objective, path)
        telemetry = Telemetry(cfg.log_every, cfg.collapse_below)
        evaluation = build_evaluation(cfg, session, teacher, stage.ema.network, telemetry)  # type: ignore[arg-type]
        probe = TeacherProbe(
            teacher,
            law=stage.fake_law,
            samples=cfg.probe_samples,
            telemetry=telemetry,
            every=cfg.evaluate.every,
            at_once=session.launch.max_batch,
        )
        session.run(stage, telemetry, [evaluation, probe], frozenset())
        if session.main:
            _finish(session, cfg, teacher, stage, path, evaluation, probe)


def _finish(
    session: Session,
    cfg: DictConfig,
    teacher: Teacher,
    stage: Backtracking,
    path: DegradationPath | None,
    evaluation: Evaluation,
    probe: TeacherProbe,
) -> None:
    """Export the student, draw the report, write the summary, say where everything is."""
    from disback_cli.distillation.student_folder import save_student
    from disback_cli.reporting.curves import draw_curves
    from disback_cli.runtime.session import shown_path
    from disback_cli.verbs.student_report import draw_grid, rows, tell

    facts = _facts(cfg, teacher, stage, path, evaluation, probe)
    average: Student = stage.ema.network  # type: ignore[assignment]
    save_student(session.folder / "student", average, teacher, facts)
    teacher_metrics = evaluation.others["teacher"].metrics if "teacher" in evaluation.others else None
    draw_curves(session.folder / "metrics.csv", session.folder / "curves.png", stage.switches[1:], teacher_metrics)
    draw_grid(cfg, session, teacher, average, "distilled", with_teacher=evaluation.suite is not None)
    measured = rows(teacher, stage.student, evaluation, "distilled")
    session.write_summary(
        {
            **facts,
            "path": str(path.folder) if path else None,
            "teacher_metrics": teacher_metrics,
            "generators": measured,
        }
    )
    tell(session, evaluation, measured)
    print(f"next:     disback sample student={shown_path(session.folder)} n=64")


def _facts(
    cfg: DictConfig,
    teacher: Teacher,
    stage: Backtracking,
    path: DegradationPath | None,
    evaluation: Evaluation,
    probe: TeacherProbe,
) -> dict[str, Any]:
    """What the run was, what it cost and what came out; plain JSON values that may go along with the student."""
    from disback_cli.verbs.common import plain

    recorded = path.facts["cost"] if path else {"network_passes": 0, "seconds": 0}
    cost = {
        "images": stage.images_seen,
        "network_passes": stage.network_passes,
        "network_passes_with_recording": stage.network_passes + recorded["network_passes"],
        "probe_passes": probe.passes,
        "seconds": round(stage.seconds, 1),
        "recording_seconds": recorded["seconds"],
    }
    if stage.pairs is not None:
        cost["pairs_passes"] = stage.pairs.facts["cost"]["network_passes"]
    return {
        "teacher": teacher.identity(),
        "objective": plain(cfg.objective),
        "schedule": plain(cfg.schedule),
        # the recording's name: this goes along with a published student, where its place means nothing
        "path": _name_of_recording(path) if path else None,
        "training": {
            "batch_size": cfg.batch_size,
            "iterations": cfg.iterations,
            "lr": plain(cfg.lr),
            # without a law of its own the generator step uses the fake score's
            "noise": {
                **plain(cfg.noise),
                "generator": plain(cfg.noise.get("generator") or cfg.noise.fake),
            },
            "optimizer": plain(cfg.optimizer),
            "ema": plain(cfg.ema),
            "share_draw": cfg.share_draw,
            "fake_updates": stage.updates,
            "fake_samples": cfg.fake_samples,
            "fake": plain(cfg.fake),
            "seed": cfg.seed,
        },
        **_rerecordings(stage),
        "targets": [{"iteration": iteration, "node": node} for iteration, node in stage.switches],
        "cost": cost,
        "metrics": dict(evaluation.latest.metrics) if evaluation.latest else {},
        "measured_with": evaluation.suite.provenance() if evaluation.suite else None,
    }


def _rerecordings(stage: Backtracking) -> dict[str, Any]:
    """The paths recorded on the way, their cost part of the stage's; nothing without any."""
    if stage.rerecorder is None:
        return {}
    made = [
        {
            "iteration": recording.iteration,
            "path": stage.rerecorder.folder(recording.iteration).name,
            "network_passes": recording.network_passes,
            "seconds": round(recording.seconds, 1),
        }
        for recording in stage.rerecorder.done
    ]
    return {"rerecordings": made}


def _name_of_recording(path: DegradationPath) -> str:
    """Name of the run that recorded a path, or of the path's folder where that was copied alone."""
    folder = path.folder.resolve()
    return folder.parent.name if folder.name == "path" else folder.name


if __name__ == "__main__":
    verb_main("backtrack", work)
