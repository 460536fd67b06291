"""What the manifest of a path says besides its nodes, alike for every verb that makes one."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from disback_cli.configuration.arguments import places, with_absolute_places
from disback_cli.denoisers.teachers import Teacher
from disback_cli.distillation.students import Student, fingerprint
from disback_cli.verbs.common import plain

# what a distillation along the path takes over
_SHARED_GROUPS = ("teacher", "student", "noise/fake", "noise/fake_weighting", "fake")


def path_facts(cfg: DictConfig, teacher: Teacher) -> dict[str, Any]:
    """Teacher, options and places; plain JSON values.

    The student, how the path came about and what it cost are for the caller to add: see :func:`student_facts`, and the
    keys ``objective``, ``recording``, ``cost``.
    """
    hydra = HydraConfig.get()
    choices = hydra.runtime.choices
    return {
        "created": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "teacher": {**teacher.identity(), "denoiser": teacher.spec},
        "teacher_choice": choices["teacher"],
        "choices": {group: choices.get(group) for group in _SHARED_GROUPS},
        "noise": plain(cfg.noise),
        "overrides": list(hydra.overrides.task),
        "places": places(with_absolute_places({"teacher": plain(cfg.teacher)})),
    }


def student_facts(student: Student) -> dict[str, Any]:
    """Which student the last node fits: its settings, and the hash of its weights as they are now."""
    return {**student.settings(), "sha256": fingerprint(student)}
