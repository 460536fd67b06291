"""Both losses on one draw of noise (7 passes a sample) against a draw each (8 passes): does the saving cost quality?

    python -m benchmarks.shared_draw --teacher gmm_2d edm_digits --seeds 0 1 2

Both variants use the lognormal law for generator and fake score, since a shared draw needs one law.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.compare import Curve, disback, read_curve, record, run_benchmark

VARIANTS = {"separate draws, 8 F": "false", "shared draw, 7 F": "true"}


def experiment(teacher: str, seed: int, work: Path, extra: Sequence[str], jobs: int) -> list[Curve]:
    """Record once, walk the path with and without the shared draw."""
    recording, sweep = work / f"record_{teacher}_{seed}", work / f"sweep_{teacher}_{seed}"
    record(teacher, seed, recording)
    words = [f"path={recording}", f"seed={seed}", "metrics.teacher=false", "noise/generator=lognormal", *extra]
    words += [f"share_draw={','.join(VARIANTS.values())}", f"hydra.sweep.dir={sweep}", f"hydra.launcher.jobs={jobs}"]
    disback(["backtrack", "-m", *words], work)
    return [read_curve(sweep / str(i), variant, teacher) for i, variant in enumerate(VARIANTS)]


if __name__ == "__main__":
    run_benchmark("shared_draw", "One draw of noise for both losses", experiment)
