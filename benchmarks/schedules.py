"""Path, warm start and endpoint side by side: quality against generator updates and against all network passes.

    python -m benchmarks.schedules --teacher gmm_2d edm_digits --seeds 0 1 2

Everything runs through the installed command: one recording a seed, then one sweep over the schedules. Work that is
done is not repeated: the runs lie in ``--work`` and an interrupted benchmark goes on where it stood.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from disback_cli.runtime.csv_logger import read_metrics

SCHEDULES = ("path", "warm_start", "endpoint")
RESULTS = Path(__file__).parent / "results"
# The number that is compared, lower is better: what separates good from bad on that teacher's samples.
QUALITY = {"gmm_2d": "swd_", "edm_digits": "fid_", "edm_digits_cond": "fid_"}


@dataclass(frozen=True)
class Curve:
    """One run: its quality over its updates.

    Attributes:
        schedule: option of the schedule group.
        seed: of recording and run.
        updates: generator updates at which quality was measured.
        passes: network passes up to there, the recording included for schedules that need one.
        quality: the measured number.
    """

    schedule: str
    seed: int
    updates: tuple[int, ...]
    passes: tuple[float, ...]
    quality: tuple[float, ...]

    @property
    def end(self) -> float:
        """Mean of the last tenth of the measurements (at least one), less noisy than the last alone."""
        return statistics.fmean(self.quality[-max(1, len(self.quality) // 10) :])

    def reached(self, level: float, axis: str) -> float | None:
        """Updates or passes at which the quality first was at ``level`` or better, linear between measurements."""
        x: Sequence[float] = self.updates if axis == "updates" else self.passes
        for i, value in enumerate(self.quality):
            if value <= level:
                if i == 0:
                    return float(x[0])
                before = self.quality[i - 1]
                return x[i - 1] + (x[i] - x[i - 1]) * (before - level) / (before - value)
        return None


def disback(arguments: Sequence[str], work: Path) -> None:
    """Run the command beside this interpreter."""
    command = [str(Path(sys.executable).parent / "disback"), *arguments]
    print("$ disback", " ".join(arguments), flush=True)
    subprocess.run(command, cwd=work, check=True)


def run_all(teacher: str, seeds: Sequence[int], work: Path, extra: Sequence[str], jobs: int) -> list[Curve]:
    """Record and backtrack for every seed; returns the curves."""
    curves = []
    for seed in seeds:
        recording = work / f"record_{teacher}_{seed}"
        if not (recording / "path" / "path.json").is_file():
            disback(
                ["record", f"teacher={teacher}", f"seed={seed}", f"hydra.run.dir={recording}", "resume=auto"], work
            )
        sweep = work / f"sweep_{teacher}_{seed}"
        words = [f"schedule={','.join(SCHEDULES)}", f"seed={seed}", f"path={recording}", "metrics.teacher=false", *extra]
        disback(["backtrack", "-m", *words, f"hydra.sweep.dir={sweep}", f"hydra.launcher.jobs={jobs}"], work)
        for number, schedule in enumerate(SCHEDULES):
            curves.append(read_curve(sweep / str(number), schedule, seed, QUALITY[teacher]))
    return curves


def read_curve(run: Path, schedule: str, seed: int, prefix: str) -> Curve:
    """The curve of a finished run, from its own files."""
    cost = json.loads((run / "summary.json").read_text())["cost"]
    recording = cost["network_passes_with_recording"] - cost["network_passes"]
    each = cost["network_passes"] / cost["images"]
    rows = [row for row in read_metrics(run / "metrics.csv") if any(name.startswith(prefix) for name in row)]
    name = next(name for name in rows[0] if name.startswith(prefix))
    passes = tuple(recording + row["images"] * each for row in rows)
    return Curve(
        schedule, seed, tuple(int(row["iteration"]) for row in rows), passes, tuple(row[name] for row in rows)
    )


def levels(curves: Sequence[Curve]) -> list[float]:
    """Two qualities to race to: ten times and twice the best end of any run."""
    best = min(curve.end for curve in curves)
    return [10 * best, 2 * best]


def summarise(teacher: str, curves: Sequence[Curve]) -> list[str]:
    """A table of the three schedules as Markdown lines."""
    races = levels(curves)
    heads = ["schedule", "end: mean (min - max)"]
    heads += [f"updates to {level:.3g}" for level in races] + [f"passes to {level:.3g} (1000s)" for level in races]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for schedule in SCHEDULES:
        mine = [curve for curve in curves if curve.schedule == schedule]
        ends = [curve.end for curve in mine]
        cells = [schedule, f"{statistics.fmean(ends):.3g} ({min(ends):.3g} - {max(ends):.3g})"]
        for axis, scale in (("updates", 1.0), ("passes", 1000.0)):
            cells += [_mean_reached(mine, level, axis, scale) for level in races]
        lines.append("| " + " | ".join(cells) + " |")
    return [f"### {teacher}", "", *lines, ""]


def _mean_reached(curves: Sequence[Curve], level: float, axis: str, scale: float) -> str:
    found = [reached for curve in curves if (reached := curve.reached(level, axis)) is not None]
    if not found:
        return "never"
    mean = f"{statistics.fmean(found) / scale:.0f}"
    return mean if len(found) == len(curves) else f"{mean} ({len(found)} of {len(curves)} runs)"


def draw(results: dict[str, list[Curve]], picture: Path) -> None:
    """Quality against updates and against passes: thin lines are seeds, thick ones their mean."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.8 * len(results)), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(results), 2, squeeze=False)
    for row, (teacher, curves) in zip(grid, results.items(), strict=True):
        for axes, axis in zip(row, ("updates", "passes"), strict=True):
            for colour, schedule in zip(("tab:blue", "tab:orange", "tab:green"), SCHEDULES, strict=True):
                mine = [curve for curve in curves if curve.schedule == schedule]
                for curve in mine:
                    axes.plot(getattr(curve, axis), curve.quality, color=colour, linewidth=0.6, alpha=0.5)
                mean = [statistics.fmean(values) for values in zip(*(curve.quality for curve in mine), strict=True)]
                across = [statistics.fmean(xs) for xs in zip(*(getattr(curve, axis) for curve in mine), strict=True)]
                axes.plot(across, mean, color=colour, linewidth=1.8, label=schedule)
            label = "generator updates" if axis == "updates" else "network passes, recording included"
            axes.set(yscale="log", xlabel=label, ylabel=QUALITY[teacher].rstrip("_"), title=f"teacher={teacher}")
            axes.grid(alpha=0.25)
            axes.legend()
    figure.savefig(picture)


