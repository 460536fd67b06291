"""What is found on disk and written into the command line: runs to continue, paths, students."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from disback_cli.configuration import discovery, run_id, runfolder
from disback_cli.configuration.arguments import CommandLine, Override, assignment
from disback_cli.errors import UserError


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> Iterator[Path]:
    """Every test in an empty folder, started alone (no ranks), with no cached run id."""
    monkeypatch.chdir(tmp_path)
    for name in ("DISBACK_RUN_ID", "DISBACK_RUNS", "LOCAL_RANK", "RANK", "TORCHELASTIC_RUN_ID", "SLURM_STEP_ID"):
        monkeypatch.delenv(name, raising=False)
    run_id.run_id.cache_clear()
    run_id.launch_id.cache_clear()
    yield tmp_path
    run_id.run_id.cache_clear()
    run_id.launch_id.cache_clear()


def prepared(verb: str, *words: str) -> list[str]:
    """The words after discovery, which must not change when they go through it again."""
    once = discovery.prepare(verb, CommandLine.parse(words))
    seen = discovery.notes()
    assert discovery.prepare(verb, CommandLine.parse(once.words())) == once
    discovery._NOTES[:] = seen
    return once.words()


def a_run(
    name: str, created: str, *overrides: str, verb: str = "record", state: str = "interrupted", root: str = "runs"
) -> Path:
    folder = Path(root) / verb / "digits" / name
    runfolder.create(folder, verb, "digits", overrides)
    content = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(content | {"created": created, "state": state}))
    return folder


def a_path(name: str, created: str, *overrides: str, choice: str = "digits") -> Path:
    folder = Path("runs/record") / choice / name
    (folder / "path").mkdir(parents=True)
    content = {
        "format": 1, "teacher": {"name": choice, "hash": "0"}, "teacher_choice": choice,
        "overrides": list(overrides), "created": created,
    }  # fmt: skip
    (folder / "path" / "path.json").write_text(json.dumps(content))
    return folder


# --- words


def test_words_are_read_as_hydra_reads_them() -> None:
    line = CommandLine.parse(["a=1", "-m", "b=2,3", "--config-dir", "conf"])
    assert (
        [o.key for o in line.overrides] == ["a", "b"] and line.flags == ("-m", "--config-dir", "conf") and line.multirun
    )
    assert not CommandLine.parse(["-m", "hydra.mode=RUN"]).multirun
    assert Override("+teacher@x=edm").key == "teacher" and Override("x='a b'").value == "a b"
    several = {
        "x=1,2": True,
        "x=range(1,3)": True,
        "x=[1,2]": False,
        "x='a,b'": False,
        "x={a:1,b:2}": False,
        "x=1": False,
    }
    assert {word: Override(word).several for word in several} == several
    assert (
        assignment("path", "runs/a b=c") == 'path="runs/a b=c"'
        and assignment("path", "runs/a-1_2.x") == "path=runs/a-1_2.x"
    )
    assert Override(assignment("path", 'q"x')).value == 'q"x'


# --- resume


def test_auto_takes_the_newest_run_that_is_unfinished_and_free() -> None:
    a_run("old", "2024-01-01", "seed=1")
    middle = a_run("middle", "2024-02-01", "seed=2", "batch_size=4", "resume=false", "+extra=1")
    a_run("finished", "2024-03-01", state="finished")
    busy = a_run("busy", "2024-04-01", state="running")
    hold = "import sys\nfrom pathlib import Path\nfrom disback_cli.configuration import runfolder\n"
    hold += f"lock = runfolder.lock(Path({str(busy)!r})); print('held', flush=True); sys.stdin.read()"
    other = subprocess.Popen([sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert other.stdout is not None and other.stdout.readline() == b"held\n"
    try:
        words = prepared("record", "resume=auto", "batch_size=9")
        assert words == ["seed=2", "+extra=1", f"hydra.run.dir={middle}", "resume=auto", "batch_size=9"]
        assert any(str(middle) in note for note in discovery.notes())
        with pytest.raises(UserError, match=f"in use by process {other.pid}"):
            runfolder.lock(busy, patience=0.1)
    finally:
        other.communicate(b"")
    assert f"hydra.run.dir={busy}" in prepared("record", "resume=auto"), "its process is gone"


def test_auto_with_nothing_to_continue_says_so_and_starts_a_new_run() -> None:
    assert prepared("record", "resume=auto") == ["resume=auto"]
    assert "no unfinished record run" in discovery.notes()[0]
    a_run("x", "2024", "teacher=digits_cond")
    assert prepared("record", "resume=auto", "teacher=other") == ["resume=auto", "teacher=other"]
    assert "hydra.run.dir=runs/record/digits/x" in prepared("record", "resume=auto", "teacher=digits_cond")


def test_a_named_folder_is_continued_or_begun() -> None:
    folder = a_run("x", "2024", "seed=5")
    assert prepared("record", "resume=auto", f"hydra.run.dir={folder}")[0] == "seed=5"
    assert prepared("record", "resume=auto", "hydra.run.dir=new") == ["resume=auto", "hydra.run.dir=new"]


def test_a_path_names_a_run_or_a_checkpoint_in_one() -> None:
    folder = a_run("x", "2024", "seed=5")
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "last").touch()
    for place in (folder, folder / "checkpoints" / "last"):
        assert f"hydra.run.dir={folder}" in prepared("record", f"resume={place}")
    for words, message in {
        "resume=nowhere": "no such file or folder",
        "resume=.": "neither a run folder",
    }.items():
        with pytest.raises(UserError, match=message):
            prepared("record", words)
    with pytest.raises(UserError, match=f"type 'disback record resume={folder}'"):
        prepared("backtrack", f"resume={folder}")


def test_another_option_of_a_group_drops_the_stored_values_inside_it() -> None:
    a_run("x", "2024", "student=unet", "student.depth=3", "teacher.steps=4")
    words = prepared("record", "resume=auto", "student=one_step", "teacher=digits")
    assert "student.depth=3" not in words and "teacher.steps=4" in words


def test_ranks_of_lightning_and_help_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    a_run("x", "2024", "seed=5")
    assert prepared("record", "resume=auto", "--help") == ["resume=auto", "--help"]
    monkeypatch.setenv("LOCAL_RANK", "1")
    words = ["resume=auto", 'hydra.run.dir="there"', "hydra.job.name=train_ddp_process_1"]
    assert prepared("record", *words) == words


# --- path


def test_the_newest_path_brings_what_both_stages_share() -> None:
    a_path("old", "2024-01-01")
    new = a_path(
        "new",
        "2024-02-01",
        "teacher.a=1",
        "student.dim=3",
        "noise/fake=narrow",
        "noise.fake.std=2",
        "nodes=9",
        choice="edm",
    )
    shared = ["teacher=edm", "teacher.a=1", "student.dim=3", "noise/fake=narrow", "noise.fake.std=2"]
    assert prepared("backtrack", "seed=3") == [*shared, f"path={new}", "seed=3"]
    assert prepared("backtrack", "teacher=digits")[0] == "path=runs/record/digits/old"
    assert prepared("backtrack", "-m", "seed=1,2")[-3:] == [f"path={new}", "seed=1,2", "-m"], "pinned for all jobs"
    assert prepared("backtrack", "-m", "teacher=digits,edm") == ["teacher=digits,edm", "-m"]
    assert prepared("backtrack", "path=null") == ["path=null"]


def test_the_users_own_words_win_over_the_recording() -> None:
    new = a_path("new", "2024", "student=unet", "student.dim=3", "noise/fake=narrow", "noise.fake.std=2")
    words = prepared("backtrack", f"path={new}", "student=one_step", "noise.fake.std=1")
    assert words == ["teacher=digits", "noise/fake=narrow", f"path={new}", "student=one_step", "noise.fake.std=1"]


def test_no_path_is_no_mistake_but_a_wrong_one_is() -> None:
    assert prepared("backtrack") == []
    folder = a_path("new", "2024")
    for place in (folder, folder / "path", folder / "path" / "path.json"):
        assert prepared("backtrack", f"path={place}")[0] == "teacher=digits"
    with pytest.raises(UserError, match="no such folder; name a 'disback record' run"):
        prepared("backtrack", "path=nowhere")
    unfinished = a_run("half", "2024")
    with pytest.raises(UserError, match=f"type 'disback record resume={unfinished}' first"):
        prepared("backtrack", f"path={unfinished}")


def test_the_root_of_the_runs_can_be_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = a_run("x", "2024", root="elsewhere")
    assert f"hydra.run.dir={folder}" in prepared("record", "resume=auto", "runs=elsewhere")
    monkeypatch.setenv("DISBACK_RUNS", "elsewhere")
    assert f"hydra.run.dir={folder}" in prepared("record", "resume=auto")


# --- student


def test_a_student_is_named_by_its_folder_or_the_newest_is_taken() -> None:
    assert prepared("sample", "n=3") == ["n=3"]
    run = a_run("done", "2024", "teacher=digits_cond", "teacher.steps=3", "seed=1", verb="backtrack", state="finished")
    (run / "student").mkdir()
    (run / "student" / "config.json").write_text("{}")
    taken = ["teacher=digits_cond", "teacher.steps=3"]
    assert prepared("sample", "n=3") == [*taken, f"student.folder={run}", "n=3"]
    assert prepared("evaluate", f"student={run}") == [*taken, f"student.folder={run}"]
    assert prepared("sample", "teacher=gmm_2d") == ["teacher=gmm_2d"]
    assert prepared("sample", "-m", f"student={run},other") == [f"student.folder={run},other", "-m"]
    with pytest.raises(UserError, match="student=nowhere: there is no such folder"):
        prepared("evaluate", "student=nowhere")


# --- run id and run folder


def test_the_ranks_of_one_launch_share_a_run_id() -> None:
    program = "from disback_cli.configuration.run_id import run_id; print(run_id())"
    ranks = [{"TORCHELASTIC_RUN_ID": "none", "GROUP_WORLD_SIZE": "1", "RANK": str(rank)} for rank in range(2)]
    names = {subprocess.check_output([sys.executable, "-c", program], env=env, text=True) for env in ranks}
    assert len(names) == 1 and next(iter(names)).startswith("torchrun-")


def test_run_ids_from_the_environment() -> None:
    shared = run_id.shared_launch_id
    assert shared({}) is None
    assert shared({"DISBACK_RUN_ID": "a b=c"}) == "a-b-c"
    assert shared({"TORCHELASTIC_RUN_ID": "job7"}) == "job7"
    with pytest.raises(UserError, match="--rdzv-id"):
        shared({"TORCHELASTIC_RUN_ID": "none", "GROUP_WORLD_SIZE": "2"})
    step = {"SLURM_JOB_ID": "12", "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "4"}
    assert shared(step) == "slurm-12-0"
    assert shared(step | {"SLURM_ARRAY_JOB_ID": "11", "SLURM_ARRAY_TASK_ID": "3"}) == "slurm-11_3-0"
    assert shared(step | {"SLURM_STEP_NUM_TASKS": "1"}) is None, "a shell inside an allocation starts many runs"
    assert run_id.run_id() == run_id.run_id() and len(run_id.run_id()) == len("20240101-120000-abcd")


def test_run_folder_states_and_lock() -> None:
    folder = Path("runs/record/digits/x")
    with runfolder.lock(folder):
        run = runfolder.create(folder, "record", "digits", ["seed=1"])
        assert not runfolder.is_busy(folder), "it is held by this launch"
        with pytest.raises(UserError, match="there is a run in"):
            runfolder.create(folder, "record", "digits", [])
    assert runfolder.holder(folder) is None
    assert runfolder.read(folder) == run and not run.finished
    runfolder.set_state(folder, "finished")
    again = runfolder.read(folder)
    assert again is not None and again.finished and again.overrides == ("seed=1",)
    assert sorted(file.name for file in folder.iterdir()) == ["run.json", "run.lock"]
