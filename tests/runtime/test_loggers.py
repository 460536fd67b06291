"""Loggers besides the CSV file; nothing here connects anywhere."""

import importlib.util
import json

import pytest

from disback_cli.configuration.jobs import job_environment
from disback_cli.errors import UserError
from disback_cli.runtime import loggers, session
from disback_cli.runtime.loggers import RunIdentity, csv_only, log_picture, tensorboard, wandb


@pytest.fixture
def run(tmp_path) -> RunIdentity:
    return RunIdentity(tmp_path, "backtrack", {"seed": 0}, "sweep-1", "schedule=path seed=0")


@pytest.fixture
def no_key(monkeypatch, tmp_path):
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))


@pytest.fixture
def started(monkeypatch):
    """Options with which W&B would be started."""
    found: list[tuple[dict, str]] = []
    monkeypatch.setattr(loggers, "_require", lambda _: None)
    monkeypatch.setattr(loggers, "_start_wandb", lambda options, mode, _: found.append((options, mode)))
    return found


@pytest.mark.parametrize("factory", [wandb, tensorboard], ids=lambda f: f.__name__)
def test_missing_package_says_how_to_install_it(run, monkeypatch, factory):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == factory.__name__ else find(name, *rest)
    )
    with pytest.raises(
        UserError, match=rf"logger={factory.__name__} .*pip install 'disback-cli\[{factory.__name__}\]'"
    ):
        factory(run)
    assert list(run.folder.iterdir()) == []


def test_csv_is_all_there_is_without_a_choice(run):
    assert csv_only(run) == []


def test_wandb_keeps_one_id_a_run_folder(run, started, no_key, tmp_path):
    wandb(run)
    wandb(run)
    other = tmp_path / "other"
    other.mkdir()
    wandb(RunIdentity(other, "record", {}, None, "other"))
    first, second, third = (options["id"] for options, _ in started)
    assert first == second != third
    assert json.loads((run.folder / "wandb_id.json").read_text())["id"] == first
    assert started[0][0]["resume"] == "allow"


def test_wandb_is_told_what_the_run_is(run, started, no_key):
    wandb(run, project="mine", tags=["a"])
    options, _ = started[0]
    assert options["project"] == "mine"
    assert options["job_type"] == "backtrack"
    assert options["group"] == "sweep-1"
    assert options["name"] == "schedule=path seed=0"
    assert options["config"] == {"seed": 0}
    assert options["tags"] == ["a"]
    assert options["save_dir"] == str(run.folder)
    wandb(run, group="other")
    assert started[1][0]["group"] == "other"


def test_wandb_without_a_key_is_offline_and_says_so(run, started, no_key, messages):
    wandb(run)
    assert started[0][1] == "offline"
    assert "wandb sync" in messages()


def test_wandb_with_a_key_is_online_unless_the_environment_says_otherwise(run, started, no_key, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    wandb(run)
    monkeypatch.setenv("WANDB_MODE", "offline")
    wandb(run)
    wandb(run, mode="online")
    assert [mode for _, mode in started] == ["online", "offline", "online"]


@pytest.mark.parametrize(("host", "expected"), [("api.wandb.ai", "online"), ("example.org", "offline")])
def test_wandb_key_is_found_in_netrc_by_its_host(run, started, no_key, monkeypatch, tmp_path, host, expected):
    (tmp_path / "netrc").write_text(f"machine {host}\n  login user\n  password {'x' * 40}\n")
    (tmp_path / "netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    wandb(run)
    assert started[0][1] == expected


def test_tensorboard_writes_into_the_run(run):
    pytest.importorskip("tensorboard")
    (logger,) = tensorboard(run)
    logger.log_metrics({"loss": 1.0}, 3)
    logger.finalize("success")
    assert list((run.folder / "tensorboard").glob("events.*"))


class ShowsImages:
    def __init__(self) -> None:
        self.shown = []

    def log_image(self, **arguments) -> None:
        self.shown.append(arguments)


class AddsImages:
    def __init__(self) -> None:
        self.experiment, self.shown = self, []

    def add_image(self, key, pixels, step, dataformats) -> None:
        self.shown.append((key, pixels.shape, step, dataformats))


def test_pictures_go_to_every_logger_that_shows_them(tmp_path):
    from PIL import Image

    Image.new("L", (5, 3)).save(tmp_path / "x.png")
    first, second = ShowsImages(), AddsImages()
    log_picture([first, object(), second], "samples", tmp_path / "x.png", 7)
    assert first.shown == [{"key": "samples", "images": [str(tmp_path / "x.png")], "step": 7}]
    assert second.shown == [("samples", (3, 5, 3), 7, "HWC")]


def test_jobs_of_a_sweep_share_a_group_and_are_called_by_what_is_their_own(tmp_path, monkeypatch):
    found = []
    monkeypatch.setattr(session, "instantiate", lambda _, identity: found.append(identity) or [])

    def identity(label: str, sweep: str) -> RunIdentity:
        for name, value in job_environment(0, 1, sweep, label).items():
            monkeypatch.setenv(name, value)
        session.Session("record", tmp_path / "7", {"logger": {}}, None, None, None, True).start_loggers()
        return found[-1]

    first, second = (identity(label, "multirun/record/x1") for label in ("nodes=2 seed=0", "nodes=3 seed=0"))
    assert (first.group, first.name) == ("x1", "nodes=2 seed=0")
    assert (second.group, second.name) == ("x1", "nodes=3 seed=0")
    alone = identity("", "")
    assert (alone.group, alone.name) == (None, "7")
