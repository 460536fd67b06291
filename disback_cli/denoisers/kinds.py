"""What a model folder's ``config.json`` says the model is, in its entry ``kind``."""

from __future__ import annotations

TEACHER = "disback-teacher"
STUDENT = "disback-student"
DECODER = "disback-decoder"
