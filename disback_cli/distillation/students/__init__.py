"""Students: the generators that are distilled."""

from __future__ import annotations

from disback_cli.distillation.students.base import (
    StepNoise,
    Student,
    evaluations_of,
    evaluations_of_all_steps,
    fingerprint,
    samples_of_all_steps,
    step_of,
)
from disback_cli.distillation.students.compact import CompactStudent
from disback_cli.distillation.students.few_step import FewStepStudent, checked_levels
from disback_cli.distillation.students.generator import GeneratorStudent
from disback_cli.distillation.students.one_step import OneStepStudent

__all__ = [
    "CompactStudent",
    "FewStepStudent",
    "GeneratorStudent",
    "OneStepStudent",
    "StepNoise",
    "Student",
    "checked_levels",
    "evaluations_of",
    "evaluations_of_all_steps",
    "fingerprint",
    "samples_of_all_steps",
    "step_of",
]
