"""Reports about sweeps: what was varied, and what became of each job."""

from __future__ import annotations

from pathlib import Path

from disback_cli.configuration import runfolder
from disback_cli.configuration.discovery import SWEEP_FILE
from disback_cli.configuration.jobs import DONE, STATUS_FILE
from disback_cli.configuration.noise_laws import shorthand
from disback_cli.configuration.runfolder import read_json
from disback_cli.configuration.sweeptable import measured_differently, metrics_of
from disback_cli.inspection.report import Report, command


def report_sweep(folder: Path) -> Report:
    """What was varied and what became of each job."""
    stored = read_json(folder / SWEEP_FILE)
    verb = str(stored.get("verb")) if isinstance(stored, dict) else "?"
    words = runfolder.texts(stored.get("overrides")) if isinstance(stored, dict) else None
    report = Report(folder, "sweep", f"a sweep of `disback {verb}`")
    report.add("overrides", list(words or ()), " ".join(words or ()) or "none")
    jobs = sorted((file.parent for file in folder.glob(f"*/{STATUS_FILE}")), key=_numbered)
    states = []
    mixed = measured_differently(jobs)
    report.notes += mixed
    measured = {job: {} if mixed else metrics_of(job) for job in jobs}
    names = _shared([metrics for metrics in measured.values() if metrics])
    report.columns = ("job", "state", "seconds", *names, "overrides")
    for job in jobs:
        status = read_json(job / STATUS_FILE)
        status = status if isinstance(status, dict) else {}
        states.append(str(status.get("state", "?")))
        numbers = [measured[job].get(name) for name in names]
        report.rows.append(
            [
                job.name,
                states[-1],
                status.get("seconds"),
                *numbers,
                " ".join(shorthand(runfolder.texts(status.get("overrides")) or ())),
            ]
        )
    counts = {state: states.count(state) for state in dict.fromkeys(states)}
    report.add("jobs", counts, ", ".join(f"{count} {state}" for state, count in counts.items()) or "none started")
    if words is None:
        report.notes.append(f"{SWEEP_FILE} is damaged: the sweep cannot be continued")
    elif set(states) != {DONE} and runfolder.holder(folder) is None:
        report.next.append(command(verb, "-m", ("hydra.sweep.dir", folder)))
    return report


def _numbered(job: Path) -> tuple[int, str]:
    return (int(job.name) if job.name.isdigit() else 1 << 30, job.name)


def _shared(measured: list[dict[str, float]]) -> list[str]:
    return [name for name in measured[0] if all(name in other for other in measured)][:4] if measured else []
