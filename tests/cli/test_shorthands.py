"""Words of the command line that stand for others: ``noise=NAME``, ``sweep=NAME``, ``${seed}`` in a place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hydra.errors import MissingConfigException

from disback_cli.configuration import discovery
from disback_cli.configuration.arguments import CommandLine
from disback_cli.configuration.complaints import explain
from disback_cli.errors import UserError


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("DISBACK_RUNS", "LOCAL_RANK", "TORCHELASTIC_RUN_ID", "DISBACK_RUN_ID"):
        monkeypatch.delenv(name, raising=False)


def prepared(verb: str, *words: str) -> list[str]:
    return discovery.prepare(verb, CommandLine.parse(words)).words()


def refused(verb: str, *words: str) -> str:
    with pytest.raises(UserError) as refusal:
        prepared(verb, *words)
    return str(refusal.value)


def test_noise_is_the_law_of_both_losses_and_of_the_one_in_recording() -> None:
    assert prepared("backtrack", "noise=karras") == ["noise/fake=karras", "noise/generator=karras"]
    assert prepared("record", "seed=1", "noise=karras") == ["seed=1", "noise/fake=karras"]
    assert prepared("pretrain", "noise=uniform") == ["noise/fake=uniform"]
    words = prepared("backtrack", "noise=karras")
    assert prepared("backtrack", *words) == words


def test_several_laws_stay_one_axis_of_a_sweep() -> None:
    both = ["noise/fake=karras,narrow", "noise/generator=${noise/fake}", "-m"]
    assert prepared("backtrack", "-m", "noise=karras,narrow") == both


def test_what_the_user_says_of_one_law_stays_as_it_is() -> None:
    own = "noise/generator=uniform"
    assert prepared("backtrack", own, "noise=karras") == [own, "noise/fake=karras"]
    assert prepared("backtrack", "noise=karras", own) == ["noise/fake=karras", own]
    fake = "noise/fake=uniform"
    assert prepared("backtrack", fake, "noise=karras,narrow", "-m") == [fake, "noise/generator=karras,narrow", "-m"]


def test_a_law_that_is_none_is_refused_with_those_there_are() -> None:
    found = refused("backtrack", "noise=karas")
    assert (
        found == "there is no noise 'karas'; did you mean 'karras'?\nnoise can be: karras, lognormal, narrow, uniform"
    )
    assert "there is no noise 'wide'" in refused("record", "-m", "noise=narrow,wide")
    assert "name a law" in refused("record", "noise=")
    for group in ("fake", "generator"):
        Path("mine/noise", group).mkdir(parents=True)
        Path("mine/noise", group, "own.yaml").write_text("_target_: a.B\n")
    assert "noise/fake=own" in prepared("backtrack", "noise=own", "--config-dir", "mine")


def test_a_sweep_that_is_written_down_is_its_words() -> None:
    words = ["schedule=path,warm_start,endpoint", "seed=0,1,2", "-m"]
    assert prepared("backtrack", "-m", "sweep=schedules") == words
    assert prepared("backtrack", "-m", "sweep=schedules", "seed=5") == [words[0], "seed=5", "-m"], "one's own win"
    assert "noise/generator=${noise/fake}" in prepared("backtrack", "-m", "sweep=noise_laws")
    assert prepared("backtrack", "sweep=learning_rates", "--cfg", "job") == ["--cfg", "job"], "what the jobs share"


def test_a_sweep_that_cannot_be_is_refused() -> None:
    assert refused("backtrack", "sweep=schedules").endswith("type: disback backtrack -m sweep=schedules")
    assert "did you mean 'schedules'?\nsweep can be: learning_rates, noise_laws" in refused(
        "backtrack", "sweep=schedule"
    )
    assert "is a sweep of `disback backtrack`; `disback record` has none" in refused("record", "-m", "sweep=schedules")
    Path("mine/sweep").mkdir(parents=True)
    Path("mine/sweep/lists.yaml").write_text("verb: record\nseed: [0, 1]\n")
    assert "lists.yaml is no sweep" in refused("record", "-m", "sweep=lists", "--config-dir", "mine")
    Path("mine/sweep/lists.yaml").write_text("verb: record\nshare: true\nseed: 0,1\n")
    assert prepared("record", "-m", "sweep=lists", "--config-dir", "mine")[:2] == ["share=true", "seed=0,1"]


def test_a_sweep_is_continued_with_what_hydra_was_told_as_well() -> None:
    Path("here").mkdir()
    stored = {
        "verb": "record",
        "overrides": ["seed=0,1"],
        "hydra": ["hydra/sweeper=optuna", "hydra.sweeper.n_trials=4"],
    }
    Path("here/sweep.json").write_text(json.dumps(stored))
    words = prepared("record", "-m", "hydra.sweep.dir=here", "hydra.sweeper.n_trials=9")
    assert words == ["seed=0,1", "hydra/sweeper=optuna", "hydra.sweeper.n_trials=9", "hydra.sweep.dir=here", "-m"]


def test_every_seed_can_have_a_recording_of_its_own() -> None:
    for seed in (0, 1):
        folder = Path("recordings", str(seed), "path")
        folder.mkdir(parents=True)
        content = {"teacher": {"name": "gmm_2d"}, "teacher_choice": "gmm_2d", "overrides": [], "created": "2024"}
        (folder / "path.json").write_text(json.dumps(content))
    place = "path=recordings/${seed}"
    assert prepared("backtrack", "-m", place, "seed=0,1") == [place, "seed=0,1", "-m"]
    own = f"path={Path('recordings/1').absolute()}"
    assert prepared("backtrack", place, "seed=1") == ["teacher=gmm_2d", own, "seed=1"]
    assert "add seed=0" in refused("backtrack", place)


def test_a_sweeper_that_is_not_installed_says_how_to_get_it() -> None:
    error = MissingConfigException("no", "hydra/sweeper/optuna", ["basic"])
    assert "pip install 'disback-cli[optuna]'" in explain(error, "backtrack", CommandLine(()))
