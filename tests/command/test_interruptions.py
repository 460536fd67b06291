"""Killed in any way and continued with ``resume=auto``, a run ends bit for bit as one that nothing disturbed."""

from __future__ import annotations

import os
import shutil
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from disback_command import (
    BACKTRACK,
    HOLDS,
    ITERATIONS,
    RECORD,
    TWO_PROCESSES,
    Done,
    Held,
    Workplace,
    assert_same_result,
    living,
    load,
    refused,
    state_of,
    succeeded,
    together,
)

# kill sends SIGTERM to the command, Ctrl-C sends SIGINT to all processes of the terminal
FIRST = {"record": (signal.SIGTERM, False), "backtrack": (signal.SIGINT, True)}
CODES = {signal.SIGTERM: 143, signal.SIGINT: 130}


@dataclass
class Chain:
    """A run that was ended again and again, and continued each time."""

    workplace: Workplace
    run: Path
    damaged: Path
    ends: list[Done]


def _disturb(workplace: Workplace, verb: str, words: tuple[str, ...]) -> Chain:
    """A signal, kill -9 while the checkpoint 16 is being saved, kill -9 while the summary is being written."""
    again = (verb, "resume=auto")
    ends = [workplace.hold(*words, HOLDS, before_draw=5).end_by(*FIRST[verb])]
    ends.append(workplace(*again, **workplace.with_site(DIE_BEFORE_RENAMING="iteration_00000016.ckpt")))
    run = workplace.run_of(verb)
    damaged = workplace.folder / "damaged" / verb
    shutil.copytree(run, damaged)
    ends.append(workplace(*again, **workplace.with_site(DIE_BEFORE_RENAMING="summary.json")))
    ends.append(workplace(*again))
    return Chain(workplace, run, damaged, ends)


@pytest.fixture(scope="module")
def chains(make_workplace: object, recorded: Path, distilled: Path) -> dict[str, Chain]:
    """One run of each verb."""
    assert callable(make_workplace)
    record, backtrack = make_workplace("record"), make_workplace("backtrack")
    one, other = together(
        lambda: _disturb(record, "record", RECORD),
        lambda: _disturb(backtrack, "backtrack", (*BACKTRACK, f"path={recorded}")),
    )
    return {"record": one, "backtrack": other}


@pytest.mark.parametrize("verb", ["record", "backtrack"])
def test_every_end_can_be_continued_to_the_same_result(
    verb: str, chains: dict[str, Chain], recorded: Path, distilled: Path
) -> None:
    chain = chains[verb]
    number, _ = FIRST[verb]
    said = [done.stdout + done.stderr for done in chain.ends]
    assert [done.returncode for done in chain.ends] == [CODES[number], -signal.SIGKILL, -signal.SIGKILL, 0], said
    assert f"stopped by {number.name} after iteration 5 and saved" in said[0]
    assert f"go on with: disback {verb} resume=" in said[0]
    assert "going on from" in said[1] and "iteration_00000005.ckpt" in said[1]
    assert "iteration_00000008.ckpt" in said[2] and f"iteration_{ITERATIONS:08d}.ckpt" in said[3]
    assert not any("Traceback" in text for text in said)
    assert chain.workplace.runs(verb) == [chain.run]
    assert_same_result(chain.run, recorded if verb == "record" else distilled)


