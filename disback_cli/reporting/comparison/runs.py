"""What the folder of a distillation tells: configuration, rows, costs, provenance."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from disback_cli.configuration import runfolder
from disback_cli.configuration.arguments import shown
from disback_cli.configuration.runfolder import read_json
from disback_cli.errors import UserError
from disback_cli.evaluation.comparable import smaller_is_better
from disback_cli.reporting.comparison.curve import Curve
from disback_cli.runtime.metrics_file import read_metrics

VERB = "backtrack"
_NUMBER = re.compile(r"(swd|fid|kid|is|precision|recall)_\d+k?\Z")
_ORDER = ("swd", "fid", "kid", "is", "precision", "recall")


def is_number(name: str) -> bool:
    """Whether a column of metrics.csv is a measured quality (``fid_2k``), not the spread that belongs to one."""
    return _NUMBER.match(name) is not None


def in_order(names: set[str]) -> list[str]:
    """Measured numbers, the one to select by first: the sliced Wasserstein distance where there is one, then FID."""
    return sorted(names, key=lambda name: (_ORDER.index(name.split("_")[0]), name))


@dataclass(frozen=True)
class RunRecord:
    """A run of ``disback backtrack``, finished or not.

    Attributes:
        folder: the run's folder.
        state: ``finished``, ``running``, ``interrupted`` or ``failed``.
        overrides: the words of its command line.
        config: its resolved configuration.
        rows: of ``metrics.csv``, empty cells left out.
        summary: ``summary.json``; empty until the run is finished.
        created: when it was started.
    """

    folder: Path
    state: str
    overrides: tuple[str, ...]
    config: Mapping[str, Any]
    rows: Sequence[Mapping[str, float]]
    summary: Mapping[str, Any]
    created: str = ""

    @property
    def name(self) -> str:
        """The folder as it is typed from here."""
        return shown(self.folder)

    @property
    def seed(self) -> int:
        """Seed of every draw."""
        return int(self.config.get("seed", 0))

    @property
    def iterations(self) -> int:
        """Generator updates that were asked for."""
        return int(self.config.get("iterations", 0))

    @property
    def last_iteration(self) -> int:
        """Generator updates behind the last row."""
        return int(self.rows[-1]["iteration"]) if self.rows else 0

    @property
    def numbers(self) -> list[str]:
        """The qualities that were measured at least once."""
        return in_order({name for row in self.rows for name in row if is_number(name)})

    @property
    def not_finite(self) -> list[int]:
        """Iterations at which a measured number is not finite."""
        names = self.numbers
        return [
            int(row["iteration"]) for row in self.rows if any(not math.isfinite(row.get(name, 0)) for name in names)
        ]

    @property
    def last_measured(self) -> int | None:
        """Generator updates behind the last finite measurement; None without any."""
        names = self.numbers
        found = [row for row in self.rows if any(math.isfinite(row.get(name, math.nan)) for name in names)]
        return int(found[-1]["iteration"]) if found else None

    @property
    def measuring_interval(self) -> float | None:
        """Generator updates between two measurements; None for a run that measures at its start and end only."""
        evaluate = self.config.get("evaluate")
        images = _as_float(evaluate.get("every")) if isinstance(evaluate, Mapping) else None
        batch = _as_float(self.config.get("batch_size"))
        return images / batch if images and batch else None

    @property
    def measured_with(self) -> Mapping[str, object] | None:
        """Provenance of the numbers; None where the run does not say it (yet)."""
        facts = self.summary.get("measured_with")
        return facts if isinstance(facts, Mapping) else None

    @property
    def teacher(self) -> tuple[str, str | None]:
        """Name of the teacher and the hash of its weights, None where that is not stated (yet)."""
        facts = self.summary.get("teacher")
        if isinstance(facts, Mapping):
            return str(facts.get("name")), str(facts["hash"]) if facts.get("hash") else None
        section = self.config.get("teacher")
        return str(section.get("name") if isinstance(section, Mapping) else section), None

    @property
    def teacher_metrics(self) -> Mapping[str, float]:
        """The teacher's own numbers under its many-step sampler, where they were measured."""
        facts = self.summary.get("teacher_metrics")
        return facts if isinstance(facts, Mapping) else {}

    # The recording ------------------------------------------------------------------------------------------------

    @property
    def uses_path(self) -> bool:
        """Whether the run needed a recording; a path that is given to ``schedule=endpoint`` is none."""
        if self.summary:
            return self.summary.get("path") is not None
        return self.config.get("path") is not None and _walks_a_recording(self.config.get("schedule"))

    @cached_property
    def recording(self) -> Mapping[str, Any] | None:
        """``path.json`` of the recording the run used; None where it is not to be found any more."""
        place = self.summary.get("path") or self.config.get("path")
        if not self.uses_path or not place:
            return None
        candidates = (Path(str(place)), Path(str(place)) / "path.json", Path(str(place)) / "path" / "path.json")
        content = next((read_json(file) for file in candidates if file.name == "path.json" and file.is_file()), None)
        return content if isinstance(content, Mapping) else None

    @property
    def recording_passes(self) -> float | None:
        """Network passes of the recording: 0 without one, None where they are unknown."""
        whole, own = self._cost("network_passes_with_recording"), self._cost("network_passes")
        if whole is not None and own is not None:
            return whole - own
        return self._of_recording("network_passes")

    @property
    def recording_seconds(self) -> float | None:
        """Wall time of the recording: 0 without one, None where it is unknown."""
        stated = self._cost("recording_seconds")
        return stated if stated is not None else self._of_recording("seconds")

    def _of_recording(self, name: str) -> float | None:
        if not self.uses_path:
            return 0.0
        cost = (self.recording or {}).get("cost")
        return _as_float(cost.get(name)) if isinstance(cost, Mapping) else None

    def _cost(self, name: str) -> float | None:
        cost = self.summary.get("cost")
        return _as_float(cost.get(name)) if isinstance(cost, Mapping) else None

    # Costs along the run ------------------------------------------------------------------------------------------

    @cached_property
    def _passes(self) -> tuple[list[float], list[float]] | None:
        """Iterations of rows and the network passes there, the recording's included."""
        begin, images, own = self.recording_passes, self._cost("images"), self._cost("network_passes")
        if begin is None:
            return None
        if any("network_passes" in row for row in self.rows):
            return self._column("network_passes", begin)
        # runs of earlier versions have no such column; an image cost the same all the time
        if not images or own is None:
            return None
        iterations, seen = self._column("images", 0.0)
        return iterations, [begin + count * own / images for count in seen]

    @cached_property
    def _seconds(self) -> tuple[list[float], list[float]] | None:
        """Iterations of rows and the wall time there, the recording's included."""
        begin = self.recording_seconds
        if begin is None or not any("seconds" in row for row in self.rows):
            return None
        return self._column("seconds", begin)

    def _column(self, name: str, begin: float) -> tuple[list[float], list[float]]:
        rows = [row for row in self.rows if name in row]
        return [row["iteration"] for row in rows], [begin + row[name] for row in rows]

    def passes_at(self, iterations: Sequence[float]) -> tuple[float, ...] | None:
        """Network passes behind these iterations, the recording's included; None where they are unknown."""
        return _between(self._passes, iterations)

    def seconds_at(self, iterations: Sequence[float]) -> tuple[float, ...] | None:
        """Wall time behind these iterations, the recording's included; None where it is unknown."""
        return _between(self._seconds, iterations)

    # What there is along the run ----------------------------------------------------------------------------------

    def curve(self, number: str, variant: str) -> Curve | None:
        """A measured number over its costs; None where it was never measured."""
        rows = [row for row in self.rows if math.isfinite(row.get(number, math.nan))]
        if not rows:
            return None
        updates = tuple(int(row["iteration"]) for row in rows)
        quality = tuple(row[number] for row in rows)
        passes, seconds = self.passes_at(updates), self.seconds_at(updates)
        return Curve(variant, self.seed, updates, passes, quality, seconds, smaller_is_better(number))

    def series(self, column: str) -> tuple[list[float], list[float]]:
        """Iterations and values of a column where it is filled."""
        rows = [row for row in self.rows if math.isfinite(row.get(column, math.nan))]
        return [row["iteration"] for row in rows], [row[column] for row in rows]

    @cached_property
    def switches(self) -> list[tuple[int, float]]:
        """(iteration, node) for every change of the target; of a run without a summary as its rows show them."""
        stated = self.summary.get("targets")
        if isinstance(stated, list):
            found = [(int(s["iteration"]), float(s["node"])) for s in stated if isinstance(s, Mapping)]
        else:
            found = [(int(i), node) for i, node in zip(*self.series("target_node"), strict=True)]
        return [(at, node) for (at, node), (_, before) in zip(found[1:], found, strict=False) if node != before]

    def grids(self) -> Iterator[tuple[int, Path]]:
        """(iteration, picture) of the sample grids, in the order of the run."""
        for file in sorted((self.folder / "samples").glob("iteration_*.png")):
            digits = file.stem.removeprefix("iteration_")
            if digits.isdigit():
                yield int(digits), file


