"""What is found on disk and written into the command line: runs to continue, paths, students."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_module

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


def a_path(
    name: str, created: str, *overrides: str, choice: str = "digits", verb: str = "record", **facts: object
) -> Path:
    folder = Path("runs") / verb / choice / name
    (folder / "path").mkdir(parents=True)
    content = {
        "format": 1, "teacher": {"name": choice, "hash": "0"}, "teacher_choice": choice,
        "overrides": list(overrides), "created": created,
    } | facts  # fmt: skip
    (folder / "path" / "path.json").write_text(json.dumps(content))
    return folder


def disback(environment: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "disback_cli", *words], env=environment, capture_output=True, text=True
    )


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
    assert assignment("path", "/jörg") == 'path="/jörg"', "Hydra's grammar wants quotes around other letters"


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
        assert words == ["seed=2", "+extra=1", f"hydra.run.dir={middle.absolute()}", "resume=auto", "batch_size=9"]
        assert any(f"continuing {middle} " in note for note in discovery.notes()), "as short as it can be typed"
        with pytest.raises(UserError, match=f"in use by process {other.pid}"):
            runfolder.lock(busy, patience=0.1)
    finally:
        other.communicate(b"")
    assert f"hydra.run.dir={busy.absolute()}" in prepared("record", "resume=auto"), "its process is gone"


def test_auto_with_nothing_to_continue_says_so_and_starts_a_new_run() -> None:
    assert prepared("record", "resume=auto") == ["resume=auto"]
    assert "no unfinished record run" in discovery.notes()[0]
    folder = a_run("x", "2024", "teacher=digits_cond").absolute()
    assert prepared("record", "resume=auto", "teacher=other") == ["resume=auto", "teacher=other"]
    assert f"hydra.run.dir={folder}" in prepared("record", "resume=auto", "teacher=digits_cond")


def test_a_named_folder_is_continued_or_begun() -> None:
    folder = a_run("x", "2024", "seed=5")
    assert prepared("record", "resume=auto", f"hydra.run.dir={folder}")[0] == "seed=5"
    assert prepared("record", "resume=auto", "hydra.run.dir=new") == ["resume=auto", "hydra.run.dir=new"]


def test_a_path_names_a_run_or_a_checkpoint_in_one() -> None:
    folder = a_run("x", "2024", "seed=5")
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "last").touch()
    for place in (folder, folder / "checkpoints" / "last"):
        assert f"hydra.run.dir={folder.absolute()}" in prepared("record", f"resume={place}")
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
    assert prepared("backtrack", "seed=3") == [*shared, f"path={new.absolute()}", "seed=3"]
    assert f"path: {new} (the newest" in discovery.notes()[0], "as short as it can be typed"
    assert prepared("backtrack", "teacher=digits")[0] == f"path={Path('runs/record/digits/old').absolute()}"
    assert prepared("backtrack", "-m", "seed=1,2")[-3:] == [f"path={new.absolute()}", "seed=1,2", "-m"], (
        "pinned for all jobs"
    )
    assert prepared("backtrack", "-m", "teacher=digits,edm") == ["teacher=digits,edm", "-m"]
    assert prepared("backtrack", "path=null") == ["path=null"]


def test_the_plain_loop_inherits_nothing_from_a_path_it_does_not_use() -> None:
    new = a_path("new", "2024", "student.dim=3", choice="edm").absolute()
    assert prepared("backtrack", "schedule=endpoint") == ["schedule=endpoint"] and not discovery.notes()
    assert prepared("backtrack", "-m", "schedule=endpoint", "seed=0,1") == ["schedule=endpoint", "seed=0,1", "-m"]
    taken = ["teacher=edm", "student.dim=3"]
    assert prepared("backtrack", "schedule=endpoint", f"path={new}")[:2] == taken
    assert prepared("backtrack", "-m", "schedule=path,endpoint")[:3] == [*taken, f"path={new}"]


def test_an_assembled_path_is_found_like_a_recorded_one() -> None:
    a_path("recorded", "2024-01-01")
    assembled = a_path("assembled", "2024-02-01", "student.dim=3", verb="assemble")
    assert prepared("backtrack") == ["teacher=digits", "student.dim=3", f"path={assembled.absolute()}"]
    a_path("recorded again", "2024-03-01")
    assert "recorded again" in prepared("backtrack")[-1]


def test_a_schedule_that_records_its_first_path_itself_takes_no_other() -> None:
    new = a_path("new", "2024", "student.dim=3").absolute()
    for at in ("[0]", "[0,200]", "[ 0 , 9]"):
        words = ["schedule=rerecord", f"schedule.at={at}"]
        assert prepared("backtrack", *words) == words and not discovery.notes()
    for words in (["schedule=rerecord"], ["schedule=rerecord", "schedule.at=[10,20]"]):
        assert prepared("backtrack", *words) == ["teacher=digits", "student.dim=3", f"path={new}", *words]


LAW = {"_target_": "disback_cli.distillation.sigma_laws.LogNormal", "mean": -2.5, "std": 1e-05}
FACTS = {
    "choices": {"teacher": "digits", "student": "one_step", "noise/fake": "narrow"},
    "student": {"kind": "one_step", "sigma_init": 3},
    "noise": {"fake": LAW},
}


def test_what_the_recording_came_to_use_is_taken_over_wherever_it_was_set() -> None:
    new = a_path("new", "2024", "noise.fake.mean=-9", "student.dim=3", **FACTS).absolute()
    choices = ["teacher=digits", "student=one_step", "noise/fake=narrow"]
    values = ["noise.fake.mean=-2.5", "student.dim=3", "student.sigma_init=3", "noise.fake.std=1e-05"]
    assert prepared("backtrack", f"path={new}") == [*choices, *values, f"path={new}"]
    own = ["noise.fake.std=1", "student=one_step", "student.sigma_init=2"]
    words = prepared("backtrack", f"path={new}", *own)
    assert words == ["teacher=digits", "noise/fake=narrow", *values[:2], f"path={new}", *own]
    words = prepared("backtrack", f"path={new}", "noise/fake=karras", "student=unet")
    assert words == ["teacher=digits", f"path={new}", "noise/fake=karras", "student=unet"]


def test_a_path_of_adapters_brings_its_fake_score_unless_another_one_is_named() -> None:
    facts = FACTS | {
        "choices": FACTS["choices"] | {"fake": "lora"},
        "adapter": {"kind": "lora", "rank": 4, "alpha": 8.0, "layers": ["hidden.*", "output"]},
    }
    new = a_path("new", "2024", "fake.seed=3", **facts).absolute()
    taken = prepared("backtrack", f"path={new}")
    words = ["fake.rank=4", "fake.alpha=8.0", "fake.layers=[hidden.*,output]"]
    assert {"fake=lora", "fake.seed=3", *words} <= set(taken)
    with initialize_config_module("disback_cli.conf", version_base="1.3"):
        fake = compose("backtrack", [word for word in taken if word.startswith("fake")]).fake
    assert (fake.rank, fake.alpha, fake.layers, fake.seed) == (4, 8.0, ["hidden.*", "output"], 3)
    own = prepared("backtrack", f"path={new}", "fake=full")
    assert [word for word in own if word.startswith("fake")] == ["fake=full"]
    assert "fake.rank=4" not in prepared("backtrack", f"path={new}", "fake.rank=2")


@pytest.mark.parametrize("adapter", [7, {"rank": 4}, {"rank": 4, "alpha": 8, "layers": [1]}])
def test_adapters_that_are_described_wrongly_are_a_damaged_path(adapter: object) -> None:
    new = a_path("new", "2024", **FACTS, adapter=adapter)
    with pytest.raises(UserError, match="it is damaged; record the path again"):
        prepared("backtrack", f"path={new}")


def test_the_manifest_wins_over_the_recipe(environment: dict[str, str]) -> None:
    a_path("new", "2024", choice="gmm_2d", **{**FACTS, "choices": FACTS["choices"] | {"teacher": "gmm_2d"}})
    done = disback(environment, "backtrack", "--cfg", "job", "--resolve")
    assert done.returncode == 0, done.stderr
    cfg = yaml.safe_load(done.stdout)
    assert cfg["student"]["sigma_init"] == 3 and cfg["noise"]["fake"] == LAW and cfg["teacher"]["name"] == "gmm_2d"


HOSTILE = (
    "teacher.denoiser._target_=stranger.strike",
    "+teacher.x={_target_: stranger.strike, a: 1}",
    "++teacher.x=1",
    "~teacher.sampler",
    "teacher={_target_: stranger.strike}",
    "teacher.x=[{_target_: stranger.strike}]",
    "teacher.x='{_target_: stranger.strike}'",
    'teacher.x="\\{y}"',
    "teacher.x=${oc.env:HOME}",
    "teacher.x='${oc.env:HOME}'",
    "teacher@hydra.searchpath=digits",
    "teacher.x=choice(1,2)",
    "teacher.x=1,2",
    "teacher.name=../../elsewhere",
    "teacher=../digits",
)


@pytest.mark.parametrize("word", HOSTILE)
def test_a_stranger_s_words_are_refused(word: str, environment: dict[str, str]) -> None:
    Path("stranger.py").write_text("def strike(*a, **k):\n    open('struck', 'w').close()\n")
    path = a_path("new", "2024", word)
    student = a_run("done", "2024", "objective._target_=my.Own", word, verb="backtrack", state="finished")
    (student / "student").mkdir()
    (student / "student" / "config.json").write_text("{}")
    for words, file in (
        (("backtrack", f"path={path}"), path / "path" / "path.json"),
        (("backtrack",), path / "path" / "path.json"),
        (("sample", f"student={student}"), student / "run.json"),
        (("sample",), student / "run.json"),
    ):
        if word.startswith("teacher=") and words[0] == "backtrack" and ".." in word:
            continue  # the manifest's own choice stands in its place
        with pytest.raises(UserError) as refusal:
            discovery.prepare(words[0], CommandLine.parse(words[1:]))
        assert word in str(refusal.value) and str(file) in str(refusal.value)
    if word == HOSTILE[1]:
        done = disback(environment, "backtrack", f"path={path}")
        assert done.returncode == 2 and "it is not taken over" not in done.stdout
        assert word in done.stderr and "Traceback" not in done.stderr and not Path("struck").exists()
    own = a_run("mine", "2024", word)
    assert word in prepared("record", f"resume={own}"), "one's own command line again"


def test_plain_words_are_taken_over_and_typed_words_are_the_users_own() -> None:
    plain = [
        "teacher=folder", "teacher.folder='a (1)/b'", "teacher.steps=-1.5e-3", "teacher.shape=[1, 8,.5]", "teacher.y=",
    ]  # fmt: skip
    path = a_path("new", "2024", *plain, "teacher.denoiser._target_=x.Y", choice="folder").absolute()
    typed = [f"path={path}", "teacher.denoiser._target_=x.Y"]
    assert prepared("backtrack", *typed) == [*plain, *typed]
    for choice in ("../x", "x,y", "{a}"):
        with pytest.raises(UserError, match="is not taken over"):
            prepared("backtrack", f"path={a_path(f'c{len(choice)}{choice[0]}', '2023', teacher_choice=choice)}")


def test_the_users_own_words_win_over_the_recording() -> None:
    new = a_path("new", "2024", "student=unet", "student.dim=3", "noise/fake=narrow", "noise.fake.std=2")
    words = prepared("backtrack", f"path={new}", "student=one_step", "noise.fake.std=1")
    assert words == [
        "teacher=digits",
        "noise/fake=narrow",
        f"path={new.absolute()}",
        "student=one_step",
        "noise.fake.std=1",
    ]


def test_no_path_is_no_mistake_but_a_wrong_one_is() -> None:
    assert prepared("backtrack") == []
    folder = a_path("new", "2024")
    for place in (folder, folder / "path", folder / "path" / "path.json"):
        assert prepared("backtrack", f"path={place}")[0] == "teacher=digits"
    with pytest.raises(UserError, match="no such folder; name a run of 'disback record' or"):
        prepared("backtrack", "path=nowhere")
    unfinished = a_run("half", "2024")
    with pytest.raises(UserError, match=f"type 'disback record resume={unfinished}' first"):
        prepared("backtrack", f"path={unfinished}")


def test_the_root_of_the_runs_can_be_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = a_run("x", "2024", root="elsewhere").absolute()
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
    assert prepared("sample", "n=3") == [*taken, f"student.folder={run.absolute()}", "n=3"]
    assert f"student: {run} (" in discovery.notes()[0]
    assert prepared("evaluate", f"student={run}") == [*taken, f"student.folder={run.absolute()}"]
    assert prepared("sample", "teacher=gmm_2d") == ["teacher=gmm_2d"]
    assert prepared("sample", "-m", f"student={run},other") == [f"student.folder={run},other", "-m"]
    with pytest.raises(UserError, match="student=nowhere: there is no such folder"):
        prepared("evaluate", "student=nowhere")


# --- files that are damaged, folders seen from elsewhere


DAMAGED_RUNS = ({"format": 1}, {"format": 1, "verb": "record"}, [], 5, {"format": 1, "overrides": 5}, "[" * 100000)
DAMAGED_PATHS: tuple[object, ...] = (
    {"overrides": 5}, {"overrides": [1]}, {"teacher": {}}, {"teacher": {"name": 3}}, {"teacher_choice": []},
    {"created": 7}, {"choices": 5}, {"choices": {"student": 1}}, {"student": []}, {"student": {"sigma_init": "2"}},
    {"noise": 1}, {"noise": {"fake": 1}}, [], 5,
)  # fmt: skip


def _damage(file: Path, content: object) -> None:
    if isinstance(content, str):
        file.write_text(content)
        return
    whole = json.loads(file.read_text()) if file.name == "path.json" else {}
    file.write_text(json.dumps(whole | content if isinstance(content, dict) else content))


@pytest.mark.parametrize("content", DAMAGED_RUNS, ids=range(len(DAMAGED_RUNS)))
def test_a_damaged_run_is_passed_over_and_refused_when_named(content: object) -> None:
    damaged = a_run("new", "2025")
    _damage(damaged / "run.json", content)
    assert prepared("record", "resume=auto") == ["resume=auto"] and prepared("backtrack") == []
    whole = a_run("old", "2024").absolute()
    assert f"hydra.run.dir={whole}" in prepared("record", "resume=auto")
    for verb, *words in (
        ("record", f"resume={damaged}"),
        ("record", "resume=auto", f"hydra.run.dir={damaged}"),
        ("sample", f"student={damaged}"),
    ):
        with pytest.raises(UserError, match=f"{damaged}/run.json cannot be read"):
            prepared(verb, *words)
    with pytest.raises(UserError, match="cannot be read.*remove it"):
        runfolder.create(damaged, "record", "digits", [])
    (damaged / "run.lock").write_text("5")
    with runfolder.lock(damaged):
        (damaged / "run.lock").write_text("5")
        assert runfolder.holder(damaged) == {}


@pytest.mark.parametrize("content", DAMAGED_PATHS, ids=range(len(DAMAGED_PATHS)))
def test_a_damaged_path_is_passed_over_and_refused_when_named(content: object) -> None:
    damaged = a_path("new", "2025")
    _damage(damaged / "path" / "path.json", content)
    assert prepared("backtrack") == []
    with pytest.raises(UserError, match=f"path={damaged}: {damaged}/path/path.json cannot be read"):
        prepared("backtrack", f"path={damaged}")
    whole = a_path("old", "2024").absolute()
    assert f"path={whole}" in prepared("backtrack")


def test_a_damaged_sweep_is_refused() -> None:
    Path("sweep").mkdir()
    assert prepared("record", "-m", "hydra.sweep.dir=sweep") == ["hydra.sweep.dir=sweep", "-m"]
    for content in ("5", '{"overrides": 5}', "{"):
        Path("sweep/sweep.json").write_text(content)
        with pytest.raises(UserError, match="sweep/sweep.json cannot be read"):
            prepared("record", "-m", "hydra.sweep.dir=sweep")


def test_what_exists_is_named_by_its_absolute_path(place: Path) -> None:
    for name in ("here", "a b"):
        Path(name).mkdir()
    Path("w.pth").touch()
    keys = ("path", "teacher.folder", "dataset.path", "student.folder", "+metrics.extractor.weights")
    line = CommandLine.parse([f"{key}=w.pth" for key in keys] + ["dataset.path='a b'", "teacher.name=here"])
    words = discovery.prepare("pretrain", line).words()
    assert words == [*(f"{key}={place}/w.pth" for key in keys), f'dataset.path="{place}/a b"', "teacher.name=here"]
    as_typed = ["teacher.folder=pkg://x", "dataset.path=missing", "dataset.path=here,w.pth", "dataset.path=null"]
    assert prepared("pretrain", *as_typed) == as_typed


def test_a_run_is_continued_from_another_folder(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("data.npz").touch()
    words = discovery.prepare("pretrain", CommandLine.parse(["dataset=npz", "dataset.path=data.npz"])).words()
    run = a_run("x", "2024", *words, verb="pretrain")
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    resumed = prepared("pretrain", f"resume={place / run}")
    assert f"dataset.path={place}/data.npz" in resumed and f"hydra.run.dir={place / run}" in resumed
    assert f"hydra.run.dir={place / run}" in prepared("pretrain", "resume=auto", "runs=../runs")


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


def test_the_newest_path_is_one_of_the_file_that_is_named(place: Path) -> None:
    for name in ("a.pkl", "b.pkl"):
        (place / name).touch()
    first = a_path("1", "2026-01-01", "teacher=edm", f"teacher.path={place}/a.pkl", choice="edm")
    a_path("2", "2026-01-02", "teacher=edm", f"teacher.path={place}/b.pkl", choice="edm")
    words = prepared("backtrack", "teacher=edm", "teacher.path=a.pkl", "teacher.dtype=bf16")
    assert f"path={place / first}" in words
    assert not any(word.startswith("path=") for word in prepared("backtrack", "teacher=edm", "teacher.path=c.pkl"))


def test_a_path_says_where_its_teacher_lay(place: Path) -> None:
    (place / "teachers").mkdir()
    places = {"teacher.folder": f"{place}/teachers", "teacher.name": "evil", "dataset.path": f"{place}"}
    a_path("1", "2026-01-01", "teacher=edm_cifar", choice="edm_cifar", places=places)
    words = prepared("backtrack", "path=runs/record/edm_cifar/1")
    assert f"teacher.folder={place}/teachers" in words
    assert not any(word.startswith(("teacher.name=", "dataset.path=")) for word in words)
    given = prepared("backtrack", "path=runs/record/edm_cifar/1", "teacher.folder=elsewhere")
    assert [word for word in given if word.startswith("teacher.folder=")] == ["teacher.folder=elsewhere"]


def test_a_resumed_run_finds_what_its_defaults_named(place: Path) -> None:
    (place / "teachers").mkdir()
    run = a_run("1", "2026-01-01", "teacher=edm_cifar")
    config = {"teacher": {"folder": f"{place}/teachers", "path": None, "name": "x"}, "dataset": {"path": "/gone"}}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    words = prepared("record", f"resume={run}")
    assert f"teacher.folder={place}/teachers" in words
    assert not any(word.startswith("dataset.path=") for word in words)
    other = prepared("record", f"resume={run}", "teacher=gmm_2d")
    assert not any(word.startswith("teacher.folder=") for word in other)


def test_a_users_own_class_is_taken_over_where_it_is_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    a_path("1", "2026-01-01", "teacher=flow", "teacher.denoiser.network._target_=mine.nets.Net", choice="flow")
    with pytest.raises(UserError, match="or set DISBACK_TRUST=mine.nets"):
        prepared("backtrack", "path=runs/record/flow/1")
    monkeypatch.setenv("DISBACK_TRUST", "other, mine")
    assert "teacher.denoiser.network._target_=mine.nets.Net" in prepared("backtrack", "path=runs/record/flow/1")
    monkeypatch.setenv("DISBACK_TRUST", "min")
    with pytest.raises(UserError, match="is not taken over"):
        prepared("backtrack", "path=runs/record/flow/1")
