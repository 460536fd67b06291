"""The table of a sweep: what varied, what became of each job, and the numbers of all measured jobs."""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from disback_cli.configuration.arguments import Override
from disback_cli.configuration.jobs import Job
from disback_cli.configuration.noise_laws import shorthand, shown_key
from disback_cli.configuration.runfolder import read_json
from disback_cli.evaluation.comparable import differences, identity

SUMMARY_FILE = "summary.json"
RESULTS_FILE = "results.csv"
_MANY_DIGITS = re.compile(r"(?<![\w.])-?\d+\.\d{6,}(e[+-]?\d+)?(?![\w.])")


def varying(jobs: Sequence[Job]) -> list[str]:
    """The keys whose value is not the same in all jobs, in the order of the command line."""
    values: dict[str, set[str | None]] = {}
    for job in jobs:
        given = {override.key: override.value for override in map(Override, shorthand(job.overrides))}
        for key in given:
            values.setdefault(key, set())
    for job in jobs:
        given = {override.key: override.value for override in map(Override, shorthand(job.overrides))}
        for key, seen in values.items():
            seen.add(given.get(key))
    return [key for key, seen in values.items() if len(seen) > 1]


def shown_keys(jobs: Sequence[Job], swept: Sequence[str] = ()) -> list[str]:
    """The keys that tell jobs apart: those that the command line varies, and others that are not the same in all."""
    words = shorthand(jobs[0].overrides) if jobs else []
    return list(dict.fromkeys([*(shown_key(key, words) for key in swept), *varying(jobs)]))


def labels(jobs: Sequence[Job], swept: Sequence[str] = ()) -> dict[int, str]:
    """What tells a job from the others: its overrides that vary."""
    keys = set(shown_keys(jobs, swept))
    return {job.number: label(job.overrides, keys) for job in jobs}


def label(words: Sequence[str], keys: Collection[str]) -> str:
    """The words with one of these keys, to be read by people."""
    return " ".join(short(word) for word in shorthand(words) if Override(word).key in keys)


def short(text: str) -> str:
    """A text without the digits of its numbers that nobody reads: a search proposes 17 of them."""
    return _MANY_DIGITS.sub(lambda found: f"{float(found[0]):.4g}", text)


def _summary(folder: Path) -> Mapping[str, Any]:
    summary = read_json(folder / SUMMARY_FILE)
    return summary if isinstance(summary, Mapping) else {}


def metrics_of(folder: Path) -> dict[str, float]:
    """The numbers in the ``metrics`` of a job's ``summary.json``."""
    metrics = _summary(folder).get("metrics")
    if not isinstance(metrics, Mapping):
        return {}
    return {str(k): float(v) for k, v in metrics.items() if isinstance(v, (int, float)) and not isinstance(v, bool)}


def measured_differently(folders: Sequence[Path]) -> list[str]:
    """Why the numbers of these jobs cannot stand in one table; nothing where they can."""
    stated = [(folder, summary.get("measured_with")) for folder in folders if (summary := _summary(folder))]
    known = [(folder, facts) for folder, facts in stated if isinstance(facts, Mapping)]
    for folder, facts in known[1:]:
        found = differences(known[0][1], facts, metrics_of(known[0][0]).keys() | metrics_of(folder).keys())
        if found:
            return [
                f"{known[0][0].name} and {folder.name} were measured differently: their numbers do not compare",
                *found,
            ]
    return []


def measured_with(folder: Path) -> str:
    """Letters that are the same for numbers that can be compared; nothing for a job that was not measured."""
    facts = _summary(folder).get("measured_with")
    if not isinstance(facts, Mapping):
        return ""
    text = json.dumps(identity(facts, metrics_of(folder).keys()), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def table(jobs: Sequence[Job], swept: Sequence[str] = ()) -> list[list[str]]:
    """Header and rows: number, varying overrides, state, seconds, the metrics that all measured jobs share, folder.

    Where numbers were measured differently, there are those of any job, and a column ``measured_with`` tells them
    apart: those with the same letters in it can be compared.
    """
    keys = shown_keys(jobs, swept)
    mixed = bool(measured_differently([job.folder for job in jobs]))
    measured = {job.number: metrics_of(job.folder) for job in jobs}
    names = list(dict.fromkeys(name for metrics in measured.values() for name in metrics))
    if not mixed:
        names = [name for name in names if all(name in metrics for metrics in measured.values() if metrics)]
    rows = [["job", *keys, "state", "seconds", *names, *(["measured_with"] if mixed else []), "folder"]]
    for job in jobs:
        given = {override.key: override.value or "" for override in map(Override, shorthand(job.overrides))}
        numbers = [f"{measured[job.number][name]:.6g}" if name in measured[job.number] else "" for name in names]
        numbers += [measured_with(job.folder)] if mixed else []
        values = [given.get(key, "") for key in keys]
        rows.append([str(job.number), *values, job.state or "not run", f"{job.seconds:.1f}", *numbers, str(job.folder)])
    return rows


def as_text(rows: Sequence[Sequence[str]]) -> str:
    """The table in columns for the console."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def write_csv(rows: Sequence[Sequence[str]], folder: Path) -> Path:
    """The table as ``results.csv`` in the folder of the sweep."""
    path = folder / RESULTS_FILE
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return path
