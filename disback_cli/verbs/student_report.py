"""What the verbs that train a student measure on the way, and show of it at the end."""

from __future__ import annotations

from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig

from disback_cli.denoisers.teachers import Teacher
from disback_cli.distillation.students import Student
from disback_cli.evaluation.callback import Evaluation
from disback_cli.evaluation.comparable import describe_measurement
from disback_cli.evaluation.measure import collect, heun_sampler, student_sampler, teacher_evaluations
from disback_cli.files import write_bytes
from disback_cli.reporting.pictures import picture_of, save_png, side_by_side
from disback_cli.reporting.table import table
from disback_cli.runtime.callbacks import Telemetry
from disback_cli.runtime.session import Session, shown_path
from disback_cli.verbs.common import build_suite, evaluation_noise
from disback_cli.verbs.generators import decoded, shape_of_images

# half the width of a picture of points, in standard deviations of the data
WIDTH_OF_POINTS = 4.0


def build_evaluation(
    cfg: DictConfig, session: Session, teacher: Teacher, average: Student, telemetry: Telemetry
) -> Evaluation:
    """Measures the student's average, and the teacher once at the end where ``metrics.teacher`` says so.

    Args:
        cfg: with ``evaluate``, ``metrics`` and ``dataset``.
        session: the run.
        teacher: compared with, on the same latents.
        average: the network that is sampled from.
        telemetry: gets the numbers.
    """
    shape = teacher.denoiser.shape
    suite = build_suite(cfg, shape_of_images(shape, teacher.decoder))
    device = session.launch.device
    noise = evaluation_noise(teacher, device)
    compared = {}
    if suite is not None and cfg.metrics.teacher:
        many_steps = heun_sampler(teacher.denoiser.to(device), teacher.sampler, noise)
        compared["teacher"] = decoded(many_steps, teacher.decoder, device)
    return Evaluation(
        decoded(student_sampler(average, noise), teacher.decoder, device),
        suite,
        every=cfg.evaluate.every,
        at_start=cfg.evaluate.at_start,
        batch_size=cfg.metrics.batch_size,
        telemetry=telemetry,
        folder=session.folder / "samples",
        grid=64 if len(shape) == 3 else 2048,
        extent=None if len(shape) == 3 else WIDTH_OF_POINTS * teacher.denoiser.sigma_data,
        compared_with=compared,
    )


def rows(teacher: Teacher, student: Student, evaluation: Evaluation, trained: str) -> list[dict[str, Any]]:
    """The generators that were measured: their numbers, what a sample costs, how fast they are.

    Args:
        teacher: the teacher.
        student: the student.
        evaluation: what was measured.
        trained: what the student is after training: "distilled".
    """
    found = [
        ("teacher", evaluation.others.get("teacher"), teacher_evaluations(teacher)),
        ("untrained student", evaluation.first, student.network_evaluations),
        (f"{trained} student", evaluation.latest, student.network_evaluations),
    ]
    return [
        {"generator": name, **m.metrics, "evaluations_per_image": nfe, "images_per_second": m.samples_per_second}
        for name, m, nfe in found
        if m is not None
    ]


def draw_grid(
    cfg: DictConfig, session: Session, teacher: Teacher, average: Student, trained: str, with_teacher: bool
) -> None:
    """``grid.png``: teacher, untrained and trained student on the same latents.

    Args:
        cfg: with ``student``, from which the untrained one is built again.
        session: the run.
        teacher: the teacher, which takes many evaluations a sample.
        average: the trained student.
        trained: what it is after training: "distilled".
        with_teacher: whether to show the teacher.
    """
    device = session.launch.device
    noise = evaluation_noise(teacher, device)
    untrained = instantiate(cfg.student, teacher).to(device)
    each = untrained.network_evaluations
    teacher.denoiser.to(device)
    many_steps = heun_sampler(teacher.denoiser, teacher.sampler, noise)
    samplers = {
        **({f"teacher, {teacher_evaluations(teacher)} evaluations": many_steps} if with_teacher else {}),
        f"untrained student, {each}": student_sampler(untrained, noise),
        f"{trained} student, {each}": student_sampler(average.to(device), noise),
    }
    images = len(teacher.denoiser.shape) == 3
    count, at_once = (64, 16) if images else (2048, 2048)
    samples = {
        name: collect(decoded(sampler, teacher.decoder, device), count, at_once) for name, sampler in samplers.items()
    }
    extent = None if images else 1.3 * float(next(iter(samples.values())).abs().max())
    save_png(session.folder / "grid.png", side_by_side([(k, picture_of(v, extent)) for k, v in samples.items()]))


def tell(session: Session, evaluation: Evaluation, measured: list[dict[str, Any]]) -> None:
    """Write ``table.txt`` and print it, and say where everything is."""
    folder = shown_path(session.folder)
    if measured:
        columns = [
            name for name in dict.fromkeys(key for row in measured for key in row) if not name.startswith("is_std")
        ]
        heads = [name.replace("_", " ") if name.endswith(("image", "second")) else name for name in columns]
        text = table(heads, [[row.get(name) for name in columns] for row in measured])
        if evaluation.suite is not None:
            text = f"{text}\n\n{describe_measurement(evaluation.suite.provenance())}"
        write_bytes(session.folder / "table.txt", f"{text}\n".encode())
        print(f"\n{text}\n")
    print(f"student:  {folder}/student")
    print(f"pictures: {folder}/grid.png  {folder}/curves.png")
    print(f"numbers:  {folder}/summary.json  {folder}/metrics.csv")
