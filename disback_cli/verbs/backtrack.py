"""`disback backtrack`: stage 2, from a degradation path to a one-step student."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from disback_cli.configuration.entry import verb_main

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from disback_cli.denoisers.teachers import Teacher
    from disback_cli.distillation.backtracking import Backtracking
    from disback_cli.distillation.path import DegradationPath
    from disback_cli.distillation.schedules import Schedule
    from disback_cli.evaluation.callback import Evaluation
    from disback_cli.runtime.callbacks import Telemetry
    from disback_cli.runtime.session import Session

log = logging.getLogger("disback_cli.verbs.backtrack")


def work(cfg: DictConfig) -> None:
    """Compose, distil, report."""
    from hydra.utils import instantiate

    from disback_cli.runtime.callbacks import Telemetry
    from disback_cli.runtime.session import open_session
    from disback_cli.verbs.common import build_teacher

    with open_session(cfg, "backtrack") as session:
        teacher = build_teacher(cfg)
        schedule = instantiate(cfg.schedule)
        path = _open_path(cfg, teacher, schedule)
        stage = _build_stage(cfg, session, teacher, schedule, path)
        telemetry = Telemetry(cfg.log_every, cfg.collapse_below)
        evaluation = _build_evaluation(cfg, session, teacher, stage, telemetry)
        session.run(stage, telemetry, [evaluation], frozenset())
        if session.main:
            _finish(session, cfg, teacher, stage, path, evaluation)


def _open_path(cfg: DictConfig, teacher: Teacher, schedule: Schedule) -> DegradationPath | None:
    """The verified path, or None for a schedule that needs none; everything that cannot work is found here."""
    from disback_cli.distillation.path import DegradationPath
    from disback_cli.errors import UserError

    if not schedule.needs_path:
        return None
    if cfg.path is None:
        raise UserError(
            f"no path has been recorded for teacher={teacher.name} yet: type `disback record teacher={teacher.name}` "
            "first, give path=RUN, or take schedule=endpoint, which needs none"
        )
    path = DegradationPath(cfg.path)
    path.require_teacher(teacher.name, teacher.hash, teacher.spec)
    reached = schedule.teacher_from(path.last)
    if reached >= cfg.iterations:
        raise UserError(
            f"the teacher would become the target at iteration {reached} of {cfg.iterations} only: "
            f"the path has {path.last} nodes. Raise iterations, or lower schedule.interval (schedule.max_interval)"
        )
    recorded, wanted = path.facts["student"], teacher.denoiser.nearest_sigma(float(cfg.student.sigma_init))
    if recorded["sigma_init"] != wanted:
        log.warning(
            "the path was recorded for a student with sigma_init=%g, this one has %g: node %d does not fit it",
            recorded["sigma_init"], wanted, path.last,
        )  # fmt: skip
    return path


def _build_stage(
    cfg: DictConfig, session: Session, teacher: Teacher, schedule: Schedule, path: DegradationPath | None
) -> Backtracking:
    from hydra.utils import instantiate

    from disback_cli.distillation.backtracking import Backtracking
    from disback_cli.errors import UserError

    # Without a law of its own the generator step uses the fake score's, as Diff-Instruct does.
    generator_law = cfg.noise.get("generator") or cfg.noise.fake
    if cfg.share_draw and generator_law != cfg.noise.fake:
        raise UserError(
            "share_draw=true takes one noise level for both losses, but noise.generator and noise.fake are different "
            "laws; give noise/generator and noise/fake the same option, or share_draw=false"
        )
    teacher_weights = {name: tensor.clone() for name, tensor in teacher.denoiser.state_dict().items()}
    last = path.last if path else 0
    fake = teacher.copy()
    node_weights = path.weights if path else lambda _: teacher_weights
    fake.load_state_dict(node_weights(schedule.first_fake(last)), strict=True)
    return Backtracking(
        student=instantiate(cfg.student, teacher.copy()),
        fake=fake,
        target=teacher.copy(),
        node_weights=node_weights,
        last=last,
        schedule=schedule,
        objective=instantiate(cfg.objective),
        generator_law=instantiate(generator_law),
        fake_law=instantiate(cfg.noise.fake),
        ema_halflife=cfg.ema.halflife,
        ema_rampup=cfg.ema.rampup,
        share_draw=cfg.share_draw,
        batch_size=cfg.batch_size,
        iterations=cfg.iterations,
        seed=cfg.seed,
        optimizer=instantiate(cfg.optimizer),
        lr={"student": cfg.lr.student, "fake": cfg.lr.fake},
        lr_schedule=cfg.lr.schedule,
        lr_warmup=cfg.lr.warmup,
        passes=session.launch.passes(cfg.batch_size),
    )


def _build_evaluation(
    cfg: DictConfig, session: Session, teacher: Teacher, stage: Backtracking, telemetry: Telemetry
) -> Evaluation:
    from disback_cli.evaluation.callback import Evaluation
    from disback_cli.evaluation.measure import heun_sampler, one_step_sampler
    from disback_cli.verbs.common import build_suite, evaluation_noise
    from disback_cli.verbs.generators import decoded, shape_of_images

    suite = build_suite(cfg, shape_of_images(teacher.denoiser.shape, teacher.decoder))
    device = session.launch.device
    noise = evaluation_noise(teacher, device)
    compared = {}
    if suite is not None and cfg.metrics.teacher:
        many_steps = heun_sampler(teacher.denoiser.to(device), teacher.sampler, noise)
        compared["teacher"] = decoded(many_steps, teacher.decoder, device)
    return Evaluation(
        decoded(one_step_sampler(stage.ema.network, noise), teacher.decoder, device),
        suite,
        every=cfg.evaluate.every,
        at_start=cfg.evaluate.at_start,
        batch_size=cfg.metrics.batch_size,
        telemetry=telemetry,
        folder=session.folder / "samples",
        compared_with=compared,
    )


def _finish(
    session: Session,
    cfg: DictConfig,
    teacher: Teacher,
    stage: Backtracking,
    path: DegradationPath | None,
    evaluation: Evaluation,
) -> None:
    """Export the student, draw the report, write the summary, say where everything is."""
    from disback_cli.distillation.student_folder import save_student
    from disback_cli.reporting.curves import draw_curves
    from disback_cli.verbs.common import plain

    recorded = path.facts["cost"]["network_passes"] if path else 0
    passes = stage.images_seen * stage.passes_per_sample
    cost = {
        "images": stage.images_seen,
        "network_passes": passes,
        "network_passes_with_recording": passes + recorded,
        "seconds": round(stage.seconds, 1),
    }
    metrics = dict(evaluation.latest.metrics) if evaluation.latest else {}
    facts: dict[str, Any] = {
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
            "noise": {"fake": plain(cfg.noise.fake), "generator": plain(cfg.noise.get("generator") or cfg.noise.fake)},
            "optimizer": plain(cfg.optimizer),
            "ema": plain(cfg.ema),
            "share_draw": cfg.share_draw,
            "seed": cfg.seed,
        },
        "targets": [{"iteration": iteration, "node": node} for iteration, node in stage.switches],
        "cost": cost,
        "metrics": metrics,
        "measured_with": evaluation.suite.provenance() if evaluation.suite else None,
    }
    save_student(session.folder / "student", stage.ema.network, teacher, facts)  # type: ignore[arg-type]
    teacher_metrics = evaluation.others["teacher"].metrics if "teacher" in evaluation.others else None
    draw_curves(session.folder / "metrics.csv", session.folder / "curves.png", stage.switches[1:], teacher_metrics)
    _draw_grid(session, teacher, stage, with_teacher=evaluation.suite is not None)
    session.write_summary(
        {
            **facts,
            "path": str(path.folder) if path else None,
            "teacher_metrics": teacher_metrics,
            "generators": _rows(teacher, stage, evaluation),
        }
    )
    _tell(session, teacher, stage, evaluation)


def _name_of_recording(path: DegradationPath) -> str:
    """Name of the run that recorded a path, or of the path's folder where that was copied alone."""
    folder = path.folder.resolve()
    return folder.parent.name if folder.name == "path" else folder.name


