"""Which options a resumed run may change: those that can still have an effect on the run it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from disback_cli.errors import UserError
from disback_cli.runtime.session import _refuse_changes

BEFORE: dict[str, Any] = {
    "seed": 0, "seeds": 1, "student": {"sigma_init": 1.0}, "lr": {"student": 1e-5},
    "optimizer": {"betas": [0.0, 0.999], "eps": 1e-8, "weight_decay": 0.0, "clip": None},
}  # fmt: skip


def changed(folder: Path, key: str, value: Any) -> None:
    """Resume a run of ``BEFORE`` with another value."""
    saved = folder / "config.yaml"
    saved.write_text(yaml.safe_dump(BEFORE))
    now = OmegaConf.create(BEFORE)
    OmegaConf.update(now, key, value)
    container = OmegaConf.to_container(now)
    assert isinstance(container, dict)
    _refuse_changes(saved, {str(name): entry for name, entry in container.items()})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", 1),
        ("student.sigma_init", 2.5),
        ("optimizer.betas", [0.9, 0.999]),
        ("optimizer.eps", 1e-6),
        ("optimizer.weight_decay", 0.01),
    ],
)
def test_what_would_make_another_run_or_no_difference_is_refused(tmp_path, key, value):
    with pytest.raises(UserError, match=rf"^{key} was .* when this run was started and is .* now; .*resume=false"):
        changed(tmp_path, key, value)


@pytest.mark.parametrize(("key", "value"), [("optimizer.clip", 1.0), ("lr.student", 1e-6), ("seeds", 2)])
def test_what_a_resumed_run_follows_is_accepted_and_told(tmp_path, messages, key, value):
    changed(tmp_path, key, value)
    assert f"changed since the run was started: {key}: " in messages()
