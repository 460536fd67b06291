"""Measurements in checkpoints: taken up where they are alike, refused or dropped where they are not."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from disback_cli.data.points import ring
from disback_cli.errors import UserError
from disback_cli.evaluation.callback import Evaluation
from disback_cli.evaluation.features import PointFeatures
from disback_cli.evaluation.measure import measure
from disback_cli.evaluation.reference import compute
from disback_cli.evaluation.suite import EvaluationSuite
from disback_cli.runtime.callbacks import Telemetry


def sampler(first: int, count: int) -> torch.Tensor:
    return ring(n=1000, seed=1).points[first : first + count]


def evaluation(folder: Path, suite: EvaluationSuite | None) -> Evaluation:
    return Evaluation(sampler, suite, every=0, batch_size=50, telemetry=Telemetry(1), folder=folder)


def suite(folder: Path, n: int = 100, **settings: Any) -> EvaluationSuite:
    return EvaluationSuite(PointFeatures(), ring(n=500), n, cache_dir=folder, **settings)


@pytest.fixture
def checkpoint(tmp_path: Path) -> dict[str, Any]:
    """The state of a run that has been measured at its start."""
    measuring = evaluation(tmp_path, suite(tmp_path))
    assert measuring.suite is not None
    measuring.first = measuring.latest = measure(sampler, measuring.suite, 50)
    measuring.count = 1
    return measuring.state_dict()


def test_alike_measurements_are_taken_up(tmp_path: Path, checkpoint: dict[str, Any]) -> None:
    resumed = evaluation(tmp_path, suite(tmp_path))
    resumed.load_state_dict(checkpoint)
    assert resumed.count == 1 and resumed.first is not None
    assert resumed.first.metrics == checkpoint["first"]["metrics"] and resumed.first.metrics["fid_100"] > 0


def test_other_metrics_are_refused_before_the_training_goes_on(tmp_path: Path, checkpoint: dict[str, Any]) -> None:
    reference = compute(ring(n=300), PointFeatures())
    others = {
        "n: 100 against 200": suite(tmp_path, 200),
        "numbers: fid_100, swd_100 against fid_100, kid_100, kid_std_100, swd_100": suite(tmp_path, kid=True),
        "reference_n: 500 against 300": EvaluationSuite(PointFeatures(), n=100, reference=reference),
    }
    for reason, other in others.items():
        resumed = evaluation(tmp_path, other)
        with pytest.raises(UserError, match=f"{reason}.*Resume with the metrics"):
            resumed.load_state_dict(checkpoint)
        assert resumed.first is None and resumed.latest is None


def test_without_metrics_earlier_numbers_are_dropped(
    tmp_path: Path, checkpoint: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    resumed = evaluation(tmp_path, None)
    with caplog.at_level(logging.INFO):
        resumed.load_state_dict(checkpoint)
    assert resumed.first is None and resumed.latest is None and resumed.count == 1
    assert "left out" in caplog.text
    started_without = evaluation(tmp_path, None).state_dict()
    measured_now = evaluation(tmp_path, suite(tmp_path))
    measured_now.load_state_dict(started_without)
    assert measured_now.first is None


def test_numbers_of_unknown_origin_are_dropped(
    tmp_path: Path, checkpoint: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    del checkpoint["measured_with"]
    resumed = evaluation(tmp_path, suite(tmp_path))
    resumed.load_state_dict(checkpoint)
    assert resumed.first is None and resumed.latest is None
    assert "does not say how the run was measured" in caplog.text
