"""The student on disk: a model folder whose config also says how its denoiser makes samples."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from disback_cli.denoisers.folder import CONFIG_FILE, load_model, resolve_folder, save_decoder, save_model
from disback_cli.denoisers.kinds import STUDENT
from disback_cli.denoisers.protocol import Denoiser
from disback_cli.denoisers.teachers import Teacher
from disback_cli.distillation.students import OneStepStudent
from disback_cli.errors import UserError


def save_student(folder: Path, student: OneStepStudent, teacher: Teacher, facts: dict[str, Any]) -> None:
    """Export a student: weights, network, settings, where it came from, and the decoder of a latent one.

    Args:
        folder: ``<run>/student``.
        student: usually the average.
        teacher: whose network it has.
        facts: cost, metrics, ...; plain JSON values.
    """
    config = {
        "kind": STUDENT,
        "student": student.settings(),
        "teacher": teacher.identity(),
        **facts,
    }
    if teacher.decoder is not None and teacher.decoder_spec is not None:
        save_decoder(folder, teacher.decoder_spec, teacher.decoder)
    save_model(folder, teacher.spec, student.denoiser.state_dict(), config)


def student_place(location: str) -> Path:
    """The student's folder itself, where a run folder that contains it as ``student`` may have been named.

    Raises:
        UserError: there is none.
    """
    place = resolve_folder(location)
    if not (place / "config.json").is_file() and (place / "student").is_dir():
        place = place / "student"
    if not (place / "config.json").is_file():
        raise UserError(
            f"no student in {location}: neither config.json nor student/config.json is there. A finished "
            "`disback backtrack` leaves one; `disback backtrack resume=auto` finishes an interrupted run."
        )
    return place


def sigma_init_of(settings: Mapping[str, Any], denoiser: Denoiser, where: str) -> float:
    """The noise level at which a student is asked, from what its folder says about it.

    Args:
        settings: the ``student`` entry of its config.
        denoiser: its network.
        where: file that holds the config, for messages.

    Raises:
        UserError: there is no number, or one outside the network's noise levels.
    """
    value = settings.get("sigma_init")
    low, high = denoiser.sigma_min, denoiser.sigma_max
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not low <= value <= high:
        said = f"student.sigma_init is {value!r}" if "sigma_init" in settings else "student.sigma_init is missing"
        raise UserError(
            f"{where}: {said}; need one of the network's noise levels, {low:g} to {high:g}: copy or write the student "
            "again"
        )
    return float(value)


def load_student(location: str) -> tuple[OneStepStudent, dict[str, Any]]:
    """Read a student from its folder, or from the run folder that contains it as ``student``.

    Raises:
        UserError: there is none, it is damaged, or it is another kind of model.
    """
    place = student_place(location)
    denoiser, config = load_model(str(place))
    settings = config.get("student")
    if config.get("kind") != STUDENT or not isinstance(settings, dict) or settings.get("kind") != "one_step":
        raise UserError(
            f"{place} is a model folder, but not of a one-step student; use teacher=folder teacher.folder={place}"
        )
    assert isinstance(denoiser, Denoiser)
    student = OneStepStudent(denoiser, sigma_init=sigma_init_of(settings, denoiser, str(place / CONFIG_FILE)))
    return student.requires_grad_(False).eval(), config
