"""A stand-in verb in a folder of its own: the command line is tested without the work of a real verb."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Disback = Callable[..., "subprocess.CompletedProcess[str]"]

_CONFIG = """\
defaults:
  - verb_base
  - override hydra/launcher: process
  - _self_

verb: tiny
teacher:
  name: digits
seed: 0  # everything random follows from it
fails_at: -1
pause: 0.0
resume: false
schedule:
  _target_: own_classes.PathSchedule
  interval: 3
hydra:
  help:
    header: a stand-in
    footer: disback tiny seed=1
"""

_CLASSES = """\
import torch  # reading a signature must not import this


class PathSchedule:
    def __init__(self, teacher, *, interval: int): ...
"""

_VERB = """\
import json, os, sys, time
from hydra.core.hydra_config import HydraConfig
from disback_cli.configuration.entry import verb_main

def work(cfg):
    assert "torch" not in sys.modules and "HYDRA_FULL_ERROR" not in os.environ
    print("working", cfg.seed, flush=True)
    time.sleep(cfg.pause)
    if cfg.seed == cfg.fails_at and not os.path.exists("mended"):
        raise RuntimeError("this job fails")
    folder = HydraConfig.get().runtime.output_dir
    with open(os.path.join(folder, "summary.json"), "w") as file:
        json.dump({"metrics": {"fid_2k": 1.5 * cfg.seed}}, file)

if __name__ == "__main__":
    verb_main("tiny", work)
"""


@pytest.fixture
def environment() -> dict[str, str]:
    """The environment without what an outer launcher or the user's own settings would add."""
    names = ("DISBACK_", "SLURM_", "TORCHELASTIC_", "HYDRA_", "LOCAL_RANK", "RANK", "WORLD_SIZE")
    return {name: value for name, value in os.environ.items() if not name.startswith(names)}


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    """A folder with the stand-in verb ``tiny_verb`` and its configuration."""
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "tiny.yaml").write_text(_CONFIG)
    (tmp_path / "own_classes.py").write_text(_CLASSES)
    (tmp_path / "tiny_verb.py").write_text(_VERB)
    return tmp_path


@pytest.fixture
def tiny(workplace: Path, environment: dict[str, str]) -> Disback:
    """Runs ``disback tiny <words>`` in the workplace."""

    def run(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "tiny_verb", *words, "--config-dir", "conf"]
        env = environment | variables
        return subprocess.run(command, cwd=workplace, env=env, capture_output=True, text=True, timeout=60)

    return run