def _draw_grid(session: Session, teacher: Teacher, stage: Backtracking, with_teacher: bool) -> None:
    """Teacher (which takes many evaluations a sample), untrained student and student on the same latents."""
    from disback_cli.evaluation.measure import collect, heun_sampler, one_step_sampler, teacher_evaluations
    from disback_cli.reporting.pictures import picture_of, save_png, side_by_side
    from disback_cli.verbs.common import evaluation_noise
    from disback_cli.verbs.generators import decoded

    count = 64 if len(teacher.denoiser.shape) == 3 else 2048
    noise = evaluation_noise(teacher, stage.device)
    teacher.denoiser.to(stage.device)
    untrained = type(stage.student)(teacher.denoiser, sigma_init=stage.student.sigma_init)
    evaluations = teacher_evaluations(teacher)
    many_steps = heun_sampler(teacher.denoiser, teacher.sampler, noise)
    samplers = {
        **({f"teacher, {evaluations} evaluations": many_steps} if with_teacher else {}),
        "untrained student, 1": one_step_sampler(untrained, noise),
        "distilled student, 1": one_step_sampler(stage.ema.network, noise),
    }
    at_once = 16 if len(teacher.denoiser.shape) == 3 else count
    samples = {
        name: collect(decoded(sampler, teacher.decoder, stage.device), count, at_once)
        for name, sampler in samplers.items()
    }
    extent = None
    if len(teacher.denoiser.shape) == 1:
        extent = 1.3 * float(next(iter(samples.values())).abs().max())
    save_png(session.folder / "grid.png", side_by_side([(k, picture_of(v, extent)) for k, v in samples.items()]))


