"""Students that are copies of their teachers, saved as `disback backtrack` saves them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from disback_cli.denoisers.teachers import Teacher
from disback_cli.distillation.student_folder import save_student
from disback_cli.distillation.students import OneStepStudent, Student

FACTS: dict[str, Any] = {
    "objective": {"_target_": "disback_cli.distillation.objectives.dmd.DMD"},
    "schedule": {"_target_": "disback_cli.distillation.schedules.PathSchedule", "interval": 5},
    "path": "somebodys-run",
    "cost": {"images": 64},
    "metrics": {"fid_2k": 1.234},
    "measured_with": {"n": 2048, "extractor": "digits-classifier-1", "resize": "none", "reference_n": 1797},
}

COMPACT: dict[str, Any] = {
    "_target_": "disback_cli.denoisers.edm.EDMDenoiser",
    "shape": [1, 8, 8],
    "network": {
        "_target_": "disback_cli.denoisers.song_unet.SongUNet", "img_resolution": 8, "in_channels": 1,
        "out_channels": 1, "model_channels": 8, "channel_mult": [1], "num_blocks": 1, "attn_resolutions": [],
    },
}  # fmt: skip
GENERATOR = {"_target_": "disback_cli.denoisers.point_generator.PointGenerator", "dim": 2, "hidden": 8}


def untrained(folder: Path, teacher: Teacher, sigma_init: float) -> Path:
    """The run folder of a student that is a copy of its teacher."""
    return saved(folder, OneStepStudent(teacher.copy(), sigma_init=sigma_init), teacher)


def saved(folder: Path, student: Student, teacher: Teacher) -> Path:
    """The run folder of a student."""
    save_student(folder / "student", student, teacher, FACTS)
    return folder
