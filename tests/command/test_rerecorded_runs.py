"""Runs that record a path on the way: by several processes, and killed while they do it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from disback_command import (
    BACKTRACK,
    ITERATIONS,
    TWO_PROCESSES,
    Workplace,
    assert_same_result,
    load,
    succeeded,
)
from safetensors.torch import load_file

SCHEDULE = ("schedule=rerecord", "schedule.nodes=2", "schedule.steps=8", "schedule.probe_samples=32")


def nodes_of(run: Path, iteration: int) -> list[dict[str, object]]:
    return load(run / f"rerecorded_{iteration:08d}" / "path.json")["nodes"]


WORDS = (*BACKTRACK, "teacher=gmm_2d", *SCHEDULE, "schedule.at=[0,12]")


@pytest.fixture(scope="module")
def by_two(make_workplace: Callable[[str], Workplace]) -> Path:
    """A run of two processes without any recording before it."""
    workplace = make_workplace("rerecorded")
    succeeded(workplace(*WORDS, *TWO_PROCESSES))
    return workplace.run_of("backtrack")


def test_two_processes_record_paths_on_the_way_and_walk_them(by_two: Path) -> None:
    summary = load(by_two / "summary.json")
    assert [(made["iteration"], made["path"]) for made in summary["rerecordings"]] == [
        (0, "rerecorded_00000000"), (12, "rerecorded_00000012"),
    ]  # fmt: skip
    assert [(target["iteration"], target["node"]) for target in summary["targets"]] == [
        (0, 1), (5, 0), (12, 1), (17, 0),
    ]  # fmt: skip
    inner = sum(made["network_passes"] for made in summary["rerecordings"])
    assert inner == 2 * (4 * 32 * 8 + 32 * (2 + 6))
    assert summary["cost"]["network_passes"] == ITERATIONS * 32 * 8 + inner
    assert [node["iteration"] for node in nodes_of(by_two, 12)][::2] == [0, 8]


@pytest.mark.slow
def test_the_path_of_two_processes_is_that_of_one(by_two: Path, workplace: Workplace) -> None:
    succeeded(workplace(*WORDS))
    one = workplace.run_of("backtrack")
    for two_has, one_has in zip(nodes_of(by_two, 0), nodes_of(one, 0), strict=True):
        assert two_has["iteration"] == one_has["iteration"]
        assert two_has["mismatch"] == pytest.approx(one_has["mismatch"], rel=1e-2, abs=1e-6)
        weights = [load_file(run / "rerecorded_00000000" / str(one_has["file"])) for run in (by_two, one)]
        for name, tensor in weights[1].items():
            torch.testing.assert_close(weights[0][name], tensor, rtol=1e-2, atol=1e-3)


@pytest.mark.slow
def test_killed_while_recording_and_after_it_a_run_ends_as_one_that_nothing_disturbed(
    workplace: Workplace, recorded: Path
) -> None:
    words = (*BACKTRACK, f"path={recorded}", *SCHEDULE, "schedule.at=[12]")
    whole = workplace.folder / "whole"
    succeeded(workplace(*words, f"hydra.run.dir={whole}"))
    killed = workplace(*words, **workplace.with_site(DIE_BEFORE_RENAMING="path.json"))
    assert killed.returncode == -9
    run = workplace.run_of("backtrack")
    assert not (run / "rerecorded_00000012").exists()
    again = workplace("backtrack", "resume=auto", **workplace.with_site(DIE_BEFORE_RENAMING="iteration_00000024.ckpt"))
    assert again.returncode == -9
    assert (run / "rerecorded_00000012" / "path.json").is_file()
    succeeded(workplace("backtrack", "resume=auto"))
    assert_same_result(run, whole)
    assert [node["sha256"] for node in nodes_of(run, 12)] == [node["sha256"] for node in nodes_of(whole, 12)]
    assert not list(run.glob(".*building")) and not (run / "candidates").exists()
