"""What a model folder's ``config.json`` says the model is, in its entry ``kind``."""

from __future__ import annotations

from collections.abc import Mapping

TEACHER = "disback-teacher"
STUDENT = "disback-student"
DECODER = "disback-decoder"

# What students are called, by the ``kind`` in the entry ``student``.
GENERATOR = "generator"
_STUDENTS = {
    "one_step": "one-step student",
    "few_step": "few-step student",
    "compact": "compact one-step student",
    GENERATOR: "generator student",
}


def words_of_student(document: Mapping[str, object]) -> str:
    """What a student's ``config.json`` is about, in words."""
    settings = document.get("student")
    kind = settings.get("kind") if isinstance(settings, Mapping) else None
    return _STUDENTS.get(str(kind), "student")


def is_generator(document: object) -> bool:
    """Whether a ``config.json`` is about a student whose network is no denoiser."""
    settings = document.get("student") if isinstance(document, Mapping) else None
    return isinstance(settings, Mapping) and settings.get("kind") == GENERATOR
