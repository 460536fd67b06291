"""What a sweep ends with: its table, the best variant over the seeds, the best run, and the command that repeats it."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

from disback_cli.configuration import jobs, runfolder, sweeptable
from disback_cli.configuration.arguments import Override
from disback_cli.configuration.jobs import Job
from disback_cli.configuration.noise_laws import shorthand
from disback_cli.configuration.sweeptable import as_text, label, measured_with, metrics_of, short
from disback_cli.evaluation.comparable import smaller_is_better

SEED = "seed"
# Of points the Frechet distance sees mean and covariance only, so the sliced Wasserstein distance goes first.
_PREFERRED = ("swd_", "fid_")
# describe the invocation, not the run
_NOT_REPEATED = ("resume", "runs")


@dataclass(frozen=True)
class Sweep:
    """A sweep as far as it has come.

    Attributes:
        verb: of its jobs.
        folder: where they are.
        jobs: in their order.
        keys: what the command line varies.
        metric: the number that says which job is best; None takes the first sliced Wasserstein or Frechet distance.
        flags: of the command line, which every job has.
    """

    verb: str
    folder: Path
    jobs: Sequence[Job]
    keys: Sequence[str]
    metric: str | None
    flags: Sequence[str]


_NEWEST: list[Sweep] = []


def remember(sweep: Sweep) -> None:
    """Keep what is to be reported when the process has run all its batches of jobs."""
    _NEWEST[:] = [sweep]


@contextmanager
def told_at_the_end() -> Iterator[None]:
    """Print the report of the sweep that was run inside, however it ended."""
    _NEWEST.clear()
    try:
        yield
    finally:
        if _NEWEST:
            print(f"\n{report(_NEWEST[0])}", flush=True)


def lower_wins(name: str) -> bool:
    """Whether a smaller value of this number is better."""
    return smaller_is_better(name) or name.startswith("mismatch")


def metric_of(measured: Sequence[Mapping[str, float]], wished: str | None) -> str | None:
    """The number to go by: the one that was wished for, else the first distance that all measured jobs have."""
    numbers = [metrics for metrics in measured if metrics]
    if wished is not None:
        return wished if any(wished in metrics for metrics in numbers) else None
    shared = [name for name in (numbers[0] if numbers else ()) if all(name in metrics for metrics in numbers)]
    found = (name for prefix in _PREFERRED for name in shared if name.startswith(prefix))
    return next(found, None)


def value_of(job: Job, metric: str | None) -> float | None:
    """The number of a finished job; None for one that failed, was not measured, or has no finite number."""
    if job.state != jobs.DONE or metric is None:
        return None
    value = metrics_of(job.folder).get(metric)
    return value if value is not None and math.isfinite(value) else None


def outcome(job: Job, wished: str | None) -> str:
    """The number of a finished job for the line that says so, and whether it is not the one that was wished for."""
    metric = _metric_of_jobs([job], wished)
    value = value_of(job, metric)
    told = [f"{metric} {value:.6g}"] if value is not None else []
    return "  ".join([*told, *_not_there([job], wished)])


def report(sweep: Sweep) -> str:
    """The table, then the best of the jobs, or of every set of jobs whose numbers can be compared."""
    different = sweeptable.measured_differently([job.folder for job in sweep.jobs])
    groups = _comparable(sweep.jobs) if different else [sweep.jobs]
    rows = sweeptable.table(sweep.jobs, sweep.keys)
    order = list(range(len(sweep.jobs)))
    if not different:
        metric = _metric_of_jobs(sweep.jobs, sweep.metric)
        order.sort(key=lambda index: _rank(sweep.jobs[index], metric))
    varied = 1 + len(sweeptable.shown_keys(sweep.jobs, sweep.keys))
    sorted_rows = [rows[index + 1] for index in order]
    shown = [[*map(short, row[:varied]), *row[varied:]] for row in sorted_rows]
    parts = [as_text([rows[0], *shown]), "\n".join(different)]
    parts.append(str(sweep.folder / sweeptable.RESULTS_FILE))
    for group in groups:
        heading = f"measured with {measured_with(group[0].folder)}:\n" if different else ""
        best = _best(sweep, group)
        parts.append(heading + best if best else "")
    return "\n\n".join(part for part in parts if part)


def _comparable(sweep_jobs: Sequence[Job]) -> list[list[Job]]:
    """The measured jobs, those with numbers that can be compared together."""
    found: dict[str, list[Job]] = {}
    for job in sweep_jobs:
        if letters := measured_with(job.folder):
            found.setdefault(letters, []).append(job)
    return list(found.values())


def _metric_of_jobs(sweep_jobs: Sequence[Job], wished: str | None) -> str | None:
    """The number to go by: the wished one, else what is gone by without a wish."""
    measured = [metrics_of(job.folder) for job in sweep_jobs if job.state == jobs.DONE]
    return metric_of(measured, wished) or metric_of(measured, None)


def _not_there(sweep_jobs: Sequence[Job], wished: str | None) -> list[str]:
    """The sentence about a wished number that none of the measured jobs has; nothing where one has it."""
    measured = [metrics for job in sweep_jobs if job.state == jobs.DONE and (metrics := metrics_of(job.folder))]
    if wished is None or not measured or any(wished in metrics for metrics in measured):
        return []
    there = ", ".join(sorted({name for metrics in measured for name in metrics}))
    whose = "this job has no such number" if len(sweep_jobs) == 1 else "no job has this number"
    return [f"hydra.launcher.metric={wished}: {whose}; there are {there}"]


def _rank(job: Job, metric: str | None) -> tuple[bool, float]:
    """Sorts jobs, the best first, those without a number last and in their order."""
    value = value_of(job, metric)
    if value is None or metric is None:
        return True, 0.0
    return False, value if lower_wins(metric) else -value


@dataclass(frozen=True)
class Variant:
    """Jobs that differ in their seed only."""

    name: str
    jobs: Sequence[Job]
    values: Sequence[float]

    @property
    def complete(self) -> bool:
        """Whether every seed has a number: a mean over the seeds that survived would flatter."""
        return len(self.values) == len(self.jobs)


def variants(sweep_jobs: Sequence[Job], keys: Sequence[str], metric: str) -> list[Variant]:
    """The jobs by everything but their seed, the best mean first, those without a number for every seed last."""
    found: dict[tuple[str, ...], list[Job]] = {}
    for job in sweep_jobs:
        found.setdefault(tuple(word for word in job.overrides if Override(word).key != SEED), []).append(job)
    made = []
    for words, group in found.items():
        values = [value for job in group if (value := value_of(job, metric)) is not None]
        made.append(Variant(label(words, keys) or "all", group, values))
    sign = 1 if lower_wins(metric) else -1
    return sorted(made, key=lambda v: (not v.values, not v.complete, sign * mean(v.values) if v.values else 0.0))


def _best(sweep: Sweep, alike: Sequence[Job]) -> str:
    """Which of the jobs that can be compared was best, over the seeds if there are several, and how to repeat it."""
    metric = _metric_of_jobs(alike, sweep.metric)
    lines = _not_there(alike, sweep.metric)
    if metric is None or all(value_of(job, metric) is None for job in alike):
        return "\n".join(lines)
    lines = [f"{line}, so the best is by {metric}:" for line in lines]
    keys = sweeptable.shown_keys(sweep.jobs, sweep.keys)
    candidates, of_whom = alike, ""
    if SEED in keys:
        ranked = variants(alike, [key for key in keys if key != SEED], metric)
        candidates = ranked[0].jobs
        wins = "smaller" if lower_wins(metric) else "larger"
        lines += [f"{metric} over the seeds ({wins} is better):", as_text(_over_seeds(ranked)), ""]
        if len(ranked) > 1:
            best, values = ranked[0].name, ranked[0].values
            lines.append(f"best variant: {best} (mean {mean(values):.6g} of {len(values)} seeds)")
            of_whom = " of the best variant" if len(candidates) > 1 else ""
    job = min(candidates, key=lambda candidate: _rank(candidate, metric))
    own = label(job.overrides, keys)
    which = f"job {job.number}{f' ({own})' if own else ''}"
    lines.append(f"best run{of_whom}: {which}, {metric} {value_of(job, metric):.6g}")
    return "\n".join([*lines, "repeat it:", f"  {command_of(sweep, job)}"])


def _over_seeds(ranked: Sequence[Variant]) -> list[list[str]]:
    rows = [["variant", "seeds", "mean", "std", "min", "max"]]
    for variant in ranked:
        count = len(variant.values)
        seeds = str(count) if variant.complete else f"{count} of {len(variant.jobs)}"
        spread = f"{stdev(variant.values):.6g}" if count > 1 else ""
        numbers = [mean(variant.values), min(variant.values), max(variant.values)] if count else []
        shown = [f"{number:.6g}" for number in numbers] or ["", "", ""]
        rows.append([variant.name, seeds, shown[0], spread, *shown[1:]])
    return rows


def command_of(sweep: Sweep, job: Job) -> str:
    """The command that runs a job again, quoted for a shell: with all that was found on disk when it ran."""
    run = runfolder.read(job.folder)
    words = run.overrides if run is not None else job.overrides
    kept = [word for word in words if Override(word).key not in _NOT_REPEATED]
    return shlex.join(["disback", sweep.verb, *shorthand(kept), *sweep.flags])
