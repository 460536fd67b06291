"""What the tests of the installed command share: clean environments, and runs that several tests look at."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from disback_command import BACKTRACK, RECORD, TWO_PROCESSES, Done, Workplace, succeeded, together

MakeWorkplace = Callable[[str], Workplace]

_NOT_PASSED_ON = (
    "DISBACK_", "SLURM_", "TORCHELASTIC_", "HYDRA_", "WANDB_", "LOCAL_RANK", "RANK", "WORLD_SIZE", "MASTER_",
    "PYTHONPATH",
)  # fmt: skip


@pytest.fixture(scope="session")
def clean_environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment without an outer launcher, without keys, without the network, caching in a folder of its own."""
    home = tmp_path_factory.mktemp("home")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_NOT_PASSED_ON)}
    nowhere = "http://127.0.0.1:9"
    return kept | {
        "DISBACK_CACHE": str(home / "cache"),
        "NETRC": str(home / "netrc"),
        "WANDB_CONFIG_DIR": str(home / "wandb"),
        "WANDB_CACHE_DIR": str(home / "wandb"),
        "WANDB_DATA_DIR": str(home / "wandb"),
        "HTTP_PROXY": nowhere,
        "HTTPS_PROXY": nowhere,
        "http_proxy": nowhere,
        "https_proxy": nowhere,
    }


@pytest.fixture(scope="session")
def make_workplace(tmp_path_factory: pytest.TempPathFactory, clean_environment: dict[str, str]) -> MakeWorkplace:
    """Makes workplaces by name."""
    return lambda name: Workplace(tmp_path_factory.mktemp(name), clean_environment).prepare()


@pytest.fixture
def workplace(tmp_path: Path, clean_environment: dict[str, str]) -> Workplace:
    """A workplace of the test's own."""
    return Workplace(tmp_path, clean_environment).prepare()


@pytest.fixture(scope="session")
def studio(make_workplace: MakeWorkplace) -> Workplace:
    """The workplace of the runs that nothing disturbs; look, do not touch."""
    return make_workplace("studio")


@pytest.fixture(scope="session")
def recorded(studio: Workplace) -> Path:
    """A recording made by one process."""
    folder = studio.folder / "runs" / "record" / "gmm_2d" / "one"
    succeeded(studio(*RECORD, f"hydra.run.dir={folder}"))
    return folder


@pytest.fixture(scope="session")
def recorded_by_two(studio: Workplace, recorded: Path) -> Path:
    """The same recording made by two processes; newer than ``recorded``."""
    folder = studio.folder / "runs" / "record" / "gmm_2d" / "two"
    succeeded(studio(*RECORD, *TWO_PROCESSES, f"hydra.run.dir={folder}"))
    return folder


@pytest.fixture(scope="session")
def distillations(studio: Workplace, recorded: Path, recorded_by_two: Path) -> dict[str, Done]:
    """Two distillations: along the newest path with two further options, along the named one with nothing special."""
    newest, named = together(
        lambda: succeeded(
            studio(*BACKTRACK, "logger=tensorboard", "collapse_below=100", "hydra.run.dir=runs/backtrack/gmm_2d/newest")
        ),
        lambda: succeeded(studio(*BACKTRACK, f"path={recorded}", "hydra.run.dir=runs/backtrack/gmm_2d/named")),
    )
    return {"newest": newest, "named": named}


@pytest.fixture(scope="session")
def distilled(studio: Workplace, distillations: dict[str, Done]) -> Path:
    """The distillation along ``recorded``."""
    return studio.folder / "runs" / "backtrack" / "gmm_2d" / "named"
