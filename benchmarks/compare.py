"""Curves of quality over cost, for runs that differ in one thing: read from their folders, tabulated, drawn."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from disback_cli.reporting.comparison.bands import band
from disback_cli.reporting.comparison.curve import Axis, Curve
from disback_cli.reporting.comparison.races import Arrivals, arrivals
from disback_cli.reporting.comparison.runs import read_run
from disback_cli.reporting.comparison.wording import time_text

RESULTS = Path(__file__).parent / "results"
# The number that is compared, lower is better: what separates good from bad on that teacher's samples.
QUALITY = {"gmm_2d": "swd_", "edm_digits": "fid_", "edm_digits_cond": "fid_"}
ACROSS: dict[Axis, str] = {"updates": "generator updates", "passes": "network passes, recording included"}
COLOURS = ("tab:blue", "tab:orange", "tab:green", "tab:red")


def disback(arguments: Sequence[str], work: Path) -> None:
    """Run the command beside this interpreter."""
    command = [str(Path(sys.executable).parent / "disback"), *arguments]
    print("$ disback", " ".join(arguments), flush=True)
    subprocess.run(command, cwd=work, check=True)


def record(teacher: str, seed: int, folder: Path, extra: Sequence[str] = ()) -> None:
    """A recording in ``folder``, unless it is there already."""
    if not (folder / "path" / "path.json").is_file():
        words = [f"teacher={teacher}", f"seed={seed}", f"hydra.run.dir={folder}", "resume=auto", *extra]
        disback(["record", *words], folder.parent)


def read_curve(run: Path, variant: str, teacher: str) -> Curve:
    """The curve of a finished run, from its own files."""
    found = read_run(run)
    curves = [found.curve(name, variant) for name in found.numbers if name.startswith(QUALITY[teacher])]
    if not curves or curves[0] is None or curves[0].passes is None:
        raise SystemExit(f"{run} has no {QUALITY[teacher].rstrip('_')} with its cost in network passes")
    return curves[0]


def levels(curves: Sequence[Curve]) -> list[float]:
    """Two qualities to race to: four times and 1.5 times the best end of any run."""
    best = min(curve.end for curve in curves)
    return [4 * best, 1.5 * best]


def summarise(teacher: str, curves: Sequence[Curve]) -> list[str]:
    """A table of the variants as Markdown lines."""
    races = levels(curves)
    number = QUALITY[teacher].rstrip("_")
    heads = ["variant", f"{number} at the end: mean (min - max)"]
    heads += [f"updates to {level:.3g}" for level in races] + [f"1000 passes to {level:.3g}" for level in races]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    scales: tuple[tuple[Axis, float], ...] = (("updates", 1.0), ("passes", 1000.0))
    for variant in dict.fromkeys(curve.variant for curve in curves):
        mine = [curve for curve in curves if curve.variant == variant]
        ends = [curve.end for curve in mine]
        cells = [variant, f"{statistics.fmean(ends):.3g} ({min(ends):.3g} - {max(ends):.3g})"]
        for axis, scale in scales:
            cells += [_time_to(mine, level, axis, scale) for level in races]
        lines.append("| " + " | ".join(cells) + " |")
    return [f"### {teacher}", "", *lines, ""]


def _time_to(curves: Sequence[Curve], level: float, axis: Axis, scale: float) -> str:
    """When the runs were at a level: a run that never was counts with its last measurement, which makes a bound."""
    found = arrivals(curves, level, axis)
    if found is None:
        return "-"
    return time_text(Arrivals(tuple(time / scale for time in found.times), found.reached))


def draw(results: dict[str, list[Curve]], picture: Path) -> None:
    """Quality against updates and against passes: thin lines are seeds, thick ones their mean."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.8 * len(results)), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(results), 2, squeeze=False)
    for row, (teacher, curves) in zip(grid, results.items(), strict=True):
        variants = dict.fromkeys(curve.variant for curve in curves)
        for axes, (axis, label) in zip(row, ACROSS.items(), strict=True):
            for colour, variant in zip(COLOURS, variants, strict=False):
                mine = [curve for curve in curves if curve.variant == variant]
                for curve in mine:
                    axes.plot(getattr(curve, axis), curve.quality, color=colour, linewidth=0.6, alpha=0.5)
                if (mean := band(mine, axis)) is not None:
                    axes.plot(mean.x, mean.mean, color=colour, linewidth=1.8, label=variant)
            axes.set(yscale="log", xlabel=label, ylabel=QUALITY[teacher].rstrip("_"), title=f"teacher={teacher}")
            axes.grid(alpha=0.25)
            axes.legend()
    figure.savefig(picture)


# (teacher, seed, folder to work in, further overrides of ``disback backtrack``, runs at a time) -> the seed's curves
Experiment = Callable[[str, int, Path, Sequence[str], int], list[Curve]]


def run_benchmark(module: str, title: str, experiment: Experiment) -> None:
    """The command line of a benchmark: run the experiment for every teacher and seed, tabulate, draw.

    The runs lie in ``--work``; what is done there is not repeated, so an interrupted benchmark goes on where it stood.
    """
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{module}", description=title)
    parser.add_argument("--teacher", nargs="+", default=["gmm_2d", "edm_digits"], choices=sorted(QUALITY))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--work", type=Path, default=Path("runs") / f"benchmark_{module}")
    parser.add_argument("--name", default=module, help="name of the files in benchmarks/results")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    parser.add_argument("overrides", nargs="*", help="further overrides of `disback backtrack`, after --")
    options = parser.parse_args()
    work = options.work.absolute()
    work.mkdir(parents=True, exist_ok=True)
    results = {
        teacher: [c for seed in options.seeds for c in experiment(teacher, seed, work, options.overrides, options.jobs)]
        for teacher in options.teacher
    }
    _publish(module, options.name, title, results, options.jobs)


def _publish(module: str, name: str, title: str, results: dict[str, list[Curve]], jobs: int) -> None:
    cores = f"{os.cpu_count()} cores, {platform.machine()}"
    stamp = f"{datetime.now(UTC):%Y-%m-%d}, {cores}, {jobs} runs at a time, one thread each"
    command = " ".join([f"python -m benchmarks.{module}", *sys.argv[1:]])
    text = [f"# {title}", "", f"`{command}`  ({stamp})", ""]
    text += [line for teacher, curves in results.items() for line in summarise(teacher, curves)]
    text += [f"![curves]({name}.png)", ""]
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.md").write_text("\n".join(text))
    curves = {teacher: [asdict(curve) for curve in found] for teacher, found in results.items()}
    (RESULTS / f"{name}.json").write_text(json.dumps({"command": command, "measured": stamp, "curves": curves}) + "\n")
    draw(results, RESULTS / f"{name}.png")
    print("\n".join(text))
