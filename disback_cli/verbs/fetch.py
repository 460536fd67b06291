"""`disback fetch`: download the official file of a teacher, and check what has come."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from disback_cli.configuration.entry import verb_main

if TYPE_CHECKING:
    from omegaconf import DictConfig


def work(cfg: DictConfig) -> None:
    """Download what is missing, verify it, say what to type next."""
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    from disback_cli.configuration.arguments import Override, shown
    from disback_cli.denoisers.fetching import fetch_files, fetchable, keep_hashes, verify_network
    from disback_cli.errors import UserError

    if cfg.get("teacher") is None:
        raise UserError(f"say which teacher: disback fetch teacher=NAME\n{fetchable()}")
    teacher = OmegaConf.to_container(cfg.teacher, resolve=True)
    assert isinstance(teacher, dict)
    if not teacher.get("official"):
        raise UserError(f"teacher={teacher['name']} has no official file to download\n{fetchable()}")
    if teacher.get("path") is not None:
        raise UserError(f"teacher.path={teacher['path']} is a file of your own: leave it out to fetch the official one")
    settings = {"allow_http": cfg.allow_http, "retries": cfg.retries, "timeout": cfg.timeout}
    fetched = fetch_files(
        str(teacher["name"]), str(teacher.get("folder") or "teachers"), teacher["official"], **settings
    )
    network = verify_network(fetched.place, teacher["official"])
    keep_hashes(fetched)
    words = [word for word in HydraConfig.get().overrides.task if Override(word).key.split(".")[0] == "teacher"]
    print(f"{network}\n{shown(fetched.place)} is ready\nnext: disback record {shlex.join(words)}")


if __name__ == "__main__":
    verb_main("fetch", work)
