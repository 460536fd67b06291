"""Record, distil, look, measure: what is left in the folders, and what is said."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from disback_command import BATCH, ITERATIONS, Done, Workplace, load, rows, state_of, succeeded, together
from PIL import Image
from safetensors.torch import load_file


@pytest.fixture(scope="module")
def looks(studio: Workplace, distillations: dict[str, Done]) -> tuple[Done, Done]:
    """``sample`` and ``evaluate`` with nothing but the size."""
    sampled, evaluated = together(
        lambda: succeeded(studio("sample", "n=10")),
        lambda: succeeded(studio("evaluate", "metrics.n=256")),
    )
    return sampled, evaluated


def _opens(picture: Path) -> None:
    with Image.open(picture) as image:
        image.load()
        assert min(image.size) > 16, picture


def test_the_path_and_its_manifest(recorded: Path) -> None:
    manifest = load(recorded / "path" / "path.json")
    nodes = manifest["nodes"]
    assert [node["index"] for node in nodes] == [0, 1, 2, 3]
    assert [node["iteration"] for node in nodes] == [0, 8, 16, 24]
    assert [node["images"] for node in nodes] == [BATCH * node["iteration"] for node in nodes]
    distances = [node["mismatch"] for node in nodes]
    assert distances[0] == 0 and distances == sorted(distances) and distances[1] > 0
    for node in nodes:
        file = recorded / "path" / node["file"]
        assert hashlib.sha256(file.read_bytes()).hexdigest() == node["sha256"]
    assert {file.name for file in (recorded / "path").iterdir()} == {node["file"] for node in nodes} | {"path.json"}
    assert manifest["teacher"]["name"] == "gmm_2d" and len(manifest["teacher"]["hash"]) == 64
    assert manifest["student"]["sigma_init"] == 2.5
    assert manifest["choices"] == {
        "teacher": "gmm_2d", "student": "one_step", "noise/fake": "lognormal", "noise/fake_weighting": "edm",
        "fake": "full",
    }  # fmt: skip
    assert manifest["cost"]["images"] == BATCH * ITERATIONS
    assert manifest["cost"]["network_passes"] >= 4 * BATCH * ITERATIONS
    assert not (recorded / "candidates").exists()
    assert state_of(recorded) == "finished"
    for name in ("config.yaml", "metrics.csv", "record.log", "summary.json"):
        assert (recorded / name).stat().st_size > 0
    _opens(recorded / "curves.png")
    # node 0 is the teacher, which the untrained student asks once
    teacher = load_file(recorded / "path" / "node_00.safetensors")
    untrained = load_file(recorded / "untrained_student" / "model.safetensors")
    assert {hashlib.sha256(t.numpy().tobytes()).hexdigest() for t in teacher.values()} >= {
        hashlib.sha256(t.numpy().tobytes()).hexdigest() for t in untrained.values() if t.dim() > 1
    }


def test_the_newest_path_is_taken_and_named_and_another_can_be_chosen(
    studio: Workplace, distillations: dict[str, Done], recorded: Path, recorded_by_two: Path
) -> None:
    said = distillations["newest"].stderr
    assert f"path: {recorded_by_two.relative_to(studio.folder)} (the newest of teacher gmm_2d" in said
    assert "(the newest" not in distillations["named"].stderr
    folder = studio.folder / "runs" / "backtrack" / "gmm_2d"
    taken = {name: load(folder / name / "summary.json")["path"] for name in ("newest", "named")}
    assert (studio.folder / taken["newest"]).resolve() == (recorded_by_two / "path").resolve()
    assert (studio.folder / taken["named"]).resolve() == (recorded / "path").resolve()


def test_what_a_distillation_leaves(distilled: Path, distillations: dict[str, Done]) -> None:
    summary = load(distilled / "summary.json")
    assert summary["targets"] == [
        {"iteration": 0, "node": 2}, {"iteration": 5, "node": 1}, {"iteration": 10, "node": 0},
    ]  # fmt: skip
    assert summary["cost"]["images"] == BATCH * ITERATIONS
    assert summary["cost"]["network_passes"] <= 8.05 * BATCH * ITERATIONS
    assert summary["cost"]["network_passes_with_recording"] > summary["cost"]["network_passes"]
    out = distillations["named"].stdout
    table = (distilled / "table.txt").read_text()
    assert table in out
    for name in ("teacher", "untrained student", "distilled student", "fid_256", "evaluations per image"):
        assert name in table
    for line in out.splitlines():
        if line.startswith(("pictures:", "numbers:", "student:")):
            assert all((distilled.parents[3] / word).exists() for word in line.split()[1:]), line
    assert "disback sample student=" in out
    for picture in (
        "grid.png",
        "curves.png",
        "samples/iteration_00000000.png",
        f"samples/iteration_{ITERATIONS:08d}.png",
    ):
        _opens(distilled / picture)
    found = rows(distilled)
    assert [row["iteration"] for row in found] == ["0", "3", "6", "8", "9", "12", "15", "16", "18", "21", "24"]
    assert [row["iteration"] for row in found if row["fid_256"]] == ["0", "8", "16", "24"]
    logged = [row for row in found if row["fake_loss"]]
    assert all(row["sample_mean"] and row["sample_std"] and row["target_node"] for row in logged)
    assert float(found[-1]["fid_256"]) == summary["metrics"]["fid_256"]
    assert state_of(distilled) == "finished"


def test_sample_and_evaluate_take_the_newest_student(studio: Workplace, looks: tuple[Done, Done]) -> None:
    for done in looks:
        assert "(the newest finished one)" in done.stderr
    with np.load(studio.run_of("sample") / "samples.npz") as samples:
        assert samples["samples"].shape == (10, 2) and np.isfinite(samples["samples"]).all()
    _opens(studio.run_of("sample") / "grid.png")
    evaluation = studio.run_of("evaluate")
    summary = load(evaluation / "summary.json")
    student = studio.folder / summary["generator"]["student"]
    last = load(student / "summary.json")
    assert summary["metrics"] == last["metrics"], "the run's last number, of the same student on the same latents"
    assert summary["measured_with"]["reference_sha256"] == last["measured_with"]["reference_sha256"]
    assert summary["evaluations_per_image"] == 1
    assert f"{summary['metrics']['fid_256']:.4g}" in looks[1].stdout


def test_tensorboard_and_the_warning_of_a_collapse(studio: Workplace, distillations: dict[str, Done]) -> None:
    run = studio.folder / "runs" / "backtrack" / "gmm_2d" / "newest"
    (events,) = (run / "tensorboard").glob("events.out.tfevents.*")
    assert events.stat().st_size > 5000, "numbers and pictures"
    said = distillations["newest"].stderr
    assert said.count("samples are nearly all alike") == 1 and "threshold 100" in said
    assert "nearly all alike" not in distillations["named"].stderr
