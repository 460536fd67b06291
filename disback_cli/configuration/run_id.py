"""The name of a run: the same on every rank of one launch, different for every launch."""

from __future__ import annotations

import functools
import os
import re
import secrets
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from omegaconf import OmegaConf

from disback_cli.errors import UserError

RUN_ID_VARIABLE = "DISBACK_RUN_ID"


def shared_launch_id(environment: Mapping[str, str] | None = None) -> str | None:
    """A name that all processes of this launch derive alike, or None for a process that was started alone."""
    env = os.environ if environment is None else environment
    if env.get(RUN_ID_VARIABLE):
        return _as_folder_name(env[RUN_ID_VARIABLE])
    if "TORCHELASTIC_RUN_ID" in env:
        return _torchrun_id(env)
    if env.get("SLURM_STEP_ID") and int(env.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
        job = env.get("SLURM_ARRAY_JOB_ID", env.get("SLURM_JOB_ID", "0"))
        task = f"_{env['SLURM_ARRAY_TASK_ID']}" if "SLURM_ARRAY_TASK_ID" in env else ""
        return f"slurm-{job}{task}-{env['SLURM_STEP_ID']}"
    return None


def _torchrun_id(env: Mapping[str, str]) -> str:
    name = env["TORCHELASTIC_RUN_ID"]
    if name and name != "none":
        return _as_folder_name(name)
    if int(env.get("GROUP_WORLD_SIZE", "1")) > 1:
        raise UserError(
            "the ranks of several nodes must agree on the name of the run: give torchrun --rdzv-id=NAME, "
            f"or set {RUN_ID_VARIABLE}=NAME on every node"
        )
    # all local ranks are children of the same torchrun process
    parent = os.getppid()
    started = Path(f"/proc/{parent}/stat").read_text().rsplit(")", 1)[1].split()[19]
    return f"torchrun-{parent}-{started}"


def _as_folder_name(name: str) -> str:
    """Folder names must pass through Hydra's grammar unquoted, also in the ranks that Lightning starts."""
    return re.sub(r"[^\w.\-]", "-", name)


@functools.cache
def run_id() -> str:
    """The run id of this process: shared by the ranks of a launch, else the time and four random hex digits."""
    return shared_launch_id() or f"{datetime.now():%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


@functools.cache
def launch_id() -> str:
    """Identifies the launch a process belongs to in ``run.lock``."""
    return shared_launch_id() or f"{os.getpid()}-{secrets.token_hex(4)}"


def register_run_id() -> None:
    """Make ``${run_id:}`` available to the configuration."""
    OmegaConf.register_new_resolver("run_id", run_id, replace=True)
