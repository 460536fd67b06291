"""Options that a group does not have, and flags that do not exist, are found before anything is composed."""

from __future__ import annotations

from pathlib import Path

import pytest

from disback_cli.configuration.arguments import CommandLine
from disback_cli.configuration.option_files import options, require_options, without_groups
from disback_cli.errors import UserError


@pytest.mark.parametrize(
    ("verb", "word", "says"),
    [
        ("backtrack", "noise/generator=karas", "did you mean 'karras'"),
        ("backtrack", "dataset=digit", "did you mean 'digits'"),
        ("evaluate", "metrics=fid", "metrics can be: digits, inception, none, points"),
        ("record", "recipe/record=x", "recipe/record can be: edm_digits"),
        ("backtrack", "metrics=digits,inceptoin", "there is no metrics 'inceptoin'"),
    ],
)
def test_an_option_that_the_composition_would_pass_over_is_refused(verb: str, word: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        require_options(verb, CommandLine.parse([word]))


@pytest.mark.parametrize(
    "word",
    ["noise/generator=karras", "metrics=null", "metrics=none", "dataset=of/gmm_2d", "metrics=digits,points", "lr=1"],
)
def test_options_that_exist_are_let_through(word: str) -> None:
    require_options("backtrack", CommandLine.parse([word]))


def test_a_users_own_options_count(tmp_path: Path) -> None:
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset" / "mine.yaml").write_text("_target_: x.y\n")
    line = CommandLine.parse(["dataset=mine", "--config-dir", str(tmp_path)])
    require_options("backtrack", line)
    assert {"mine", "digits"} <= set(options("dataset", line))
    with pytest.raises(UserError, match="there is no dataset 'mine'"):
        require_options("backtrack", CommandLine.parse(["dataset=mine"]))


def test_flags_are_answered_with_the_form_of_options() -> None:
    with pytest.raises(UserError, match="there is no flag --batch-size; options are written key=value: batch_size=8"):
        CommandLine.parse(["--batch-size=8"])
    assert CommandLine.parse(["--cfg", "job", "seed=1", "--multirun"]).multirun


def test_null_takes_an_optional_group_away_and_leaves_other_keys_alone() -> None:
    line = without_groups("backtrack", CommandLine.parse(["dataset=null", "path=null", "dataset.n=5", "metrics=none"]))
    assert line.words() == ["~dataset", "path=null", "dataset.n=5", "metrics=none"]
    assert without_groups("backtrack", line) == line