def _rows(teacher: Teacher, stage: Backtracking, evaluation: Evaluation) -> list[dict[str, Any]]:
    """The generators that were measured: their numbers, what a sample costs, how fast they are."""
    from disback_cli.evaluation.measure import teacher_evaluations

    one = stage.student.network_evaluations
    found = [
        ("teacher", evaluation.others.get("teacher"), teacher_evaluations(teacher)),
        ("untrained student", evaluation.first, one),
        ("distilled student", evaluation.latest, one),
    ]
    return [
        {"generator": name, **m.metrics, "evaluations_per_image": nfe, "images_per_second": m.samples_per_second}
        for name, m, nfe in found
        if m is not None
    ]


def _tell(session: Session, teacher: Teacher, stage: Backtracking, evaluation: Evaluation) -> None:
    from disback_cli.evaluation.comparable import describe_measurement
    from disback_cli.files import write_bytes
    from disback_cli.reporting.table import table
    from disback_cli.runtime.session import shown_path

    rows = _rows(teacher, stage, evaluation)
    folder = shown_path(session.folder)
    if rows:
        columns = [name for name in dict.fromkeys(key for row in rows for key in row) if not name.startswith("is_std")]
        heads = [name.replace("_", " ") if name.endswith(("image", "second")) else name for name in columns]
        text = table(heads, [[row.get(name) for name in columns] for row in rows])
        if evaluation.suite is not None:
            text = f"{text}\n\n{describe_measurement(evaluation.suite.provenance())}"
        write_bytes(session.folder / "table.txt", f"{text}\n".encode())
        print(f"\n{text}\n")
    print(f"student:  {folder}/student")
    print(f"pictures: {folder}/grid.png  {folder}/curves.png")
    print(f"numbers:  {folder}/summary.json  {folder}/metrics.csv")
    print(f"next:     disback sample student={folder} n=64")


if __name__ == "__main__":
    verb_main("backtrack", work)
