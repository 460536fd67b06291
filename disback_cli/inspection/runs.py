"""Reports about what this program leaves: runs, recorded paths, sweeps."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from disback_cli.configuration import runfolder
from disback_cli.configuration.arguments import shown
from disback_cli.configuration.discovery import RESUMABLE, SWEEP_FILE
from disback_cli.configuration.pairsource import PAIRS_FILE
from disback_cli.configuration.runfolder import Run, read_json
from disback_cli.denoisers.open_source import open_source, usable_without_memory
from disback_cli.errors import UserError
from disback_cli.inspection.pairs import describe_pairs, report_pairs
from disback_cli.inspection.paths import PATH_FILE, describe_path, report_path
from disback_cli.inspection.report import Report, command, typed
from disback_cli.inspection.sweeps import report_sweep

_SUMMARY_FILE = "summary.json"
_NETWORKS_OF = {"backtrack": "student", "regress": "student", "pretrain": "teacher"}
_SHOWN_RUNS = 30
_KINDS = {
    "record": "recording", "assemble": "assembly", "backtrack": "distillation", "pretrain": "training",
    "regress": "regression", "sample": "samples", "pairs": "pairs",
}  # fmt: skip


def report_run(run: Run) -> Report:
    """How far a run has come, what it left, and how it is gone on with or used."""
    report = Report(run.folder, _KINDS.get(run.verb, run.verb), f"a run of `disback {run.verb}`")
    report.add("teacher", run.teacher)
    report.add("state", run.state, _state(run))
    report.add("started", run.created)
    report.add("overrides", list(run.overrides), " ".join(run.overrides) or "none")
    if run.verb in RESUMABLE:
        _describe_progress(report, run)
    summary = read_json(run.folder / _SUMMARY_FILE)
    if isinstance(summary, Mapping):
        _describe_summary(report, summary)
    whole = True
    if (run.folder / "path" / PATH_FILE).is_file():
        whole = describe_path(report, run.folder / "path")
    elif (run.folder / PAIRS_FILE).is_file():
        whole = describe_pairs(report, run.folder)
    elif run.verb in ("record", "assemble") and run.finished:
        whole = False
        report.notes.append("The recording is finished, but its path/ is not there: record it again.")
    if not run.finished:
        _next_of_unfinished(report, run)
    elif whole:
        _next_of_finished(report, run)
    return report


def _state(run: Run) -> str:
    owner = runfolder.holder(run.folder)
    if owner is not None:
        return f"{run.state}; process {owner.get('pid', '?')} on {owner.get('host', '?')} works in it"
    if run.state == "running":
        return "running, says run.json, but no process on this machine holds it: it was killed, or runs elsewhere"
    return run.state


def _describe_progress(report: Report, run: Run) -> None:
    config, checkpoints = _config(run.folder), read_json(run.folder / "checkpoints" / "checkpoints.json")
    entries = checkpoints.get("checkpoints") if isinstance(checkpoints, dict) else None
    done = (
        entries[-1].get("iteration")
        if isinstance(entries, list) and entries and isinstance(entries[-1], dict)
        else None
    )
    total = config.get("iterations")
    if isinstance(total, int):
        text = f"{done or 0:,} of {total:,} in the newest checkpoint"
        report.add("iterations", {"saved": done, "total": total}, None if not run.finished else f"{total:,}")
        report.texts["iterations"] = f"{total:,}" if run.finished else text


def _config(folder: Path) -> Mapping[str, Any]:
    try:
        content = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        return {}
    return content if isinstance(content, Mapping) else {}


def _describe_summary(report: Report, summary: Mapping[str, Any]) -> None:
    for name in ("metrics", "cost"):
        value = summary.get(name)
        if isinstance(value, Mapping) and value:
            numbers = {key: item for key, item in value.items() if isinstance(item, (int, float, str))}
            report.add(name, dict(value), ", ".join(f"{key}={_number(item)}" for key, item in numbers.items()))


def _number(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.6g}" if isinstance(value, float) else str(value)


def _next_of_unfinished(report: Report, run: Run) -> None:
    if runfolder.holder(run.folder) is not None:
        report.notes.append("A process is working in it; wait for its end.")
    elif run.verb in RESUMABLE:
        report.next.append(command(run.verb, ("resume", run.folder)))
    elif run.verb == "pairs":
        report.notes.append("The same command goes on with them.")
        report.next.append(shlex.join(["disback", run.verb, *run.overrides]))
    else:
        report.notes.append(f"`disback {run.verb}` is not continued; give the command again.")


def _next_of_finished(report: Report, run: Run) -> None:
    folder = run.folder
    if run.verb in ("record", "assemble"):
        report.next.append(command("backtrack", ("path", folder)))
    elif run.verb == "pairs":
        report.next.append(command("regress", ("pairs", folder)))
    elif run.verb in _NETWORKS_OF and not _is_usable(report, folder / _NETWORKS_OF[run.verb]):
        report.notes.append(
            "The run is finished, but its network cannot be used: take it from a copy, or run it again."
        )
    elif run.verb in ("backtrack", "regress"):
        report.next += [
            command("sample", ("student", folder)),
            command("evaluate", ("student", folder)),
            f"disback convert {typed(folder)} OUT to=diffusers",
        ]
    elif run.verb == "pretrain":
        report.next.append(command("record", "teacher=folder", ("teacher.folder", folder)))
    else:
        written = sorted(file.name for file in folder.iterdir() if file.is_file())
        report.add("files", written)


def _is_usable(report: Report, folder: Path) -> bool:
    """Whether the network that a run left is whole and can be built."""
    try:
        usable_without_memory(open_source(folder))
    except UserError as error:
        report.refuse(str(error))
        return False
    report.usable = True if folder.name == "teacher" else None
    return True


Reporter = Callable[[Path], Report]


def reporter_of(folder: Path) -> Reporter | None:
    """Which of these a folder is, or a file ``run.json``, ``path.json`` or ``pairs.json`` in it; None for others."""
    if (folder / runfolder.RUN_FILE).is_file():
        return _report_run_folder
    if (folder / PATH_FILE).is_file():
        return report_path
    if (folder / PAIRS_FILE).is_file():
        return report_pairs
    if (folder / SWEEP_FILE).is_file():
        return report_sweep
    return _report_collection if any(_runs_below(folder)) else None


def _runs_below(folder: Path) -> Iterator[Path]:
    """Folders of runs, in the depths at which they are collected: <runs>/<verb>/<teacher>/<run>."""
    for depth in ("*", "*/*", "*/*/*"):
        yield from (file.parent for file in folder.glob(f"{depth}/{runfolder.RUN_FILE}"))


def _report_collection(folder: Path) -> Report:
    """A folder that collects runs: which there are, the newest first."""
    runs = [run for run in map(runfolder.read, _runs_below(folder)) if run is not None]
    runs.sort(key=lambda run: run.created, reverse=True)
    report = Report(folder, "runs", "a folder of runs")
    report.add("runs", len(runs))
    report.columns = ("verb", "teacher", "state", "started", "folder")
    report.rows = [[run.verb, run.teacher, run.state, run.created, shown(run.folder)] for run in runs[:_SHOWN_RUNS]]
    report.next += [f"disback inspect {typed(run.folder)}" for run in runs[:1]]
    return report


def _report_run_folder(folder: Path) -> Report:
    run = runfolder.read_named(folder, str(folder))
    assert run is not None
    return report_run(run)
