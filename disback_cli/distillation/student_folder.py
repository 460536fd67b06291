"""The student on disk: a model folder whose config also says how its network makes samples."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeGuard, TypeVar

from torch import nn

from disback_cli.denoisers.folder import CONFIG_FILE, load_model, misfits, resolve_folder, save_decoder, save_model
from disback_cli.denoisers.kinds import STUDENT
from disback_cli.denoisers.protocol import Denoiser
from disback_cli.denoisers.teachers import Teacher
from disback_cli.distillation.students import (
    CompactStudent,
    FewStepStudent,
    GeneratorStudent,
    OneStepStudent,
    Student,
    checked_levels,
)
from disback_cli.errors import UserError

S = TypeVar("S", bound=Student)

KINDS = {kind.kind: kind for kind in (OneStepStudent, FewStepStudent, CompactStudent, GeneratorStudent)}
# Of one sample. A generator's folder may be a stranger's, and latents of the shape that it gives are drawn.
LARGEST_SAMPLE = 2**24


def save_student(folder: Path, student: Student, teacher: Teacher, facts: dict[str, Any]) -> None:
    """Export a student: weights, network, settings, where it came from, and the decoder of a latent one.

    Args:
        folder: ``<run>/student``.
        student: usually the average.
        teacher: whom it was distilled from.
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
    save_model(folder, student.spec or teacher.spec, student.export_weights(), config)


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
            "`disback backtrack` or `disback regress` leaves one; resume=auto finishes an interrupted run."
        )
    return place


def load_student(location: str) -> tuple[Student, dict[str, Any]]:
    """Read a student from its folder, or from the run folder that contains it as ``student``.

    Raises:
        UserError: there is none, it is damaged, or it is another kind of model.
    """
    place = student_place(location)
    network, config = load_model(str(place), kind=nn.Module)
    settings = config.get("student")
    if config.get("kind") != STUDENT or not isinstance(settings, dict):
        raise UserError(f"{place} is a model folder, but not of a student; use teacher=folder teacher.folder={place}")
    student = student_around(network, settings, config["denoiser"], str(place / CONFIG_FILE))
    return student.requires_grad_(False).eval(), config


def student_around(network: nn.Module, settings: Mapping[str, Any], spec: Mapping[str, Any], where: str) -> Student:
    """The student that a folder describes, around its network.

    Args:
        network: with its weights, or on the meta device, where nothing is computed.
        settings: the ``student`` entry of its config.
        spec: the network's description.
        where: file that holds the config, for messages.

    Raises:
        UserError: the settings are of no student known here, or do not fit the network.
    """
    kind = settings.get("kind")
    if kind not in KINDS:
        raise UserError(
            f"{where}: student.kind is {kind!r}; known here are {', '.join(KINDS)}. A later version may have written it"
        )
    if kind == GeneratorStudent.kind:
        shape, label_dim = _samples_of(settings, where)
        return GeneratorStudent(network, shape=shape, label_dim=label_dim, spec=spec)
    if not isinstance(network, Denoiser):
        raise UserError(f"{where}: a {kind} student is made of a denoiser, not of a {type(network).__name__}")
    if kind == FewStepStudent.kind:
        return FewStepStudent(network, sigmas=sigmas_of(settings, network, where), spec=spec)
    level = sigma_init_of(settings, network, where)
    made = CompactStudent if kind == CompactStudent.kind else OneStepStudent
    return made(network, sigma_init=level, spec=spec)


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
    if not _is_number(value) or not low <= value <= high:
        said = f"student.sigma_init is {value!r}" if "sigma_init" in settings else "student.sigma_init is missing"
        raise UserError(
            f"{where}: {said}; need one of the network's noise levels, {low:g} to {high:g}: copy or write the student "
            "again"
        )
    return float(value)


def sigmas_of(settings: Mapping[str, Any], denoiser: Denoiser, where: str) -> list[float]:
    """The noise levels of a few-step student, likewise.

    Raises:
        UserError: they are no list of numbers, do not fall, or are outside the network's noise levels.
    """
    levels = settings.get("sigmas")
    if not isinstance(levels, list) or not all(_is_number(level) for level in levels):
        raise UserError(f"{where}: student.sigmas is {levels!r}; need a list of noise levels: write the student again")
    try:
        checked_levels(levels, denoiser)
    except ValueError as error:
        raise UserError(f"{where}: {error}") from error
    return [float(level) for level in levels]


def _samples_of(settings: Mapping[str, Any], where: str) -> tuple[tuple[int, ...], int]:
    """Shape of a generator's samples and its number of classes."""
    shape, label_dim = settings.get("shape"), settings.get("label_dim")
    sizes = shape if isinstance(shape, list) else []
    whole = len(sizes) in (1, 3) and all(type(size) is int and size > 0 for size in sizes)
    if not whole or math.prod(sizes) > LARGEST_SAMPLE:
        raise UserError(
            f"{where}: student.shape is {shape!r}; need (C, H, W) or (d,) with at most {LARGEST_SAMPLE:,} numbers: "
            "write the student again"
        )
    if type(label_dim) is not int or not 0 <= label_dim <= LARGEST_SAMPLE:
        raise UserError(f"{where}: student.label_dim is {label_dim!r}; need a number of classes, 0 for none")
    return tuple(sizes), label_dim


def _is_number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def started_from(student: S, location: str | None) -> S:
    """The student with the weights of another one of its kind, in place; the student as it is for None.

    Args:
        student: as its factory built it, with plain weights.
        location: a student's folder, or a run that holds one.

    Raises:
        UserError: there is none, or it is another kind of student, around another network, or used at other levels.
    """
    if location is None:
        return student
    said = f"student.weights={location}"
    try:
        other, _ = load_student(location)
    except UserError as error:
        raise UserError(f"{said}: {error}") from error
    if other.kind != student.kind:
        raise UserError(
            f"{said} is a student of kind {other.kind}, this one is {student.kind}; type student={other.kind}"
        )
    for name, wanted in student.settings().items():
        found = other.settings()[name]
        if found != wanted:
            value = f"[{','.join(map(str, found))}]" if isinstance(found, list) else found
            mend = "take the student of a run of this teacher" if name in ("shape", "label_dim") else None
            raise UserError(
                f"{said} was made with {name}={found}, this student has {name}={wanted}; "
                f"{mend or f'type student.{name}={value}'}"
            )
    weights = other.denoiser.state_dict()
    problems = misfits(student.denoiser.state_dict(), weights)
    if problems:
        raise UserError(
            f"{said} is around another network than this student's: {problems}. Give this student that network, or "
            "start from null"
        )
    student.denoiser.load_state_dict(weights, strict=True)
    return student