def _walks_a_recording(schedule: Any) -> bool:
    """Whether a schedule needs the path it is given: asked for runs without a summary, in which it would be said."""
    facts = schedule if isinstance(schedule, Mapping) else {}
    kind = str(facts.get("_target_")).rsplit(".", 1)[-1]
    if kind == "RerecordSchedule":  # at=[0, ...] records the first path itself
        return 0 not in (facts.get("at") or ())
    return kind != "EndpointSchedule"


def _as_float(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _between(points: tuple[list[float], list[float]] | None, at: Sequence[float]) -> tuple[float, ...] | None:
    if points is None or not points[0]:
        return None
    return tuple(float(value) for value in np.interp(at, *points))


def read_run(folder: Path) -> RunRecord:
    """A run from its own files.

    Raises:
        UserError: the folder is no run of ``disback backtrack``, or one of its files is damaged.
    """
    run = runfolder.read_named(folder, shown(folder))
    if run is None:
        raise UserError(f"{shown(folder)} is no run: there is no {runfolder.RUN_FILE} in it")
    if run.verb != VERB:
        raise UserError(f"{shown(folder)} is a run of `disback {run.verb}`; compared are runs of `disback {VERB}`")
    summary = read_json(folder / "summary.json")
    return RunRecord(
        folder, run.state, run.overrides, _config(folder), _rows(folder),
        summary if isinstance(summary, Mapping) else {}, run.created,
    )  # fmt: skip


def _config(folder: Path) -> Mapping[str, Any]:
    file = folder / "config.yaml"
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        raise UserError(f"{shown(file)} cannot be read ({error}): without it nobody knows what the run was") from error
    if not isinstance(content, Mapping):
        raise UserError(f"{shown(file)} holds no configuration: without it nobody knows what the run was")
    return content


def _rows(folder: Path) -> list[dict[str, float]]:
    file = folder / "metrics.csv"
    try:
        rows = read_metrics(file)
    except (OSError, ValueError) as error:
        raise UserError(f"{shown(file)} cannot be read ({error}): restore it, or leave the run out") from error
    if any("iteration" not in row for row in rows):
        raise UserError(f"{shown(file)} has rows without an iteration: restore it, or leave the run out")
    return rows
