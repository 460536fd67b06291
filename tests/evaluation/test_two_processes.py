"""Two real processes give the numbers of one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from disback_cli.data.digits import digits
from disback_cli.data.points import ring
from disback_cli.evaluation.features import DigitsFeatures, PointFeatures
from disback_cli.evaluation.suite import EvaluationSuite

N = 203  # odd: the ranks hold different numbers of samples and make different numbers of updates


def evaluate(rank: int, world_size: int, folder: Path) -> dict[str, float]:
    """Evaluate N digits and N points, this rank giving every world_size-th sample."""
    numbers: dict[str, float] = {}
    for extractor, dataset in ((DigitsFeatures(), digits()), (PointFeatures(), ring(n=500))):
        suite = EvaluationSuite(extractor, dataset, N, cache_dir=folder)
        noise = torch.randn(N, *dataset.shape, generator=torch.Generator().manual_seed(0))
        samples = dataset.batch(torch.arange(N))[0] + 0.1 * noise
        for part in torch.arange(rank, N, world_size).split(34):
            suite.update(samples[part], part)
        numbers |= {f"{extractor.name}/{name}": value for name, value in suite.compute().items()}
    return numbers


def worker(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    try:
        (folder / f"{rank}.json").write_text(json.dumps(evaluate(rank, 2, folder / "cache")))
    finally:
        dist.destroy_process_group()


def test_two_processes_agree_with_one(tmp_path: Path) -> None:
    alone = evaluate(0, 1, tmp_path / "cache")
    assert {name.split("/")[1] for name in alone} == {f"{name}_{N}" for name in ("fid", "is", "is_std", "swd")}
    mp.start_processes(worker, args=(tmp_path,), nprocs=2, start_method="spawn")
    for rank in range(2):
        together = json.loads((tmp_path / f"{rank}.json").read_text())
        assert together == pytest.approx(alone, rel=1e-9)
