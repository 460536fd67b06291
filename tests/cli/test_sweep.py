"""``-m`` with a process per job: failures, continuing, signals, the table."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from disback_cli.configuration import jobs, sweeptable
from disback_cli.configuration.jobs import Job, JobRunner
from disback_cli.configuration.searching import Search
from disback_cli.errors import UserError
from hydra_plugins.disback_launcher import ProcessLauncher

Disback = Callable[..., "subprocess.CompletedProcess[str]"]


def _status(folder: Path) -> dict[str, object]:
    content = json.loads((folder / "status.json").read_text())
    assert isinstance(content, dict)
    return content


def test_a_failing_job_ends_no_other_and_the_sweep_can_be_continued(tiny: Disback, workplace: Path) -> None:
    first = tiny("-m", "seed=0,1,2", "fails_at=1", "hydra.sweep.dir=sweep", LOCAL_RANK="0", DISBACK_RUN_ID="outer")
    sweep = workplace / "sweep"
    assert first.returncode == 1
    assert "1 of 3 jobs are not done:\n  job 1 failed, see sweep/1/job.log" in first.stderr
    assert "Traceback" not in first.stderr and "Traceback" in (sweep / "1" / "job.log").read_text()
    assert [_status(sweep / name)["state"] for name in "012"] == ["done", "failed", "done"]
    assert "job 1 (2/3)  seed=1  failed after" in first.stdout
    with (sweep / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["job", "seed", "state", "seconds", "fid_2k", "folder"]
    assert [(row["seed"], row["state"], row["fid_2k"]) for row in rows] == [
        ("0", "done", "0"), ("1", "failed", ""), ("2", "done", "3"),
    ]  # fmt: skip

    (workplace / "mended").touch()
    again = tiny("-m", "hydra.sweep.dir=sweep")
    assert again.returncode == 0, again.stderr
    assert "2 of 3 jobs in sweep are done already" in again.stdout
    assert (sweep / "0" / "job.log").read_text().count("working") == 1
    assert (sweep / "1" / "job.log").read_text().count("working") == 2
    assert "best run: job 0 (seed=0), fid_2k 0\nrepeat it:\n  disback tiny seed=0 fails_at=1 " in again.stdout

    other = tiny("-m", "seed=0,1", "hydra.sweep.dir=sweep")
    assert other.returncode == 2
    assert "sweep holds another sweep: disback tiny seed=0,1,2 fails_at=1 -m" in other.stderr


def test_a_mistake_in_one_job_is_found_before_the_first_starts(tiny: Disback, workplace: Path) -> None:
    done = tiny("-m", "schedule.interval=3,ten", "hydra.sweep.dir=sweep")
    assert done.returncode == 2
    assert "job 1 (schedule.interval=ten): schedule.interval=ten: must be an int" in done.stderr
    assert not (workplace / "sweep" / "0").exists()


def test_a_search_is_continued_where_it_was(tiny: Disback, workplace: Path) -> None:
    """Trials of one sampler seed are proposed again, so those that are done need not run; more can be asked for."""
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    settings = [
        "hydra.sweeper.n_trials=3",
        "hydra.sweeper.sampler.seed=0",
        "hydra.sweeper.n_jobs=${hydra.launcher.jobs}",
    ]
    words = ["seed=range(1,9)", "hydra/sweeper=optuna", *settings, "hydra.launcher.jobs=2", "hydra.sweep.dir=sweep"]
    first = tiny("-m", *words)
    assert first.returncode == 0, first.stderr
    assert "job 2 (3/3)" in first.stdout and first.stdout.count("repeat it:") == 1
    again = tiny("-m", "hydra.sweep.dir=sweep", "hydra.sweeper.n_trials=4")
    assert again.returncode == 0, again.stderr
    with (workplace / "sweep" / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["state"] for row in rows] == ["done"] * 4
    assert all((workplace / "sweep" / row["job"] / "job.log").read_text().count("working") == 1 for row in rows)
    best = min(rows, key=lambda row: float(row["fid_2k"]))
    lines = again.stdout.splitlines()
    assert lines[-1].split()[:3] == ["disback", "tiny", f"seed={best['seed']}"]


def test_a_search_that_proposes_something_else_is_not_continued(tmp_path: Path) -> None:
    launcher = ProcessLauncher()
    launcher.folder, launcher.search = tmp_path, Search(None, True, 3)
    (tmp_path / "0").mkdir()
    Job(0, ("rate=1",), tmp_path / "0", [], jobs.FAILED, 1, 2.0).write_status()
    same = Job(0, ("rate=1",), tmp_path / "0", [])
    assert launcher._is_settled(same) and (same.state, same.seconds) == (jobs.FAILED, 2.0), "part of what it has learnt"
    with pytest.raises(UserError, match="was run with rate=1, and now the search proposes rate=2"):
        launcher._is_settled(Job(0, ("rate=2",), tmp_path / "0", []))
    launcher.search = None
    assert not launcher._is_settled(same), "a grid tries again"


def test_a_timeout_fails_the_job_that_is_too_long_and_not_the_one_beside_it(tmp_path: Path) -> None:
    commands = [[sys.executable, "-S", "-c", code] for code in ("", "import time; time.sleep(600)")]
    both = [Job(number, (), tmp_path / str(number), command) for number, command in enumerate(commands)]
    runner = JobRunner(slots=2, timeout=2.5, total=2)
    runner.run(both)
    assert [_status(tmp_path / name)["state"] for name in "01"] == [jobs.DONE, jobs.FAILED]


def test_the_timeout_and_the_number_of_jobs_can_be_typed(tiny: Disback, workplace: Path) -> None:
    done = tiny("-m", "pause=600,601", "hydra.sweep.dir=sweep", "hydra.launcher.jobs=2", "hydra.launcher.timeout=0.5")
    assert done.returncode == 1
    assert done.stdout.count("longer than hydra.launcher.timeout=0.5") == 2
    assert [_status(workplace / "sweep" / name)["state"] for name in "01"] == ["failed", "failed"]
    assert tiny("-m", "seed=0,1", "hydra.launcher.jobs=0").returncode == 2


def test_a_signal_is_passed_on_and_the_rest_is_not_started(workplace: Path, environment: dict[str, str]) -> None:
    words = ["-m", "seed=0,1", "pause=30", "hydra.sweep.dir=sweep", "--config-dir", "conf"]
    process = subprocess.Popen(
        [sys.executable, "-m", "tiny_verb", *words],
        cwd=workplace, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    log = workplace / "sweep" / "0" / "job.log"
    deadline = time.monotonic() + 20
    while not (log.exists() and "working" in log.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "continue it with: disback tiny -m hydra.sweep.dir=sweep" in err
    assert _status(workplace / "sweep" / "0")["state"] == "interrupted"
    assert "not run" in out and not (workplace / "sweep" / "1").exists()


def test_jobs_are_no_ranks_of_the_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    ranks = {
        "LOCAL_RANK": "0",
        "RANK": "1",
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "x",
        "TORCHELASTIC_RUN_ID": "y",
        "GROUP_RANK": "0",
    }
    for name, value in ({"DISBACK_RUN_ID": "z", "CUDA_VISIBLE_DEVICES": "4,5,6,7"} | ranks).items():
        monkeypatch.setenv(name, value)
    environment = jobs.job_environment(1, 2)
    assert not set(environment) & {*ranks, "DISBACK_RUN_ID"}
    assert environment["CUDA_VISIBLE_DEVICES"] == "6,7"
    assert jobs.job_environment(0, 1)["CUDA_VISIBLE_DEVICES"] == "4,5,6,7"


def test_devices_are_shared_out() -> None:
    assert [jobs.device_share(["0", "1", "2", "3"], slot, 2) for slot in range(2)] == [["0", "1"], ["2", "3"]]
    assert [jobs.device_share(["0", "1"], slot, 3) for slot in range(3)] == [["0"], ["1"], ["0"]]
    assert jobs.device_share([], 0, 2) == []


def test_the_table_shows_what_varies_and_the_shared_numbers(tmp_path: Path) -> None:
    sweep = []
    for number, metrics in enumerate([{"fid_2k": 1.25, "kid": 2}, {"fid_2k": 0.5}, None]):
        folder = tmp_path / str(number)
        folder.mkdir()
        if metrics is not None:
            (folder / "summary.json").write_text(json.dumps({"metrics": metrics}))
        sweep.append(Job(number, (f"seed={number}", "n=4"), folder, [], state="done"))
    rows = sweeptable.table(sweep)
    assert rows[0] == ["job", "seed", "state", "seconds", "fid_2k", "folder"]
    assert [row[4] for row in rows[1:]] == ["1.25", "0.5", ""]
    assert sweeptable.labels(sweep)[1] == "seed=1"
    assert sweeptable.as_text(rows).splitlines()[0].split() == rows[0]


def test_numbers_that_were_measured_differently_are_told_apart(tmp_path: Path) -> None:
    sweep = []
    for number, resize in enumerate(["tf_bilinear", "tf_bilinear", "clean"]):
        folder = tmp_path / str(number)
        folder.mkdir()
        measured = {"n": 2048, "resize": resize, "seed": number}
        (folder / "summary.json").write_text(json.dumps({"metrics": {"fid_2k": 1.0}, "measured_with": measured}))
        sweep.append(Job(number, (f"seed={number}",), folder, [], state="done"))
    assert "fid_2k" in sweeptable.table(sweep[:2])[0], "other samples are what a sweep compares"
    assert sweeptable.measured_differently([job.folder for job in sweep[:2]]) == []
    assert "measured_with" not in sweeptable.table(sweep[:2])[0]
    head, *rows = sweeptable.table(sweep)
    assert [row[head.index("fid_2k")] for row in rows] == ["1", "1", "1"], "no number is lost"
    told = [row[head.index("measured_with")] for row in rows]
    assert told[0] == told[1] != told[2] and all(told)
    assert sweeptable.measured_differently([job.folder for job in sweep]) == [
        "0 and 2 were measured differently: their numbers do not compare",
        "resize: tf_bilinear against clean",
    ]


def test_splits_matter_to_the_inception_score_alone_and_names_of_a_reference_to_nothing(tmp_path: Path) -> None:
    def job(name: str, number: str, **facts: object) -> Path:
        (tmp_path / name).mkdir()
        summary = {"metrics": {number: 1.0}, "measured_with": {"n": 2048, "reference_sha256": "a", **facts}}
        (tmp_path / name / "summary.json").write_text(json.dumps(summary))
        return tmp_path / name

    fid, other_fid = job("a", "fid_2k", splits=10), job("b", "fid_2k", splits=1, reference_dataset="other name")
    assert sweeptable.measured_differently([fid, other_fid]) == []
    score, other_score = job("c", "is_2k", splits=10), job("d", "is_2k", splits=1)
    assert sweeptable.measured_differently([score, other_score])[1] == "splits: 10 against 1"
