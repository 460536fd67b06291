"""What the installed command answers to mistakes and accidents: what to type, an exit code, nothing half-written."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from disback_command import (
    BACKTRACK,
    HOLDS,
    RECORD,
    TWO_PROCESSES,
    Done,
    Workplace,
    assert_same_result,
    checkpoint,
    leftovers,
    load,
    refused,
    rows,
    state_of,
    succeeded,
    together,
)

from disback_cli.configuration import runfolder

# found before torch is imported
AT_ONCE = {
    "unknown verb": (("bactrack",), ("there is no verb 'bactrack'; did you mean 'disback backtrack'?",)),
    "no verb": (("teacher=gmm_2d",), ("the verb comes first: disback VERB teacher=gmm_2d",)),
    "mistyped key": (
        ("backtrack", "teacher=gmm_2d", "schedule.intervall=3"),
        ("there is no option 'schedule.intervall'; did you mean 'schedule.interval'?",),
    ),
    "mistyped root key": (("record", "iteration=3"), ("there is no option 'iteration'; did you mean 'iterations'?",)),
    "mistyped option": (
        ("record", "teacher=gmm2d"),
        ("there is no teacher 'gmm2d'; did you mean 'gmm_2d'?", "teacher can be:"),
    ),
    "mistyped objective": (("backtrack", "objective=diff_instrct"), ("did you mean 'diff_instruct'?",)),
    "wrong type": (("record", "teacher=gmm_2d", "iterations=ten"), ("iterations=ten: must be an int",)),
    "not positive": (("record", "teacher=gmm_2d", "nodes=0"), ("nodes=0: must be positive",)),
    "wrong type of an option": (
        ("backtrack", "teacher=gmm_2d", "schedule.interval=1.5"),
        ("schedule.interval=1.5: must be an int",),
    ),
    "resume elsewhere": (
        ("record", "resume=runs/nowhere"),
        ("resume=runs/nowhere: there is no such file or folder", "resume=auto"),
    ),
    "resume no run": (("record", "resume=site"), ("resume=site: neither a run folder",)),
    "path elsewhere": (("backtrack", "path=runs/nowhere"), ("path=runs/nowhere: no such folder", "disback record")),
    "student elsewhere": (
        ("sample", "student=runs/nowhere"),
        ("student=runs/nowhere: there is no such folder", "disback backtrack"),
    ),
    "class elsewhere": (
        ("backtrack", "teacher=gmm_2d", "objective._target_=own_classes.Spoiled"),
        ("objective._target_=own_classes.Spoiled", "did you mean 'Spoilt'?"),
    ),
}


@pytest.mark.parametrize("name", AT_ONCE)
def test_answered_at_once(name: str, workplace: Workplace) -> None:
    words, texts = AT_ONCE[name]
    before = sorted(workplace.folder.rglob("*"))
    done = workplace(*words, PYTHONPROFILEIMPORTTIME="1")
    lines = done.stderr.splitlines()
    imported = {line.rpartition("|")[2].strip() for line in lines if line.startswith("import time:")}
    assert "disback_cli.cli" in imported and "torch" not in imported
    done.stderr = "\n".join(line for line in lines if not line.startswith("import time:"))
    refused(done, *texts)
    assert sorted(workplace.folder.rglob("*")) == before


@pytest.fixture(scope="module")
def crooked(make_workplace: Callable[[str], Workplace], recorded: Path) -> Workplace:
    """A workplace with paths that cannot be used."""
    place = make_workplace("crooked")
    for name in ("truncated", "flipped", "missing"):
        shutil.copytree(recorded / "path", place.folder / name)
    node = place.folder / "truncated" / "node_02.safetensors"
    os.truncate(node, node.stat().st_size - 100)
    node = place.folder / "flipped" / "node_01.safetensors"
    content = bytearray(node.read_bytes())
    content[-5] ^= 1
    node.write_bytes(content)
    (place.folder / "missing" / "node_03.safetensors").unlink()
    shutil.copytree(recorded, place.folder / "busy")
    return place


OTHER_FAULTS = (
    (
        ("backtrack", "path=RECORDED", *TWO_PROCESSES, "batch_size=33"),
        ("batch_size=33 cannot be shared", "try batch_size=34"),
    ),
    (("backtrack", "path=RECORDED", "trainer.devices=2"), ("needs several processes: give trainer=ddp",)),
    (("backtrack", "path=missing"), ("node 3 of the path is missing",)),
    (("backtrack", "path=RECORDED", "schedule.interval=20"), ("iteration 40 of 24", "lower schedule.interval")),
    (("record", "nodes=30"), ("nodes=30 do not fit into iterations=24",)),
)
FAULTS = (
    (("backtrack",), ("no path has been recorded for teacher=gmm_2d yet: type `disback record teacher=gmm_2d`",)),
    (
        ("backtrack", "path=RECORDED", "teacher.denoiser.modes=6"),
        ("was recorded from the teacher gmm_2d", "path=RUN", "disback record"),
    ),
    (("backtrack", "path=truncated"), ("node 2 of the path is damaged", "truncated", "record the path again")),
    (("backtrack", "path=flipped"), ("node 1 of the path is damaged", "record the path again")),
    (("backtrack", "path=RECORDED", "trainer=ddp", "trainer.devices=99"), ("trainer.devices=99 is more", "or less")),
    (("record", "resume=busy"), ("is in use by process", "hydra.run.dir")),
    (("backtrack", "path=RECORDED", "logger=wandb"), ("needs the package wandb", "pip install 'disback-cli[wandb]'")),
)


@pytest.mark.parametrize("faults", [FAULTS, pytest.param(OTHER_FAULTS, marks=pytest.mark.slow)], ids=["usual", "other"])
def test_found_when_the_work_begins(
    faults: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...], crooked: Workplace, recorded: Path
) -> None:
    def typed(words: tuple[str, ...]) -> Done:
        given = [word.replace("RECORDED", str(recorded)) for word in words[1:]]
        usual = RECORD if words[0] == "record" else (*BACKTRACK, "teacher=gmm_2d")
        usual = (words[0],) if any(word.startswith("resume") for word in words) else usual
        return crooked(*usual, *given, **crooked.with_site(NOT_INSTALLED="wandb"))

    before = sorted(crooked.folder.rglob("*"))
    with runfolder.lock(crooked.folder / "busy"):
        answers = together(*(lambda words=words: typed(words) for words, _ in faults))
    for done, (_, texts) in zip(answers, faults, strict=True):
        refused(done, *texts)
    created = [file for file in set(crooked.folder.rglob("*")) - set(before) if file.is_file()]
    assert not created, "no run folder under its final name"
    assert load(crooked.folder / "busy" / "path" / "path.json") == load(recorded / "path" / "path.json")


@pytest.mark.slow
def test_a_refusal_spares_what_the_user_has_in_the_folder(workplace: Workplace) -> None:
    mine = workplace.folder / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    refused(workplace(*RECORD, "nodes=30", "hydra.run.dir=mine"), "nodes=30 do not fit")
    assert (mine / "thesis.txt").read_text() == "years of work"


@pytest.mark.slow
def test_a_path_recorded_from_another_teacher(workplace: Workplace) -> None:
    """The manifest brings the teacher it was recorded from; the user who insists on his own is told."""
    succeeded(workplace(*RECORD, "teacher.denoiser.modes=6"))
    run = workplace.run_of("record")
    done = workplace(*BACKTRACK, f"path={run}", "teacher=gmm_2d", "teacher.denoiser.modes=8")
    refused(done, "was recorded from the teacher gmm_2d", "choose another path=RUN")
    assert workplace.runs("backtrack") == []
    succeeded(workplace(*BACKTRACK, f"path={run}"))


@pytest.mark.slow
def test_a_second_process_in_a_folder_at_work(workplace: Workplace, recorded: Path) -> None:
    held = workplace.hold(*RECORD, HOLDS, before_draw=3)
    run = workplace.run_of("record")
    try:
        refused(workplace("record", f"resume={run}"), "is in use by process", str(held.process.pid))
    finally:
        done = held.release()
    succeeded(done)
    assert_same_result(run, recorded)


@pytest.fixture
def small_disk(workplace: Workplace) -> Iterator[Path]:
    """A disk of a few megabytes, mounted in the workplace."""
    folder = workplace.folder / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting is not permitted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def _fill(disk: Path) -> Path:
    """A file that takes all that is left, to the last byte."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"0" * 4096)
        except OSError:
            return ballast


