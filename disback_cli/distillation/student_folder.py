"""The student on disk: a model folder whose config also says how its denoiser makes samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from disback_cli.denoisers.folder import load_model, resolve_folder, save_model
from disback_cli.denoisers.protocol import Denoiser
from disback_cli.distillation.students import OneStepStudent
from disback_cli.errors import UserError

KIND = "disback-student"


def save_student(folder: Path, student: OneStepStudent, spec: dict[str, Any], facts: dict[str, Any]) -> None:
    """Export a student: weights, network, settings, and where it came from.

    Args:
        folder: ``<run>/student``.
        student: usually the average.
        spec: of its denoiser.
        facts: teacher, cost, metrics, ...; plain JSON values.
    """
    config = {"kind": KIND, "student": student.settings(), **facts}
    save_model(folder, spec, student.denoiser.state_dict(), config)


def load_student(location: str) -> tuple[OneStepStudent, dict[str, Any]]:
    """Read a student from its folder, or from the run folder that contains it as ``student``.

    Raises:
        UserError: there is none, it is damaged, or it is another kind of model.
    """
    place = resolve_folder(location)
    if not (place / "config.json").is_file() and (place / "student").is_dir():
        place = place / "student"
    if not (place / "config.json").is_file():
        raise UserError(
            f"no student in {location}: neither config.json nor student/config.json is there. A finished "
            "`disback backtrack` leaves one; `disback backtrack resume=auto` finishes an interrupted run."
        )
    denoiser, config = load_model(str(place))
    settings = config.get("student")
    if config.get("kind") != KIND or not isinstance(settings, dict) or settings.get("kind") != "one_step":
        raise UserError(
            f"{place} is a model folder, but not of a one-step student; use teacher=folder teacher.folder={place}"
        )
    assert isinstance(denoiser, Denoiser)
    student = OneStepStudent(denoiser, sigma_init=float(settings["sigma_init"]))
    return student.requires_grad_(False).eval(), config
