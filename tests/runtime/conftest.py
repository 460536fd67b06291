"""A stage small enough to run hundreds of iterations in a second."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.loggers.logger import Logger
from torch import Tensor, nn

from disback_cli.runtime.launch import Launch
from disback_cli.runtime.optimizers import AdamSettings
from disback_cli.runtime.stage import Stage


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Line(Stage):
    """Fits y = 2 x + 1; an iteration's loss can be spoiled."""

    passes_per_sample = 3

    def __init__(self, spoil: Callable[[int, Tensor], Tensor] | None = None, **settings: Any) -> None:
        defaults: dict[str, Any] = {
            "batch_size": 4, "iterations": 6, "seed": 0, "optimizer": AdamSettings(), "lr": {"line": 0.05},
        }  # fmt: skip
        super().__init__(**(defaults | settings))
        torch.manual_seed(0)
        self.line = nn.Linear(1, 1)
        self.spoil = spoil or (lambda _, loss: loss)
        self.rates: list[float] = []

    def trained(self) -> dict[str, nn.Module]:
        return {"line": self.line}

    def losses(self, iteration: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        x = self.normal("x", (1,))
        loss = (self.line(x) - 2 * x - 1).square().mean()
        return {"loss": self.spoil(iteration, loss)}, {"iteration_plus_one": torch.tensor(iteration + 1.0)}

    def after_step(self) -> None:
        self.rates.append(self.optimizers().param_groups[0]["lr"])


@pytest.fixture
def make_stage() -> type[Line]:
    return Line


@pytest.fixture
def fit() -> Callable[..., pl.Trainer]:
    def run(
        stage: Stage, *callbacks: pl.Callback, loggers: tuple[Logger, ...] = (), checkpoint: Path | None = None
    ) -> pl.Trainer:
        trainer = Launch(accelerator="cpu", threads=1).trainer(callbacks, loggers)
        trainer.fit(stage, ckpt_path=str(checkpoint) if checkpoint else None)
        return trainer

    return run


@pytest.fixture
def messages(caplog, monkeypatch) -> Callable[[], str]:
    """What our loggers have said, whatever an earlier test did to them."""
    logger = logging.getLogger("disback_cli")
    monkeypatch.setattr(logger, "propagate", True)
    caplog.set_level(logging.INFO, logger="disback_cli")
    return lambda: caplog.text
