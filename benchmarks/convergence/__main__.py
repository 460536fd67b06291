"""``python -m benchmarks.convergence``: run what is open of the study, part after part, and write down the results."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.convergence import collect, plan, tuning
from benchmarks.convergence.jobs import ForkServer, Job
from disback_cli.files import write_bytes

RESULTS = Path(__file__).parent.parent / "results" / "convergence"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.convergence", description=__doc__)
    parser.add_argument("--parts", nargs="+", default=list(plan.PARTS), choices=list(plan.PARTS))
    parser.add_argument("--work", type=Path, default=Path("runs") / "convergence", help="folder of the runs")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of what is written down")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="runs at a time, one thread each")
    parser.add_argument("--plan", action="store_true", help="count the jobs and their seconds, run none")
    parser.add_argument("--collect", action="store_true", help="write down what is there, run nothing")
    parser.add_argument("--summarise", action="store_true", help="tables and pictures of results.json alone")
    return parser.parse_args()


def _run_part(server: ForkServer, work: Path, part: str) -> list[Job]:
    """Recordings, then the runs that choose rates, then the runs; returns what failed."""
    cells = plan.compared([part])
    failed = server.run(plan.recordings(cells), f"{part}: recordings")
    failed += server.run(plan.tuning_runs(cells), f"{part}: choosing rates")
    trials = {cell: collect.trials(work, cell) for cell in cells}
    ready = {cell: schedules for cell, schedules in cells.items() if any(trials[cell].values())}
    rates = {cell: tuning.chosen(trials[cell]) for cell in ready}
    return failed + server.run(plan.runs(ready, rates), f"{part}: runs")


def _run_further_seeds(server: ForkServer, work: Path, parts: list[str]) -> list[Job]:
    """More seeds where the first ones, with every schedule of the cell, leave it open; returns what failed."""
    undecided = dict.fromkeys(collect.close(work, plan.compared(parts)), plan.COMPARED)
    rates = {cell: tuning.chosen(collect.trials(work, cell)) for cell in undecided}
    failed = server.run(plan.recordings(undecided, plan.FURTHER_SEEDS), "recordings of further seeds")
    return failed + server.run(plan.runs(undecided, rates, plan.FURTHER_SEEDS), "further seeds")


def _tell_plan(work: Path, parts: list[str], jobs: int) -> None:
    """How many jobs each part has and how long they take, as far as some of its kind have been run."""
    total = 0.0
    for part in parts:
        cells = plan.compared([part])
        kinds = {
            "recordings": plan.recordings(cells),
            "tuning": plan.tuning_runs(cells),
            "runs": [
                plan.run(c, s, seed, c.problem.rates[0]) for c, ss in cells.items() for s in ss for seed in plan.SEEDS
            ],
        }
        for kind, of_kind in kinds.items():
            each = collect.median_seconds(work, of_kind)
            total += 0 if each != each else each * len(of_kind)
            print(f"{part:8s} {kind:10s} {len(of_kind):4d} jobs, {each:.1f} s each")
    print(f"in all {total / 60 / jobs:.0f} minutes with {jobs} at a time, as far as is known")


def _write_down(work: Path, results: Path) -> None:
    cells = plan.compared(plan.PARTS)
    found = collect.collected(work, cells)
    cores = f"{os.cpu_count()} cores, {platform.machine()}"
    stamp = {
        "measured": f"{datetime.now(UTC):%Y-%m-%d}",
        "machine": cores,
        "command": "python -m benchmarks.convergence",
    }
    results.mkdir(parents=True, exist_ok=True)
    text = json.dumps({**stamp, **found}, separators=(",", ":")).replace('{"problem"', '\n{"problem"')
    write_bytes(results / "results.json", f"{text}\n".encode())


def main() -> None:
    """Run, collect, summarise."""
    options = _options()
    work: Path = options.work.absolute()
    if options.plan:
        _tell_plan(work, options.parts, options.jobs)
        return
    failed: list[Job] = []
    if not options.summarise:
        if not options.collect:
            work.mkdir(parents=True, exist_ok=True)
            server = ForkServer(work, options.jobs)
            for part in options.parts:
                failed += _run_part(server, work, part)
            failed += _run_further_seeds(server, work, options.parts)
        _write_down(work, options.results)
    from benchmarks.convergence.summary import summarise

    summarise(json.loads((options.results / "results.json").read_text()), options.results)
    if failed:
        sys.exit(f"{len(failed)} jobs failed, and are run again by the same command: see failed.json in their folders")


if __name__ == "__main__":
    main()
