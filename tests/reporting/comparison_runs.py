"""Run folders of `disback backtrack` as they lie on disk, with curves of our choice."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

EVERY = 10
BATCH = 32
COST = 8
RECORDING_PASSES, RECORDING_SECONDS = 1000, 5.0
MEASURED: dict[str, Any] = {
    "n": 2048, "splits": None, "extractor": "points", "extractor_sha256": "ab" * 32, "resize": "none",
    "reference_dataset": "ring8", "reference_split": "train", "reference_sha256": "cd" * 32, "reference_n": 20000,
}  # fmt: skip
SCHEDULES = {"path": "PathSchedule", "endpoint": "EndpointSchedule", "warm_start": "WarmStartSchedule"}


def write_recording(folder: Path, seed: int = 0, student: Mapping[str, Any] | None = None, **recording: Any) -> Path:
    """A recording's folder, without its nodes; `student` is the manifest's section."""
    (folder / "path").mkdir(parents=True)
    manifest = {
        "recording": {"iterations": 100, "seed": seed, "spacing": "distance", **recording},
        "cost": {"network_passes": RECORDING_PASSES, "seconds": RECORDING_SECONDS},
    }
    manifest |= {"student": dict(student)} if student else {}
    (folder / "path" / "path.json").write_text(json.dumps(manifest))
    return folder


def write_run(
    folder: Path,
    quality: Sequence[float],
    *,
    seed: int = 0,
    schedule: str = "endpoint",
    path: Path | None = None,
    number: str = "fid_2k",
    state: str = "finished",
    columns: bool = True,
    measured: Mapping[str, Any] | None = MEASURED,
    teacher: tuple[str, str] = ("gmm_2d", "11" * 32),
    words: Sequence[str] = (),
    extra: Mapping[str, Sequence[float]] | None = None,
    config: Mapping[str, Any] | None = None,
    grids: bool = False,
) -> Path:
    """A run measured every `EVERY` updates from 0 on, at `COST` passes a sample and a second an update.

    Args:
        folder: of the run.
        quality: the measurements.
        seed, schedule, path, words, config: what was asked for; `words` follow those of schedule and seed.
        number: name of the measured number.
        state: of the run; only a finished one has a summary.
        columns: whether metrics.csv has the columns network_passes and seconds.
        measured: provenance in the summary.
        teacher: name and hash.
        extra: further columns.
        grids: write a sample grid at every measurement.
    """
    folder.mkdir(parents=True)
    _write_rows(folder, quality, number, columns, extra or {})
    settings = {
        "verb": "backtrack", "teacher": {"name": teacher[0]}, "iterations": EVERY * (len(quality) - 1), "seed": seed,
        "schedule": {"_target_": f"disback_cli.distillation.schedules.{SCHEDULES[schedule]}"},
        "path": None if path is None else str(path), "metrics": {"n": 2048, "reference": None},
        "trainer": {"threads": 1}, "logger": {"_target_": "x.csv_only"}, "dataset": {"modes": 8},
    }  # fmt: skip
    (folder / "config.yaml").write_text(yaml.safe_dump(settings | dict(config or {})))
    overrides = [f"schedule={schedule}", f"seed={seed}", *([] if path is None else [f"path={path}"]), *words]
    run = {
        "format": 1, "verb": "backtrack", "teacher": teacher[0], "overrides": overrides,
        "created": f"2026-01-01T00:00:{seed:02d}.000+00:00", "state": state,
    }  # fmt: skip
    (folder / "run.json").write_text(json.dumps(run))
    if state == "finished":
        _write_summary(folder, schedule, path, teacher, measured, len(quality))
    if grids:
        (folder / "samples").mkdir()
        for i in range(len(quality)):
            picture = folder / "samples" / f"iteration_{EVERY * i:08d}.png"
            Image.new("RGB", (8, 8), (EVERY * i % 256, seed, 0)).save(picture)
    return folder


def _write_rows(
    folder: Path, quality: Sequence[float], number: str, columns: bool, extra: Mapping[str, Sequence[float]]
) -> None:
    steps = [EVERY * i for i in range(len(quality))]
    rows = [{"iteration": step, "images": BATCH * step, number: quality[i]} for i, step in enumerate(steps)]
    for i, row in enumerate(rows):
        row |= {"network_passes": COST * BATCH * steps[i], "seconds": float(steps[i])} if columns else {}
        row |= {name: values[i] for name, values in extra.items()}
    with (folder / "metrics.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]) if rows else ["iteration"])
        writer.writeheader()
        writer.writerows(rows)


def _write_summary(
    folder: Path, schedule: str, path: Path | None, teacher: tuple[str, str], measured: Any, count: int
) -> None:
    walks = path is not None and schedule != "endpoint"
    images = BATCH * EVERY * (count - 1)
    summary = {
        "teacher": {"name": teacher[0], "hash": teacher[1]}, "path": str(path / "path") if path and walks else None,
        "measured_with": measured, "targets": [{"iteration": 0, "node": 1}, {"iteration": 10, "node": 0}],
        "cost": {"images": images, "network_passes": COST * images,
                 "network_passes_with_recording": COST * images + RECORDING_PASSES * walks},
    }  # fmt: skip
    (folder / "summary.json").write_text(json.dumps(summary))
