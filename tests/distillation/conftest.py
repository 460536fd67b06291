"""Small stages on a ring of Gaussians, and a Trainer as the verbs make it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch

from disback_cli.denoisers.gaussian_mixture import MixtureDenoiser
from disback_cli.denoisers.protocol import Denoiser
from disback_cli.distillation.backtracking import Backtracking
from disback_cli.distillation.objectives.diff_instruct import DiffInstruct
from disback_cli.distillation.recording import Recording
from disback_cli.distillation.schedules import PathSchedule
from disback_cli.distillation.sigma_laws import LogNormal
from disback_cli.distillation.students import OneStepStudent
from disback_cli.runtime.checkpoint import CheckpointStore
from disback_cli.runtime.launch import Launch
from disback_cli.runtime.optimizers import AdamSettings

BATCH = 16


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def ring() -> MixtureDenoiser:
    return MixtureDenoiser("ring", hidden=16, depth=2)


def disturbed(seed: int) -> dict[str, torch.Tensor]:
    """Weights like the teacher's whose correction is not zero: a node that differs from every other one."""
    generator = torch.Generator().manual_seed(seed)
    network = ring()
    with torch.no_grad():
        for parameter in network.correction.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return network.state_dict()


@pytest.fixture
def teacher() -> MixtureDenoiser:
    return ring().requires_grad_(False).eval()


@pytest.fixture
def node_weights(teacher) -> Callable[[int], dict[str, torch.Tensor]]:
    """A path with nodes 0 (the teacher), 1, 2, 3, all different."""
    nodes = [teacher.state_dict(), *(disturbed(seed) for seed in (1, 2, 3))]
    return lambda index: {name: tensor.clone() for name, tensor in nodes[index].items()}


@pytest.fixture
def make_recording(teacher) -> Callable[..., Recording]:
    def make(denoiser: Denoiser | None = None, **settings: Any) -> Recording:
        denoiser = denoiser or teacher
        defaults: dict[str, Any] = {
            "law": LogNormal(), "batch_size": BATCH, "iterations": 5, "seed": 0,
            "optimizer": AdamSettings(), "lr": {"fake": 1e-2},
        }  # fmt: skip
        student = OneStepStudent(copy.deepcopy(denoiser).requires_grad_(True), sigma_init=1.0)
        fake = copy.deepcopy(denoiser).requires_grad_(True)
        return Recording(student=student, fake=fake, **(defaults | settings))

    return make


@pytest.fixture
def make_backtracking(teacher, node_weights) -> Callable[..., Backtracking]:
    def make(denoiser: Denoiser | None = None, **settings: Any) -> Backtracking:
        denoiser = denoiser or teacher
        schedule = settings.pop("schedule", None) or PathSchedule(interval=2)
        weights = settings.pop("node_weights", node_weights)
        last = settings.pop("last", 3)
        fake = copy.deepcopy(denoiser).requires_grad_(True)
        fake.load_state_dict(weights(schedule.first_fake(last)), strict=True)
        defaults: dict[str, Any] = {
            "objective": DiffInstruct(), "generator_law": LogNormal(), "fake_law": LogNormal(),
            "ema_halflife": 40.0, "ema_rampup": 0.0, "batch_size": BATCH, "iterations": 7, "seed": 0,
            "optimizer": AdamSettings(), "lr": {"student": 3e-3, "fake": 1e-2},
        }  # fmt: skip
        return Backtracking(
            student=OneStepStudent(copy.deepcopy(denoiser).requires_grad_(True), sigma_init=1.0),
            fake=fake,
            target=copy.deepcopy(denoiser),
            node_weights=weights,
            last=last,
            schedule=schedule,
            **(defaults | settings),
        )

    return make


class SaveAt(pl.Callback):
    """Saves a checkpoint when the stage has finished some iterations, as the runs do: into a store."""

    def __init__(self, folder: Path, iterations: Sequence[int]) -> None:
        self.store, self.iterations = CheckpointStore(folder, keep=100), iterations

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        if pl_module.iteration in self.iterations:
            path = self.store.path_for(pl_module.iteration)
            trainer.save_checkpoint(path)
            self.store.register(path, pl_module.iteration)


@pytest.fixture
def save_at() -> type[SaveAt]:
    return SaveAt


class Watch(pl.Callback):
    """Calls a function after every iteration with the stage."""

    def __init__(self, look: Callable[[Any], None]) -> None:
        self.look = look

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        self.look(pl_module)


@pytest.fixture
def watch() -> type[Watch]:
    return Watch


@pytest.fixture
def fit() -> Callable[..., None]:
    def run(stage: pl.LightningModule, *callbacks: pl.Callback, checkpoint: Path | None = None) -> None:
        trainer = Launch(accelerator="cpu", threads=1).trainer(callbacks, [])
        trainer.fit(stage, ckpt_path=str(checkpoint) if checkpoint else None)

    return run
