"""From a trainer configuration to Lightning's Trainer: devices, strategy, threads."""

from __future__ import annotations

import inspect
import logging
import os
import warnings
from collections.abc import Sequence
from typing import Any, Literal

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.strategies import DDPStrategy
from torch.nn.parallel import DistributedDataParallel

from disback_cli.errors import UserError
from disback_cli.runtime.checkpoint import AtomicCheckpointIO

log = logging.getLogger(__name__)


class Launch:
    """How many processes on what.

    Args:
        accelerator: ``auto`` takes a GPU if there is one.
        devices: processes on this machine, one device each.
        num_nodes: machines.
        strategy: ``single`` or ``ddp``.
        threads: CPU threads of each process; None takes OMP_NUM_THREADS, and shares the cores out without it.
        max_batch: most samples a device handles at a time; its share of a larger batch takes several passes, whose
            gradients add up. None takes the share at once.
    """

    def __init__(
        self,
        *,
        accelerator: Literal["auto", "cpu", "gpu"] = "auto",
        devices: int = 1,
        num_nodes: int = 1,
        strategy: Literal["single", "ddp"] = "single",
        threads: int | None = None,
        max_batch: int | None = None,
    ) -> None:
        if max_batch is not None and max_batch < 1:
            raise UserError(f"trainer.max_batch={max_batch} must be at least 1, or null")
        if devices < 1 or num_nodes < 1:
            raise UserError(f"trainer.devices={devices} and trainer.num_nodes={num_nodes} must be at least 1")
        if strategy == "single" and devices * num_nodes > 1:
            raise UserError(f"trainer.devices={devices} needs several processes: give trainer=ddp as well")
        if accelerator == "gpu" and not torch.cuda.is_available():
            raise UserError("trainer.accelerator=gpu, but torch sees no GPU here; use trainer.accelerator=cpu")
        self.on_gpu = accelerator != "cpu" and torch.cuda.is_available()
        possible = torch.cuda.device_count() if self.on_gpu else os.cpu_count() or 1
        if devices > possible:
            what = "GPUs" if self.on_gpu else "CPU cores"
            raise UserError(
                f"trainer.devices={devices} is more than the {possible} {what} of this machine; "
                f"give trainer.devices={possible} or less"
            )
        self.devices, self.num_nodes, self.strategy = devices, num_nodes, strategy
        self.max_batch = max_batch
        self._require_started_processes()
        given = int(os.environ.get("OMP_NUM_THREADS", "0") or 0)
        self.threads = threads or given or max(1, (os.cpu_count() or 1) // devices)

    def _require_started_processes(self) -> None:
        """Refuse when a launcher has started another number of processes: each would believe it is the only one."""
        started = int(os.environ.get("WORLD_SIZE", self.processes))
        if started != self.processes:
            raise UserError(
                f"{started} processes were started (WORLD_SIZE), but the trainer is set for {self.processes}: give "
                f"trainer=ddp trainer.devices={started}, or trainer.devices times trainer.num_nodes equal to {started}"
            )

    @property
    def device(self) -> torch.device:
        """Device of this process outside a Trainer."""
        if not self.on_gpu:
            return torch.device("cpu")
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))

    @property
    def processes(self) -> int:
        """Processes in all."""
        return self.devices * self.num_nodes

    def require_divisible(self, batch_size: int) -> None:
        """Refuse a global batch that the processes cannot share evenly.

        Raises:
            UserError: it does not divide.
        """
        if batch_size % self.processes:
            raise UserError(
                f"batch_size={batch_size} cannot be shared evenly by {self.processes} processes; "
                f"try batch_size={-(-batch_size // self.processes) * self.processes}"
            )

    def passes(self, batch_size: int) -> int:
        """In how many passes of one size a device goes through its share of a global batch, and say so.

        Raises:
            UserError: the processes cannot share the batch evenly.
        """
        self.require_divisible(batch_size)
        share = batch_size // self.processes
        fewest = -(-share // (self.max_batch or share))
        passes = next(count for count in range(fewest, share + 1) if share % count == 0)
        each = share // passes
        if self.max_batch is not None and passes > 1 and 2 * each < self.max_batch:
            better = self.processes * self.max_batch * max(1, round(share / self.max_batch))
            log.warning(
                "a share of %d samples has no divisor near trainer.max_batch=%d: batch_size=%d would need fewer passes",
                share, self.max_batch, better,
            )  # fmt: skip
        log.info("batch of %d samples: %d device(s) x %d pass(es) x %d", batch_size, self.processes, passes, each)
        return passes

    def trainer(self, callbacks: Sequence[pl.Callback], loggers: Sequence[Logger]) -> pl.Trainer:
        """A Trainer that runs a stage once through and leaves all reporting and saving to our callbacks."""
        torch.set_num_threads(self.threads)
        logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
        # A stage's loader only counts, so it needs no workers; networks copied from a teacher stay in evaluation mode
        # on purpose (no dropout); the deprecation is Lightning's own affair.
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*in eval mode at the start of training.*")
        warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")
        strategy: Any = "auto"
        if self.strategy == "ddp":
            backend = "nccl" if self.on_gpu else "gloo"
            strategy = DDPStrategy(process_group_backend=backend, **_without_buffer_broadcast())
        return pl.Trainer(
            accelerator="gpu" if self.on_gpu else "cpu",
            devices=self.devices,
            num_nodes=self.num_nodes,
            strategy=strategy,
            max_epochs=1,
            logger=list(loggers),
            callbacks=list(callbacks),
            plugins=[AtomicCheckpointIO()],
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            # Whatever the stage logs goes through our callbacks at our counter.
            log_every_n_steps=1 << 62,
        )


def _without_buffer_broadcast() -> dict[str, Any]:
    """Buffers are constants here, so sending them at every forward is waste; newer torch has another name for that."""
    known = inspect.signature(DistributedDataParallel.__init__).parameters
    return {"forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers": False}
