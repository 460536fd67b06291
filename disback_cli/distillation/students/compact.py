"""The student with another network than the teacher's: narrower, shallower, or of another family."""

from __future__ import annotations

from typing import ClassVar

from disback_cli.distillation.students.one_step import OneStepStudent


class CompactStudent(OneStepStudent):
    """x = D(sigma_init z; sigma_init, c) with a denoiser D of its own, whose weights owe nothing to the teacher's."""

    kind: ClassVar[str] = "compact"
