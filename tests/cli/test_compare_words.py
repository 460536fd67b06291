"""The words behind ``disback compare``."""

from __future__ import annotations

from pathlib import Path

import pytest

from disback_cli.configuration.plain_verb import UsageError
from disback_cli.verbs.compare import _parse, main


def test_options_in_every_spelling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    request = _parse(
        ["a", "--out", "o", "--level", "2", "b", "--level=fid_2k=3", "baseline=schedule=path lr=1", "--json"]
    )
    assert request.places == ["a", "b"] and str(request.out) == "o" and request.wants_json
    assert request.levels == [(None, 2.0), ("fid_2k", 3.0)] and request.baseline == "schedule=path lr=1"
    (tmp_path / "out=x").mkdir()
    assert _parse(["out=x", "json=false"]).places == ["out=x"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--json"], "name at least one run or sweep"),
        (["a", "--basline", "x"], "did you mean --baseline"),
        (["a", "-o", "x"], "there is no option -o"),
        (["a", "--level", "low"], "must be a number, or NAME=NUMBER"),
        (["a", "--level", "nan"], "must be a number"),
        (["a", "--out"], "--out needs a value"),
        (["a", "--out="], "--out needs a value"),
        (["a", "--json=maybe"], "must be true or false"),
    ],
)
def test_mistakes(words: list[str], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        _parse(words)


def test_help_and_a_place_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0 and "usage: disback compare" in capsys.readouterr().out
    assert main(["/nowhere/at/all"]) == 2
    assert capsys.readouterr().err == "disback compare: there is nothing at /nowhere/at/all\n"
