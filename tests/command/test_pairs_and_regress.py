"""Pairs of a teacher and regression on them, as they are typed; what needs real data and has none."""

from __future__ import annotations

import signal

import pytest
import torch
from disback_command import Workplace, difference, leftovers, load, refused, state_of, succeeded, together
from safetensors.torch import load_file

PAIRS = ("pairs", "teacher=gmm_2d", "n=300", "shard_size=128")
REGRESS = (
    "regress", "teacher=gmm_2d", "iterations=12", "batch_size=32", "checkpoint.every=4", "log_every=4", "metrics=none",
)  # fmt: skip
NEEDS_DATA = ("backtrack", "teacher=gmm_2d", "schedule=endpoint", "objective=dmd2", "dataset=null", "metrics=none")


def test_pairs_are_made_once_and_a_student_regressed_on_them(workplace: Workplace) -> None:
    made = succeeded(workplace(*PAIRS))
    run = workplace.run_of("pairs")
    before = {file.name: file.stat().st_mtime_ns for file in run.iterdir()}
    again, regressed, no_data = together(
        lambda: succeeded(workplace(*PAIRS)),
        lambda: succeeded(workplace(*REGRESS)),
        lambda: workplace(*NEEDS_DATA),
    )
    assert "300 pairs of gmm_2d: made" in made.stdout and f"pairs={run.relative_to(workplace.folder)}" in made.stdout
    assert "already there" in again.stdout and {f.name: f.stat().st_mtime_ns for f in run.iterdir()} == before
    assert workplace.runs("pairs") == [run] and list(run.parent.iterdir()) == [run]
    assert [shard["n"] for shard in load(run / "pairs.json")["shards"]] == [128, 128, 44]
    assert state_of(run) == "finished"

    student = workplace.run_of("regress")
    assert "pairs: runs/pairs/gmm_2d" in regressed.stderr and load(student / "student/config.json")["pairs"]["n"] == 300
    cost = load(student / "summary.json")["cost"]
    assert cost["network_passes"] == 12 * 32 * 3
    assert cost["network_passes_with_pairs"] == 12 * 32 * 3 + 300 * 35

    refused(no_data, "needs real data", "gmm_2d", "dataset=")
    assert not (workplace.folder / "runs" / "backtrack").exists(), "nothing is left of a run that was refused"


@pytest.mark.slow
def test_a_killed_command_goes_on_file_by_file_with_any_number_of_processes(workplace: Workplace) -> None:
    succeeded(workplace(*PAIRS, "runs=undisturbed"))
    killed = workplace(*PAIRS, **workplace.with_site(DIE_BEFORE_RENAMING="pairs_00001.safetensors"))
    assert killed.returncode == -signal.SIGKILL
    run = workplace.run_of("pairs")
    whole = (run / "pairs_00000.safetensors").stat().st_mtime_ns
    assert not (run / "pairs.json").exists() and not (run / "pairs_00001.safetensors").exists()
    refused(workplace("regress", f"pairs={run}"), "not complete", "disback pairs teacher=gmm_2d n=300 shard_size=128")

    done = succeeded(workplace(*PAIRS, "trainer=ddp", "trainer.devices=2"))
    assert "going on with the unfinished pairs" in done.stderr and workplace.runs("pairs") == [run]
    assert list(run.parent.iterdir()) == [run] and state_of(run) == "finished" and leftovers(run) == []
    assert (run / "pairs_00000.safetensors").stat().st_mtime_ns == whole
    reference = workplace.run_of("pairs", "undisturbed")
    for file in sorted(reference.glob("*.safetensors")):
        a, b = load_file(file), load_file(run / file.name)
        assert all(torch.equal(a[name], b[name]) for name in ("z", "x"))


@pytest.mark.slow
def test_a_killed_regression_ends_in_the_same_bits(workplace: Workplace) -> None:
    succeeded(workplace(*PAIRS))
    succeeded(workplace(*REGRESS, "hydra.run.dir=runs/regress/gmm_2d/whole"))
    killed = workplace(
        *REGRESS, "hydra.run.dir=runs/regress/gmm_2d/cut",
        **workplace.with_site(DIE_BEFORE_RENAMING="iteration_00000008.ckpt"),
    )  # fmt: skip
    assert killed.returncode == -signal.SIGKILL
    succeeded(workplace("regress", "resume=runs/regress/gmm_2d/cut"))
    whole, cut = (workplace.folder / "runs/regress/gmm_2d" / name for name in ("whole", "cut"))
    assert difference(*(load_file(run / "student/model.safetensors") for run in (whole, cut))) is None
    two = succeeded(workplace(*REGRESS, "trainer=ddp", "trainer.devices=2", "hydra.run.dir=runs/regress/gmm_2d/two"))
    assert "2 device(s)" in two.stderr
    shared = workplace.folder / "runs/regress/gmm_2d/two"
    assert difference(*(load_file(run / "student/model.safetensors") for run in (whole, shared)), rtol=1e-4) is None
