"""The processes of a verb that measures: what a Trainer does for the verbs that train."""

from __future__ import annotations

import contextlib
import logging
import subprocess
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from lightning.fabric import Fabric
from lightning.fabric.strategies import DDPStrategy

from disback_cli.runtime.launch import Launch


@contextlib.contextmanager
def workers(launch: Launch) -> Iterator[None]:
    """Work with all processes that `launch` describes: they are started here, unless torchrun or SLURM has done so.

    Every process runs the body; collectives work in it (NCCL on GPUs, Gloo on CPUs). What can be refused should be
    refused before, by the only process that there is then. One process needs nothing of this.
    """
    if launch.processes == 1:
        yield
        return
    for name in ("lightning.fabric", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.WARNING)
    fabric = Fabric(
        accelerator="gpu" if launch.on_gpu else "cpu",
        devices=launch.devices,
        num_nodes=launch.num_nodes,
        strategy=DDPStrategy(process_group_backend="nccl" if launch.on_gpu else "gloo"),
    )
    fabric.launch()
    torch.set_num_threads(launch.threads)
    launcher: Any = fabric.strategy.launcher
    started: list[subprocess.Popen[bytes]] = getattr(launcher, "procs", [])
    try:
        yield
        fabric.barrier()
    except BaseException:
        for process in started:  # they may wait for this one in a collective, for ever
            process.kill()
        raise
    finally:
        dist.destroy_process_group()
        for process in started:
            process.wait()
