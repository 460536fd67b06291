"""``-m``: real jobs, one of which cannot work."""

from __future__ import annotations

import csv
from pathlib import Path

from disback_command import BATCH, Workplace, load, state_of


def test_a_sweep_over_schedules(workplace: Workplace, recorded: Path) -> None:
    done = workplace(
        "backtrack", "-m", "schedule=path,endpoint,warm_start", "seed=0", "teacher=gmm_2d", f"path={recorded}",
        "iterations=12", f"batch_size={BATCH}", "metrics.n=256", "hydra.sweep.dir=sweep", "hydra.launcher.jobs=2",
    )  # fmt: skip
    sweep = workplace.folder / "sweep"
    # with the usual interval the path would reach the teacher at iteration 30 only
    assert done.returncode == 1, done.stderr
    assert "1 of 3 jobs are not done:\n  job 0 failed, see sweep/0/job.log" in done.stderr
    assert "Traceback" not in done.stderr
    log = (sweep / "0" / "job.log").read_text()
    assert "the teacher would become the target at iteration 30 of 12 only" in log and "Traceback" not in log
    assert [load(sweep / name / "status.json")["state"] for name in "012"] == ["failed", "done", "done"]
    with (sweep / "results.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [(row["schedule"], row["state"]) for row in table] == [
        ("path", "failed"),
        ("endpoint", "done"),
        ("warm_start", "done"),
    ]
    for row in table[1:]:
        summary = load(sweep / row["job"] / "summary.json")
        assert float(row["fid_256"]) == float(f"{summary['metrics']['fid_256']:.6g}")
        assert row["fid_256"] in done.stdout and state_of(sweep / row["job"]) == "finished"
        assert (sweep / row["job"] / "student" / "model.safetensors").exists()
    assert not (workplace.folder / "runs").exists()

    before = {file: file.stat().st_mtime_ns for name in "12" for file in (sweep / name).rglob("*") if file.is_file()}
    again = workplace("backtrack", "-m", "hydra.sweep.dir=sweep")
    assert again.returncode == 1
    assert "2 of 3 jobs in sweep are done already" in again.stdout and "job 0 failed" in again.stderr
    after = {file: file.stat().st_mtime_ns for name in "12" for file in (sweep / name).rglob("*") if file.is_file()}
    assert after == before