def main() -> None:
    """Run, summarise, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", nargs="+", default=["gmm_2d", "edm_digits"], choices=sorted(QUALITY))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--work", type=Path, default=Path("runs/benchmark_schedules"))
    parser.add_argument("--name", default="schedules", help="name of the files in benchmarks/results")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    parser.add_argument("overrides", nargs="*", help="further overrides of `disback backtrack`, after --")
    options = parser.parse_args()
    work = options.work.absolute()
    work.mkdir(parents=True, exist_ok=True)
    results = {t: run_all(t, options.seeds, work, options.overrides, options.jobs) for t in options.teacher}
    stamp = f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, {platform.machine()}, {options.jobs} runs at a time"
    command = " ".join(["python -m benchmarks.schedules", *sys.argv[1:]])
    text = [f"# Schedules compared: {options.name}", "", f"`{command}`  ({stamp})", ""]
    text += [line for teacher, curves in results.items() for line in summarise(teacher, curves)]
    text += [f"![curves]({options.name}.png)", ""]
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{options.name}.md").write_text("\n".join(text))
    document = {"command": command, "measured": stamp, "curves": {t: [asdict(c) for c in cs] for t, cs in results.items()}}
    (RESULTS / f"{options.name}.json").write_text(json.dumps(document, indent=1) + "\n")
    draw(results, RESULTS / f"{options.name}.png")
    print("\n".join(text))


if __name__ == "__main__":
    main()
