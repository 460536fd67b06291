"""The installed command: a student becomes a pipeline, and the code on its card draws a picture."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from disback_command import Workplace, leftovers, refused, succeeded
from PIL import Image

from disback_cli.denoisers.teachers import folder
from disback_cli.distillation.student_folder import save_student
from disback_cli.distillation.students import OneStepStudent


def test_a_student_is_published_and_its_card_is_right(workplace: Workplace) -> None:
    teacher = folder(name="edm_digits_cond", folder="pkg://disback_cli/assets/edm_digits_cond")
    student = OneStepStudent(teacher.copy(), sigma_init=2.5)
    save_student(workplace.folder / "run" / "student", student, teacher, {})
    done = succeeded(workplace("convert", "run", "published", "to=diffusers", "dtype=fp16"))
    assert "drawn in a process without disback equal the student's" in done.stdout
    assert 'from_pretrained("published", trust_remote_code=True)' in done.stdout
    refused(workplace("convert", "run", "published", "to=diffusers"), "published exists", "overwrite=true")
    assert leftovers(workplace.folder) == []
    card = (workplace.folder / "published" / "README.md").read_text()
    code = "\n".join(re.findall(r"^    (.*)$", card, flags=re.MULTILINE)).replace("THIS_FOLDER", "published")
    cache = {"HF_MODULES_CACHE": str(workplace.folder / "cache"), "HF_HUB_OFFLINE": "1"}
    succeeded(workplace("-P", "-c", code, program=(sys.executable,), **cache))
    with Image.open(Path(workplace.folder / "sample.png")) as picture:
        assert picture.size == (8, 8) and picture.mode == "L" and len(picture.getcolors() or []) > 8
