"""Path, warm start and endpoint side by side: quality against generator updates and against all network passes.

    python -m benchmarks.schedules --teacher gmm_2d edm_digits --seeds 0 1 2

Everything runs through the installed command: one recording a seed, then one sweep over the schedules.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.compare import Curve, disback, read_curve, record, run_benchmark

SCHEDULES = ("path", "warm_start", "endpoint")


def experiment(teacher: str, seed: int, work: Path, extra: Sequence[str], jobs: int) -> list[Curve]:
    """Record once and backtrack with every schedule."""
    recording, sweep = work / f"record_{teacher}_{seed}", work / f"sweep_{teacher}_{seed}"
    record(teacher, seed, recording)
    words = [f"path={recording}", f"seed={seed}", "metrics.teacher=false", f"schedule={','.join(SCHEDULES)}", *extra]
    disback(["backtrack", "-m", *words, f"hydra.sweep.dir={sweep}", f"hydra.launcher.jobs={jobs}"], work)
    return [read_curve(sweep / str(i), schedule, teacher) for i, schedule in enumerate(SCHEDULES)]


if __name__ == "__main__":
    run_benchmark("schedules", "Path, warm start and endpoint", experiment)
