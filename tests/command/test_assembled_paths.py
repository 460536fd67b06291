"""From a training with snapshots to a student that was distilled along them."""

from __future__ import annotations

from pathlib import Path

import pytest
from disback_command import Workplace, load, refused, succeeded


@pytest.mark.slow
def test_a_training_leaves_snapshots_a_path_is_made_of_them_and_a_student_follows_it(workplace: Workplace) -> None:
    words = (
        "teacher=gmm_2d",
        "iterations=40",
        "batch_size=32",
        "snapshots.at=[4]",
        "snapshots.every=20",
        "metrics=none",
    )
    trained = succeeded(workplace("pretrain", *words))
    run = workplace.run_of("pretrain")
    kept = [run / "snapshots" / f"iteration_{iteration:08d}" for iteration in (40, 20, 4)]
    assert all((place / "model.safetensors").is_file() for place in kept)
    (typed,) = [line for line in trained.stdout.splitlines() if line.startswith("or:")]
    command = typed.removeprefix("or:").split()
    assert command[:2] == ["disback", "assemble"]
    assert str(kept[0].name) not in typed, "the last state is the teacher"
    assembled = succeeded(workplace(*command[1:]))
    assert "does not fit the untrained student" in assembled.stdout
    path = workplace.run_of("assemble")
    nodes = load(path / "path" / "path.json")["nodes"]
    assert 0 < nodes[1]["mismatch"] < nodes[2]["mismatch"]
    succeeded(workplace("inspect", str(path)))
    same = ("teacher=gmm_2d", f"snapshots=[{kept[1]},{kept[2]}]")
    refused(workplace("assemble", "teacher=edm_digits", same[1]), "is of another network than teacher=edm_digits")
    succeeded(workplace("backtrack", "iterations=12", "batch_size=32", "schedule.interval=5"))
    student = workplace.run_of("backtrack")
    summary = load(student / "summary.json")
    assert Path(summary["path"]) == path / "path"
    assert [target["node"] for target in summary["targets"]] == [1, 0]
