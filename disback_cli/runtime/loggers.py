"""Where metrics go besides the CSV file: nowhere, to W&B, to TensorBoard. Nothing connects unless asked."""

from __future__ import annotations

import importlib.util
import json
import logging
import netrc
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlparse

from lightning.pytorch.loggers.logger import Logger
from PIL import Image

from disback_cli.errors import UserError
from disback_cli.files import write_json

log = logging.getLogger(__name__)

_LONGEST_NAME = 128  # of a W&B run


@dataclass(frozen=True)
class RunIdentity:
    """What a logger needs to know of a run.

    Attributes:
        folder: the run's folder.
        verb: ``record``, ``backtrack`` or ``pretrain``.
        config: the resolved configuration, plain containers.
        group: the sweep the run belongs to, or None.
        name: what people call it: in a sweep what is its own there, else the name of its folder.
    """

    folder: Path
    verb: str
    config: dict[str, Any]
    group: str | None
    name: str


def csv_only(run: RunIdentity, /) -> list[Logger]:
    """No further logger."""
    return []


def tensorboard(run: RunIdentity, /) -> list[Logger]:
    """Event files in ``<run>/tensorboard``.

    Raises:
        UserError: TensorBoard is not installed.
    """
    _require("tensorboard")
    from lightning.pytorch.loggers import TensorBoardLogger

    return [TensorBoardLogger(save_dir=run.folder, name="tensorboard", version="")]


def wandb(
    run: RunIdentity,
    /,
    *,
    project: str = "disback",
    entity: str | None = None,
    mode: Literal["auto", "online", "offline"] = "auto",
    group: str | None = None,
    tags: list[str] | None = None,
    init_timeout: float = 20.0,
) -> list[Logger]:
    """A Weights & Biases run in ``<run>/wandb``, continued under the same id when the run is resumed.

    Args:
        run: the run.
        project: project to log to.
        entity: user or team; None is the key's default.
        mode: ``auto`` is online if a key is found and offline otherwise; W&B is never let to prompt.
        group: group of runs; None takes the sweep's name.
        tags: tags of the run.
        init_timeout: seconds to wait for the server before the run goes on offline.

    Raises:
        UserError: W&B is not installed.
    """
    _require("wandb")
    wished = os.environ.get("WANDB_MODE", "online")
    if wished == "disabled":
        log.info("W&B: WANDB_MODE=disabled, so nothing is logged to it")
        return []
    if mode == "auto":
        mode = "online" if wished == "online" else "offline"
    if mode == "online" and not _has_key():
        mode = "offline"
        log.info(
            "W&B: no key found, so the run is kept offline; log in with `wandb login`, upload it with `wandb sync`"
        )
    options: dict[str, Any] = {
        "project": project,
        "entity": entity,
        "id": _stable_id(run.folder),
        "name": run.name[:_LONGEST_NAME],
        "group": group or run.group,
        "job_type": run.verb,
        "tags": tags,
        "config": run.config,
        "resume": "allow",
        "save_dir": str(run.folder),
    }
    return [_start_wandb(options, mode, init_timeout)]


def _start_wandb(options: dict[str, Any], mode: Literal["online", "offline"], init_timeout: float) -> Logger:
    import wandb as client
    from lightning.pytorch.loggers import WandbLogger
    from lightning.pytorch.utilities.rank_zero import rank_zero_only

    def start(mode: Literal["online", "offline"]) -> WandbLogger:
        settings = client.Settings(init_timeout=init_timeout, silent=True, console="off", mode=mode)
        logger = WandbLogger(**options, offline=mode == "offline", settings=settings)
        if getattr(rank_zero_only, "rank", 0) == 0:
            # Starting here, not at the first metric, lets a missing server be noticed before work starts.
            logger.experiment.define_metric("*", step_metric="trainer/global_step")
        return logger

    if mode == "offline":
        return start(mode)
    try:
        return start(mode)
    except (client.errors.CommError, client.errors.UsageError, TimeoutError) as error:
        log.warning("W&B: the server could not be reached (%s); the run goes on offline", error)
        client.teardown()
        return start("offline")


def log_picture(loggers: list[Logger], key: str, picture: Path, iteration: int) -> None:
    """Hand a PNG to every logger that shows pictures."""
    import numpy as np

    for logger in loggers:
        if hasattr(logger, "log_image"):
            logger.log_image(key=key, images=[str(picture)], step=iteration)
        elif hasattr(getattr(logger, "experiment", None), "add_image"):
            with Image.open(picture) as image:
                pixels = np.asarray(image.convert("RGB"))
            logger.experiment.add_image(key, pixels, iteration, dataformats="HWC")  # type: ignore[attr-defined]


def close_loggers(loggers: list[Logger], failed: bool) -> None:
    """Tell W&B how the run ended, so that a failed one does not show as finished."""
    for logger in loggers:
        if type(logger).__name__ == "WandbLogger":
            import wandb as client

            client.finish(exit_code=int(failed))


def _require(package: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise UserError(
            f"logger={package} needs the package {package}, which is not installed. Install it with "
            f"`pip install 'disback-cli[{package}]'`, or drop logger={package}: metrics.csv is always written."
        )


def _has_key() -> bool:
    """Whether W&B would find an API key, without asking it (it would prompt)."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def _stable_id(folder: Path) -> str:
    """The run's W&B id, made once and kept in the run's folder."""
    file = folder / "wandb_id.json"
    if file.is_file():
        return str(json.loads(file.read_text())["id"])
    identity = secrets.token_hex(4)
    write_json(file, {"id": identity})
    return identity
