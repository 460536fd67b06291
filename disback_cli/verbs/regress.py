"""`disback regress`: a student from plain regression on its teacher's pairs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from disback_cli.configuration.arguments import Override
from disback_cli.configuration.entry import verb_main

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from disback_cli.denoisers.teachers import Teacher
    from disback_cli.distillation.pairs import Pairs
    from disback_cli.distillation.regressing import Regressing
    from disback_cli.evaluation.callback import Evaluation
    from disback_cli.runtime.session import Session


def work(cfg: DictConfig) -> None:
    """Compose, train, report."""
    from disback_cli.runtime.callbacks import Telemetry
    from disback_cli.runtime.session import open_session
    from disback_cli.verbs.common import build_teacher, open_pairs
    from disback_cli.verbs.student_report import build_evaluation

    with open_session(cfg, "regress") as session:
        teacher = build_teacher(cfg)
        pairs = open_pairs(cfg, teacher, "`disback regress` trains on pairs")
        stage = _build_stage(cfg, session, teacher, pairs)
        telemetry = Telemetry(cfg.log_every)
        average: Any = stage.ema.network
        evaluation = build_evaluation(cfg, session, teacher, average, telemetry)
        session.run(stage, telemetry, [evaluation], frozenset())
        if session.main:
            _finish(session, cfg, teacher, stage, evaluation)


def _build_stage(cfg: DictConfig, session: Session, teacher: Teacher, pairs: Pairs) -> Regressing:
    from hydra.utils import instantiate

    from disback_cli.distillation.costs import measure_costs
    from disback_cli.distillation.regressing import Regressing
    from disback_cli.verbs.common import stage_settings

    student = instantiate(cfg.student, teacher)
    return Regressing(
        student=student,
        pairs=pairs,
        distance=instantiate(cfg.distance),
        costs=measure_costs(teacher.denoiser, student, teacher.denoiser),
        ema_halflife=cfg.ema.halflife,
        ema_rampup=cfg.ema.rampup,
        **stage_settings(cfg, session.launch, {"student": cfg.lr.student}),
    )


def _finish(session: Session, cfg: DictConfig, teacher: Teacher, stage: Regressing, evaluation: Evaluation) -> None:
    """Export the student, draw the report, write the summary, say where everything is and what to type next."""
    from hydra.core.hydra_config import HydraConfig

    from disback_cli.distillation.student_folder import save_student
    from disback_cli.reporting.curves import draw_curves
    from disback_cli.runtime.session import shown_path
    from disback_cli.verbs.common import plain
    from disback_cli.verbs.student_report import draw_grid, rows, tell

    made = stage.pairs.facts["cost"]
    cost = {
        "images": stage.images_seen,
        "network_passes": stage.network_passes,
        "network_passes_with_pairs": stage.network_passes + made["network_passes"],
        "seconds": round(stage.seconds, 1),
        "pairs_seconds": made["seconds"],
    }
    metrics = dict(evaluation.latest.metrics) if evaluation.latest else {}
    facts: dict[str, Any] = {
        "teacher": teacher.identity(),
        # the name alone: this goes along with a published student, where the place means nothing
        "pairs": {"name": stage.pairs.folder.name, "n": len(stage.pairs)},
        "training": {
            "method": "regression on the teacher's pairs",
            "distance": plain(cfg.distance),
            "batch_size": cfg.batch_size,
            "iterations": cfg.iterations,
            "lr": plain(cfg.lr),
            "optimizer": plain(cfg.optimizer),
            "ema": plain(cfg.ema),
            "seed": cfg.seed,
        },
        "cost": cost,
        "metrics": metrics,
        "measured_with": evaluation.suite.provenance() if evaluation.suite else None,
    }
    average: Any = stage.ema.network
    save_student(session.folder / "student", average, teacher, facts)
    others = evaluation.others
    draw_curves(
        session.folder / "metrics.csv", session.folder / "curves.png",
        teacher=others["teacher"].metrics if "teacher" in others else None,
    )  # fmt: skip
    draw_grid(cfg, session, teacher, average, "regressed", with_teacher=evaluation.suite is not None)
    measured = rows(teacher, average, evaluation, "regressed")
    session.write_summary({**facts, "pairs": str(stage.pairs.folder), "generators": measured})
    tell(session, evaluation, measured)
    words = [word for word in HydraConfig.get().overrides.task if _is_of_student(Override(word).key)]
    folder = shown_path(session.folder)
    print(f"next:     {' '.join(['disback record', *words, f'student.weights={folder}'])}")
    print(f"          disback sample student={folder} n=64")


def _is_of_student(key: str) -> bool:
    """Whether whoever starts from this student must say the same."""
    return key.split(".", 1)[0] in ("teacher", "student") and key != "student.weights"


if __name__ == "__main__":
    verb_main("regress", work)
