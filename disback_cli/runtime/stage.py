"""What recording, backtracking and pretraining share: counting, seeding, optimising, and nothing of the method."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import lightning.pytorch as pl
import torch
import torch.distributed as dist
from lightning.pytorch.strategies import ParallelStrategy
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from disback_cli.denoisers.protocol import Denoiser
from disback_cli.errors import UserError
from disback_cli.runtime.health import FiniteGuard, named_gradients
from disback_cli.runtime.optimizers import AdamSettings, learning_rate
from disback_cli.runtime.processes import average_gradients, mean_over_processes, rank_and_world
from disback_cli.runtime.randomness import CounterRandom


class _Iterations(IterableDataset[int]):
    """The numbers of the iterations still to do; a stage makes its own data from the number."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage

    def __iter__(self) -> Iterator[int]:
        yield from range(self.stage.iteration, self.stage.iterations)


class Stage(pl.LightningModule):
    """A counted loop under manual optimisation.

    ``iteration`` and ``images_seen`` are ours, are part of the checkpoint, and drive every schedule, name, axis
    and stop; Lightning's ``global_step`` counts optimiser steps and is used for nothing.

    Args:
        batch_size: samples an iteration over all processes.
        iterations: length of the stage.
        seed: seed of every draw.
        optimizer: Adam's settings.
        lr: peak learning rate of each trained network, by the network's name.
        lr_schedule: ``constant`` or ``cosine``.
        lr_warmup: iterations of linear warm-up.
        passes: passes in which a process goes through its share of the batch; gradients add up over them.
    """

    def __init__(
        self,
        *,
        batch_size: int,
        iterations: int,
        seed: int,
        optimizer: AdamSettings,
        lr: Mapping[str, float],
        lr_schedule: Literal["constant", "cosine"] = "constant",
        lr_warmup: int = 0,
        passes: int = 1,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.batch_size, self.iterations = batch_size, iterations
        self.passes, self._pass = passes, 0
        # updates of an iteration, and the number of the present one
        self.updates, self._update = 1, 0
        self.random = CounterRandom(seed)
        self.optimizer_settings = optimizer
        self.lr, self.lr_schedule, self.lr_warmup = dict(lr), lr_schedule, lr_warmup
        self.iteration = 0
        # forward passes of the teacher's network behind all samples so far, or what costs as much
        self.network_passes = 0.0
        # Where the last good checkpoint is, for messages; whoever saves them knows.
        self.last_good: Callable[[], str] = lambda: "none was saved"
        self._seconds_before = 0.0
        self._began: float | None = None
        self._sums: dict[str, Tensor] = {}
        # iterations in each sum: a term that begins to act inside a log interval has fewer than the others
        self._summed: dict[str, int] = {}
        # a watch over each set of networks that steps together
        self._watched: dict[tuple[str, ...], tuple[FiniteGuard, list[nn.Parameter]]] = {}

    # What a stage defines -------------------------------------------------------------------------------------

    def trained(self) -> dict[str, nn.Module]:
        """The networks that are optimised, by name; one optimiser each, in this order."""
        raise NotImplementedError

    def losses(self, iteration: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The losses of the present update by name, which are added up, and further scalars to log, on the device."""
        raise NotImplementedError

    def stepping(self) -> tuple[str, ...]:
        """The networks that the present update trains; the first update of an iteration reaches all parameters."""
        return tuple(self.trained())

    @property
    def passes_per_sample(self) -> float:
        """Cost of a sample in the present iteration, in forward passes of the teacher."""
        raise NotImplementedError

    def after_step(self) -> None:
        """Called when the optimisers have stepped and ``iteration`` has been advanced."""

    def facts(self) -> dict[str, float]:
        """Further numbers for the row of a log point that are no means."""
        return {}

    def stage_state(self) -> dict[str, Any]:
        """Further plain values that belong into the checkpoint."""
        return {}

    def restore_stage(self, state: dict[str, Any]) -> None:
        """Take up :meth:`stage_state`."""

    # The loop -------------------------------------------------------------------------------------------------

    @property
    def images_seen(self) -> int:
        """Samples used so far, over all processes."""
        return self.iteration * self.batch_size

    @property
    def seconds(self) -> float:
        """Wall time of the stage up to now, interruptions and what comes before the first iteration left out."""
        return self._seconds_before + (time.monotonic() - self._began if self._began is not None else 0.0)

    def on_train_start(self) -> None:
        """The clock starts when everything is built."""
        self._began = time.monotonic()

    @property
    def share(self) -> tuple[int, int]:
        """First sample of this process's present pass in the global batch, and how many the pass takes."""
        rank, world = rank_and_world()
        if self.batch_size % (world * self.passes):
            times = f" in {self.passes} passes each" if self.passes > 1 else ""
            raise UserError(f"batch_size={self.batch_size} cannot be shared evenly by {world} processes{times}")
        count = self.batch_size // (world * self.passes)
        return (rank * self.passes + self._pass) * count, count

    def normal(self, purpose: str, shape: tuple[int, ...]) -> Tensor:
        """This process's part of the update's standard normal draw."""
        return self.random.normal(self._purpose(purpose), self.iteration, *self.share, shape, self.device)

    def uniform(self, purpose: str) -> Tensor:
        """This process's part of the update's uniform draw."""
        return self.random.uniform(self._purpose(purpose), self.iteration, *self.share, self.device)

    def one_hot_labels(self, purpose: str, classes: int) -> Tensor | None:
        """This process's part of the update's labels, None where there are no classes."""
        name = self._purpose(purpose)
        return self.random.one_hot_labels(name, self.iteration, *self.share, classes, self.device)

    def _purpose(self, purpose: str) -> str:
        """Every update of an iteration has draws of its own."""
        return f"{purpose}/{self._update}" if self._update else purpose

    def train_dataloader(self) -> DataLoader[int]:
        """Iteration numbers from where the stage stands."""
        return DataLoader(_Iterations(self), batch_size=None)

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """One optimiser a trained network."""
        return [
            self.optimizer_settings.build((p for p in net.parameters() if p.requires_grad), self.lr[name])
            for name, net in self.trained().items()
        ]

    def training_step(self, batch: int, batch_idx: int) -> None:
        """One iteration: every update takes its losses, one joint backward a pass, and steps its networks.

        The losses have disjoint parameters (each detaches what is not its own), so one backward gives every
        network exactly the gradient it would get from a backward of its own, and plain DDP is content with the first
        update. Further ones train fewer networks; their gradients are averaged over the processes here. The losses
        are means over samples and the passes are of one size, so the mean over the passes is the batch's loss.
        """
        iteration = int(batch)
        if iteration != self.iteration:
            raise RuntimeError(f"the loader is at iteration {iteration}, the stage at {self.iteration}")
        self.random.seed_global(iteration, self.global_rank)
        told: list[dict[str, Tensor]] = []
        for number in range(self.updates):
            self._update = number
            losses, scalars = self._backward(iteration)
            self._step(losses, iteration)
            told.append({**losses, **scalars})
        self._update = 0
        self._accumulate(_means_where_told(told))
        self.network_passes += self.passes_per_sample * self.batch_size
        self.iteration += 1
        self.after_step()

    def _backward(self, iteration: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """All passes of an update; gradients travel between the processes with the last one only."""
        every_loss: list[dict[str, Tensor]] = []
        every_scalar: list[dict[str, Tensor]] = []
        for number in range(self.passes):
            self._pass = number
            losses, scalars = self.losses(iteration)
            total = torch.stack(list(losses.values())).sum()
            with self._without_synchronisation(number < self.passes - 1 or self._update > 0):
                self.manual_backward(total / self.passes if self.passes > 1 else total)
            every_loss.append({name: loss.detach() for name, loss in losses.items()})
            every_scalar.append(scalars)
        self._pass = 0
        return _means(every_loss), _means(every_scalar)

    def _step(self, losses: dict[str, Tensor], iteration: int) -> None:
        """Step the networks that the present update trains, and forget all gradients."""
        networks, names = self.trained(), self.stepping()
        if self._update:
            average_gradients([p for name in names for p in networks[name].parameters()])
        self._watch_and_clip(losses, names, iteration)
        found = self.optimizers()
        optimizers = found if isinstance(found, list) else [found]
        for optimizer, name in zip(optimizers, networks, strict=True):
            if name in names:
                rate = learning_rate(self.lr[name], iteration, self.iterations, self.lr_schedule, self.lr_warmup)
                for group in optimizer.param_groups:
                    group["lr"] = rate
                optimizer.step()
                for network in _constrained(networks[name]):
                    network.constrain_()
            optimizer.zero_grad(set_to_none=True)

    def _without_synchronisation(self, wanted: bool) -> AbstractContextManager[Any]:
        strategy = self.trainer.strategy if wanted else None
        return strategy.block_backward_sync() if isinstance(strategy, ParallelStrategy) else nullcontext()

    def _watch_and_clip(self, losses: dict[str, Tensor], names: tuple[str, ...], iteration: int) -> None:
        networks = {name: self.trained()[name] for name in names}
        key = (*losses, *names)
        if key not in self._watched:
            gradients, parameters = named_gradients(networks.items())
            self._watched[key] = FiniteGuard([*losses, *gradients]), parameters
        guard, parameters = self._watched[key]
        norms = torch._foreach_norm([p.grad for p in parameters if p.grad is not None])
        guard.watch(torch.stack([*(loss.detach() for loss in losses.values()), *norms]), iteration)
        if self.optimizer_settings.clip is not None:
            for network in networks.values():
                nn.utils.clip_grad_norm_(network.parameters(), self.optimizer_settings.clip)

    # What callbacks read --------------------------------------------------------------------------------------

    def _accumulate(self, scalars: dict[str, Tensor]) -> None:
        for name, value in scalars.items():
            value = value.detach().double()
            self._sums[name] = self._sums[name] + value if name in self._sums else value
            self._summed[name] = self._summed.get(name, 0) + 1

    def read_scalars(self) -> dict[str, float]:
        """Means since the last call, over all processes; synchronises with the device once."""
        if not self._sums:
            return {}
        means = mean_over_processes(torch.stack([total / self._summed[name] for name, total in self._sums.items()]))
        names = list(self._sums)
        self._sums, self._summed = {}, {}
        return dict(zip(names, means.tolist(), strict=True))

    def check_health(self) -> None:
        """Raise NonFiniteError if a loss or gradient was not finite since the start; synchronises with the device."""
        for guard, _ in self._watched.values():
            guard.check(self.last_good)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the counters and the running means, so that a resumed run logs the same rows."""
        checkpoint["stage"] = {
            "iteration": self.iteration,
            "batch_size": self.batch_size,
            "seconds": self.seconds,
            "network_passes": self.network_passes,
            "sums": self._sums_of_all(),
            "summed": dict(self._summed),
            **self.stage_state(),
        }

    def _sums_of_all(self) -> dict[str, Tensor]:
        """The running sums of every process ``[world]``: each takes its own up again, to the last bit."""
        if not self._sums:
            return {}
        own = torch.stack(list(self._sums.values()))
        parts = [own]
        _, world = rank_and_world()
        if world > 1:
            parts = [torch.empty_like(own) for _ in range(world)]
            dist.all_gather(parts, own)
        return dict(zip(self._sums, torch.stack(parts, dim=1).cpu(), strict=True))

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the counters; weights and moments are Lightning's to restore, strictly."""
        state = checkpoint["stage"]
        if state["batch_size"] != self.batch_size:
            raise UserError(
                f"the checkpoint was made with batch_size={state['batch_size']}, this run has {self.batch_size}; "
                "images could not be counted. Give the same batch_size, or start over with resume=false."
            )
        self.iteration, self._summed = state["iteration"], dict(state["summed"])
        self._seconds_before, self.network_passes = state["seconds"], state["network_passes"]
        rank, world = rank_and_world()
        for name, values in state["sums"].items():
            own = values[rank] if len(values) == world else values.mean()
            self._sums[name] = own.to(self.device)
        # Lightning notes that a batch was the last one and would then refuse to go on, though this run may be longer;
        # how many iterations are left is for our counter and the loader to say.
        checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]["is_last_batch"] = False
        self.restore_stage(state)


def _constrained(network: nn.Module) -> list[Denoiser]:
    """The denoisers in a trained network, which may have to be put back on their manifold."""
    return [module for module in network.modules() if isinstance(module, Denoiser)]


def _means_where_told(rows: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of each entry over the updates that tell it."""
    if len(rows) == 1:
        return rows[0]
    told = {name: [row[name].detach() for row in rows if name in row] for row in rows for name in row}
    return {name: torch.stack(values).mean() for name, values in told.items()}


def _means(rows: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of each entry over the passes that have it; a single pass is handed on as it is.

    What is told of the batch as a whole is an entry of the last pass alone.
    """
    if len(rows) == 1:
        return rows[0]
    return {name: torch.stack([row[name].detach() for row in rows if name in row]).mean() for name in rows[-1]}
