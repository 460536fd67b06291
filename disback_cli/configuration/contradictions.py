"""What is wrong in a composed configuration although every option is right by itself. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from disback_cli.configuration.levels import require_count, require_falling
from disback_cli.errors import UserError

_FEW_STEP = "disback_cli.distillation.students.factories.few_step"


def check_together(root: Mapping[str, Any]) -> None:
    """Look at the resolved configuration of a verb, whose single options have been checked.

    Raises:
        UserError: the levels of a few-step student do not fall, or an objective's critic has no data.
    """
    student, objective = root.get("student"), root.get("objective")
    if isinstance(student, Mapping) and student.get("_target_") == _FEW_STEP:
        try:
            require_count(student["sigmas"])
            require_falling(student["sigmas"], student["sigmas"])
        except ValueError as error:
            raise UserError(str(error)) from None
    if isinstance(objective, Mapping) and objective.get("critic") is not None and root.get("dataset") is None:
        raise data_needed("the objective has a critic", root["teacher"]["name"])


def data_needed(why: str, teacher: str) -> UserError:
    """What to type where real data are needed and none are named.

    Args:
        why: what needs them: "objective=dmd2 has a critic".
        teacher: its name.
    """
    return UserError(
        f"{why}, which needs real data: name the data set that the teacher {teacher} was trained on with "
        "dataset=..., for example dataset=edm dataset.path=FILE.zip, dataset=image_folder dataset.path=FOLDER or "
        "dataset=npz dataset.path=FILE.npz. For a teacher that works on latents choose an objective without real data"
    )
