"""Run folders as they are read: costs, targets, what is damaged; sweeps and what lies beside their jobs."""

import json

import pytest
from comparison_runs import BATCH, COST, RECORDING_PASSES, RECORDING_SECONDS, write_recording, write_run

from disback_cli.errors import UserError
from disback_cli.reporting.comparison.places import find_runs
from disback_cli.reporting.comparison.runs import in_order, is_number, read_run

QUALITY = [8.0, 4.0, 2.0]


@pytest.fixture
def recording(tmp_path):
    return write_recording(tmp_path / "record")


def test_the_recording_counts_on_every_axis(tmp_path, recording):
    run = read_run(write_run(tmp_path / "run", QUALITY, schedule="path", path=recording))
    found = run.curve("fid_2k", "v")
    assert found is not None and found.updates == (0, 10, 20) and found.quality == (8.0, 4.0, 2.0)
    assert found.passes == tuple(RECORDING_PASSES + COST * BATCH * at for at in found.updates)
    assert found.seconds == tuple(RECORDING_SECONDS + at for at in found.updates)
    assert run.switches == [(10, 0.0)]


def test_a_path_that_is_given_but_not_needed_costs_nothing(tmp_path, recording):
    for state in ("finished", "interrupted"):
        run = read_run(write_run(tmp_path / state, QUALITY, schedule="endpoint", path=recording, state=state))
        assert not run.uses_path and run.recording_passes == 0 and run.recording_seconds == 0
        assert run.passes_at([10.0]) == (COST * BATCH * 10,)


def test_runs_of_earlier_versions_have_passes_from_their_summary_and_no_wall_time(tmp_path, recording):
    old = read_run(write_run(tmp_path / "old", QUALITY, schedule="path", path=recording, columns=False))
    new = read_run(write_run(tmp_path / "new", QUALITY, schedule="path", path=recording))
    assert old.passes_at([0.0, 20.0]) == new.passes_at([0.0, 20.0])
    assert old.seconds_at([0.0]) is None
    unfinished = write_run(tmp_path / "cut", QUALITY, schedule="path", path=recording, columns=False, state="failed")
    assert read_run(unfinished).passes_at([0.0]) is None


def test_an_unfinished_run_takes_the_recordings_cost_from_the_recording(tmp_path, recording):
    folder = write_run(tmp_path / "run", QUALITY, schedule="path", path=recording, state="interrupted")
    run = read_run(folder)
    assert (run.recording_passes, run.recording_seconds) == (RECORDING_PASSES, RECORDING_SECONDS)
    (recording / "path" / "path.json").unlink()
    run = read_run(folder)
    assert run.passes_at([0.0]) is None and run.seconds_at([0.0]) is None


def test_targets_of_an_unfinished_run_are_those_of_its_rows(tmp_path):
    targets = {"target_node": [2.0, 2.0, 0.5]}
    assert read_run(write_run(tmp_path / "run", QUALITY, state="running", extra=targets)).switches == [(20, 0.5)]


def test_a_line_that_is_being_written_and_numbers_that_are_none_are_left_out(tmp_path):
    folder = write_run(tmp_path / "run", [8.0, float("nan"), 2.0])
    with (folder / "metrics.csv").open("a") as file:
        file.write("30,96")
    found = read_run(folder).curve("fid_2k", "v")
    assert found is not None and found.updates == (0, 20)


@pytest.mark.parametrize(
    ("file", "content", "told"),
    [
        ("metrics.csv", "iteration,fid_2k\n1,abc\n", "metrics.csv cannot be read"),
        ("metrics.csv", "images,fid_2k\n1,2\n", "rows without an iteration"),
        ("config.yaml", "[1, 2]", "holds no configuration"),
        ("config.yaml", "a: {b", "cannot be read"),
        ("run.json", "{", "damaged or of another version"),
    ],
)
def test_damaged_files_are_named(tmp_path, file, content, told):
    folder = write_run(tmp_path / "run", QUALITY)
    (folder / file).write_text(content)
    with pytest.raises(UserError, match=told):
        read_run(folder)


def test_runs_of_other_verbs_are_refused(tmp_path):
    folder = write_run(tmp_path / "run", QUALITY)
    facts = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(facts | {"verb": "record"}))
    with pytest.raises(UserError, match="is a run of `disback record`"):
        read_run(folder)


def test_names_of_numbers():
    assert all(map(is_number, ["fid_2k", "swd_4k", "is_256", "kid_50k", "recall_2k"]))
    assert not any(map(is_number, ["is_std_2k", "kid_std_2k", "fake_loss", "is_", "fid_2k_x"]))
    assert in_order({"is_2k", "fid_2k", "swd_2k", "kid_2k"}) == ["swd_2k", "fid_2k", "kid_2k", "is_2k"]


@pytest.fixture
def sweep(tmp_path):
    folder = tmp_path / "sweep"
    for job in (10, 2):
        write_run(folder / str(job), QUALITY, seed=job)
    (folder / "3").mkdir()
    (folder / "3" / "status.json").write_text(json.dumps({"state": "failed"}))
    for name in ("sweep.json", "results.csv"):
        (folder / name).write_text("{}")
    (folder / "compare").mkdir()
    return folder


def test_jobs_of_a_sweep_come_in_their_order_and_failed_ones_are_told(sweep):
    found = find_runs([str(sweep)])
    assert found.folders == [sweep / "2", sweep / "10"] and found.home == sweep
    (note,) = found.notes
    assert "job 3" in note and "failed" in note and "job.log" in note


def test_what_the_shell_makes_of_a_star_is_the_same(sweep):
    found = find_runs(sorted(map(str, sweep.iterdir())))
    assert sorted(found.folders) == [sweep / "10", sweep / "2"] and found.home is None and len(found.notes) == 1


def test_runs_and_sweeps_together_each_run_once(sweep, tmp_path):
    single = write_run(tmp_path / "single", QUALITY)
    found = find_runs([str(single), str(sweep), str(sweep / "2")])
    assert found.folders == [single, sweep / "2", sweep / "10"] and found.home is None


def test_what_is_no_run_is_told(sweep, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "sweep.json").write_text("{}")
    (tmp_path / "file").touch()
    (tmp_path / "nothing").mkdir()
    for place, told in {
        "absent": "there is nothing at",
        "empty": "no job has been started",
        "file": "is a file",
        "nothing": "nor the folder of a sweep",
        ".": "its subfolders do: disback compare",
    }.items():
        with pytest.raises(UserError, match=told):
            find_runs([str(tmp_path / place)])
    with pytest.raises(UserError, match="no run to compare: job 3"):
        find_runs([str(sweep / "3")])
