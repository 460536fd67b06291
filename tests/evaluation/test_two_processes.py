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
from disback_cli.evaluation import neighbourhoods, reference
from disback_cli.evaluation.features import DigitsFeatures, PointFeatures
from disback_cli.evaluation.measure import measure
from disback_cli.evaluation.suite import EvaluationSuite

N = 203  # odd: the ranks hold different numbers of samples and make different numbers of updates
BATCH = 34
KINDS = ("fid", "is", "is_std", "kid", "kid_std", "precision", "recall", "swd")


def evaluate(rank: int, world_size: int, folder: Path) -> dict[str, float]:
    """Measure N digits and N points twice: by hand, every world_size-th sample on a rank, and by `measure`."""
    neighbourhoods._ROWS = 50  # several blocks for each process
    reference.MAX_FEATURES = 400  # fewer than there are, spread over the shares of both
    numbers: dict[str, float] = {}
    for extractor, dataset in ((DigitsFeatures(), digits()), (PointFeatures(), ring(n=500))):
        suite = EvaluationSuite(extractor, dataset, N, cache_dir=folder, kid=True, precision_recall=True)
        assert suite.provenance()["reference_features"] == 400
        noise = torch.randn(N, *dataset.shape, generator=torch.Generator().manual_seed(0))
        samples = dataset.batch(torch.arange(N))[0] + 0.1 * noise
        for part in torch.arange(rank, N, world_size).split(BATCH):
            suite.update(samples[part], part)
        numbers |= {f"{extractor.name}/{name}": value for name, value in suite.compute().items()}
        measured = measure(lambda first, count, x=samples: x[first : first + count], suite, BATCH)
        numbers |= {f"{extractor.name}/measured/{name}": value for name, value in measured.metrics.items()}
        numbers[f"{extractor.name}/trace"] = float(suite.reference.sigma.trace())
        assert suite.reference.features is not None
        numbers[f"{extractor.name}/kept"] = float(suite.reference.features.sum(dtype="float64"))
    return numbers


def worker(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    try:
        (folder / f"{rank}.json").write_text(json.dumps(evaluate(rank, 2, folder / "cache of two")))
    finally:
        dist.destroy_process_group()


def test_two_processes_agree_with_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbourhoods, "_ROWS", neighbourhoods._ROWS)
    monkeypatch.setattr(reference, "MAX_FEATURES", reference.MAX_FEATURES)
    alone = evaluate(0, 1, tmp_path / "cache")
    assert {name.split("/")[-1] for name in alone} == {f"{name}_{N}" for name in KINDS} | {"trace", "kept"}
    mp.start_processes(worker, args=(tmp_path,), nprocs=2, start_method="spawn")
    found = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    assert found[0] == found[1]
    # dealt out one by one, the digits came to the classifier in other batches
    exact = {name: value for name, value in alone.items() if name.startswith("points") or "/measured/" in name}
    assert {name: found[0][name] for name in exact} == pytest.approx(exact, rel=1e-9, abs=1e-12)
    assert found[0] == pytest.approx(alone, rel=1e-5, abs=1e-6)