def test_a_full_disk(workplace: Workplace, small_disk: Path, recorded: Path) -> None:
    held = workplace.hold(*RECORD, HOLDS, "runs=disk/runs", before_draw=12)
    ballast = _fill(small_disk)
    done = held.release()
    refused(done, "No space left on device", "resume=auto")
    run = workplace.run_of("record", "disk/runs")
    assert leftovers(run) == []
    names = {file.name for file in (run / "checkpoints").iterdir()}
    assert names == {"checkpoints.json", "iteration_00000008.ckpt"}
    assert checkpoint(run, 8)["stage"]["iteration"] == 8
    assert not (run / "path").exists() and state_of(run) != "finished"
    ballast.unlink()
    again = succeeded(workplace("record", "resume=auto", "runs=disk/runs"))
    assert "iteration_00000008.ckpt" in again.stderr
    assert_same_result(run, recorded)


def test_not_a_number(workplace: Workplace, recorded: Path) -> None:
    """The objective is a class of the user's own, in a module in his folder."""
    own = ("objective._target_=own_classes.Spoilt", "+objective.at=13")
    done = workplace(*BACKTRACK, f"path={recorded}", *own)
    assert done.returncode not in (0, None)
    message = "not finite at iteration 13: generator_loss, gradient of student."
    assert message in done.stderr, done.stderr
    run = workplace.run_of("backtrack")
    last_good = run / "checkpoints" / "iteration_00000008.ckpt"
    assert f"last good checkpoint: {last_good}" in done.stderr
    assert "resume=auto" in done.stderr
    assert {file.name for file in last_good.parent.glob("*.ckpt")} == {last_good.name}
    assert all("nan" not in value for row in rows(run) for value in row.values())
    assert state_of(run) == "failed" and not (run / "student").exists()