def test_a_damaged_checkpoint_is_passed_over_and_a_missing_one_too(
    chains: dict[str, Chain], recorded: Path, distilled: Path
) -> None:
    newest = "iteration_00000008.ckpt"
    for verb in ("record", "backtrack"):
        file = chains[verb].damaged / "checkpoints" / newest
        assert {f.name for f in file.parent.glob("iteration_*")} == {newest, "iteration_00000005.ckpt"}
        if verb == "record":
            os.truncate(file, file.stat().st_size // 2)
        else:
            file.unlink()
    place = chains["record"].workplace.folder
    first, second = together(
        lambda: succeeded(chains["record"].workplace("record", f"resume={place / 'damaged' / 'record'}")),
        lambda: succeeded(chains["backtrack"].workplace("backtrack", "resume=damaged/backtrack")),
    )
    assert f"{newest} is damaged (its hash does not match); falling back to the one before" in first.stderr
    assert f"{newest} is missing; falling back to the one before" in second.stderr
    for done, verb, reference in ((first, "record", recorded), (second, "backtrack", distilled)):
        assert "going on from" in done.stderr and "iteration_00000005.ckpt" in done.stderr
        assert_same_result(chains[verb].damaged, reference)


def test_two_processes_stop_together_and_go_on(workplace: Workplace, recorded_by_two: Path) -> None:
    held = workplace.hold(*RECORD, *TWO_PROCESSES, HOLDS, before_draw=11, processes=2)
    done = held.end_by(signal.SIGTERM)
    assert done.returncode == 143, done.stderr
    assert "stopped by SIGTERM after iteration 11 and saved" in done.stderr and "Traceback" not in done.stderr
    assert living(held.process.pid) == []
    run = workplace.run_of("record")
    assert state_of(run) == "interrupted"
    succeeded(workplace("record", "resume=auto"))
    assert workplace.runs("record") == [run]
    assert_same_result(run, recorded_by_two)


@pytest.fixture(scope="module")
def distilled_by_two(studio: Workplace, recorded: Path) -> Path:
    """An undisturbed distillation by two processes."""
    folder = studio.folder / "runs" / "backtrack" / "gmm_2d" / "by_two"
    succeeded(studio(*BACKTRACK, *TWO_PROCESSES, f"path={recorded}", f"hydra.run.dir={folder}"))
    return folder


def _group_ends(held: Held, within: float = 90.0) -> None:
    """No process of the command is left."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        if not living(held.process.pid):
            return
        time.sleep(0.2)
    os.killpg(held.process.pid, signal.SIGKILL)
    raise AssertionError("a process outlived the first one")


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["record", "backtrack"])
def test_two_processes_in_every_way(
    verb: str, workplace: Workplace, recorded: Path, recorded_by_two: Path, distilled_by_two: Path
) -> None:
    words = RECORD if verb == "record" else (*BACKTRACK, f"path={recorded}")
    again = (verb, "resume=auto")
    interrupted = workplace.hold(*words, *TWO_PROCESSES, HOLDS, before_draw=4, processes=2).end_by(
        signal.SIGINT, whole_group=True
    )
    assert interrupted.returncode == 130, interrupted.stderr
    held = workplace.hold(*again, before_draw=8, processes=2)  # iteration 12
    held.process.kill()
    held.hold.unlink()
    assert held.process.wait(30) == -signal.SIGKILL
    _group_ends(held)
    ended = workplace.hold(*again, before_draw=3, processes=2).end_by(signal.SIGTERM)
    assert ended.returncode == 143, ended.stderr
    succeeded(workplace(*again))
    assert_same_result(workplace.run_of(verb), recorded_by_two if verb == "record" else distilled_by_two)


@pytest.mark.slow
@pytest.mark.parametrize(
    "words", [RECORD, (*RECORD, *TWO_PROCESSES), BACKTRACK], ids=["record", "record by two", "backtrack"]
)
def test_killed_at_any_moment(
    words: tuple[str, ...], workplace: Workplace, recorded: Path, recorded_by_two: Path, distilled: Path
) -> None:
    verb, again = words[0], (words[0], "resume=auto")
    command = words if verb == "record" else (*words, f"path={recorded}")
    began = time.monotonic()
    probe = workplace(*command, "runs=probe")
    assert probe.returncode == 0
    usual = time.monotonic() - began
    for part in (0.5, 0.6, 0.7, 0.75, 0.8, 0.9):
        process = workplace.start(*command)
        time.sleep(usual * part)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        if workplace.runs(verb):
            command = again
        if workplace.runs(verb) and state_of(workplace.run_of(verb)) == "finished":
            break
    else:
        succeeded(workplace(*command))
    references = {RECORD: recorded, BACKTRACK: distilled}
    assert_same_result(workplace.run_of(verb), references.get(words, recorded_by_two))


@pytest.mark.slow
def test_a_finished_run_can_be_resumed_without_harm(workplace: Workplace, recorded: Path, distilled: Path) -> None:
    for folder in (recorded, distilled):
        shutil.copytree(folder, workplace.folder / folder.name)
    together(
        lambda: succeeded(workplace("record", f"resume={recorded.name}")),
        lambda: succeeded(workplace("backtrack", f"resume={distilled.name}")),
    )
    for folder in (recorded, distilled):
        assert_same_result(workplace.folder / folder.name, folder)


@pytest.mark.slow
def test_when_no_checkpoint_is_whole(workplace: Workplace, recorded: Path) -> None:
    run = workplace.folder / "run"
    shutil.copytree(recorded, run)
    for file in (run / "checkpoints").glob("*.ckpt"):
        os.truncate(file, 100)
    refused(workplace("record", "resume=run"), "none of the 2 checkpoints in", "is whole; start over")
    assert load(run / "path" / "path.json"), "the finished path is still there"
