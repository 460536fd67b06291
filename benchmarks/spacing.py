"""Where the nodes of a path should lie: evenly in distance, evenly in steps, or geometrically.

    python -m benchmarks.spacing --teacher gmm_2d edm_digits --seeds 0 1 2

One recording a seed and spacing, one run with ``schedule=path`` on each.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.compare import Curve, disback, read_curve, record, run_benchmark

SPACINGS = ("distance", "steps", "geometric")


def experiment(teacher: str, seed: int, work: Path, extra: Sequence[str], jobs: int) -> list[Curve]:
    """Record with each spacing and walk each path."""
    recordings, sweep = [work / f"record_{teacher}_{seed}_{s}" for s in SPACINGS], work / f"sweep_{teacher}_{seed}"
    for recording, spacing in zip(recordings, SPACINGS, strict=True):
        record(teacher, seed, recording, [f"spacing={spacing}"])
    words = [
        f"path={','.join(map(str, recordings))}",
        f"teacher={teacher}",
        f"seed={seed}",
        "metrics.teacher=false",
        *extra,
    ]
    disback(["backtrack", "-m", *words, f"hydra.sweep.dir={sweep}", f"hydra.launcher.jobs={jobs}"], work)
    return [read_curve(sweep / str(i), spacing, teacher) for i, spacing in enumerate(SPACINGS)]


if __name__ == "__main__":
    run_benchmark("spacing", "Spacing of the nodes", experiment)
