"""Every command the README shows is accepted as typed: it composes and passes the checks, in an empty folder."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
COMMAND = str(Path(sys.executable).parent / "disback")


def _commands() -> list[list[str]]:
    lines = re.findall(r"^    disback (.+)$", README, flags=re.MULTILINE)
    return [shlex.split(line, comments=True) for line in lines]


PLAIN = ("inspect", "convert", "compare")  # take files, not options: their own tests type them


def test_readme_shows_every_verb() -> None:
    from disback_cli.cli import VERBS

    assert {words[0] for words in _commands()} == set(VERBS)


@pytest.mark.parametrize("words", [words for words in _commands() if words[0] not in PLAIN], ids=" ".join)
def test_command_is_accepted_as_typed(words: list[str], tmp_path: Path) -> None:
    # One job of a sweep stands for all: the first of each list of values.
    single = [re.sub(r"^([\w./]+=[^,\[]+),.*$", r"\1", word) for word in words if word != "-m"]
    done = subprocess.run(
        [COMMAND, *single, "--cfg", "job"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "_target_" in done.stdout


def test_make_targets_of_the_readme_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^    make (\S+)", README, flags=re.MULTILINE):
        assert re.search(rf"^{re.escape(target)}:", makefile, flags=re.MULTILINE), target


def test_ci_runs_what_the_readme_tells_to_type() -> None:
    ci = (ROOT / ".ci" / "run").read_text()
    for command in re.findall(r"^make \S+$", ci, flags=re.MULTILINE):
        assert f"    {command} " in README, command
    assert "make test\n" in ci


def test_pictures_of_the_readme_are_there() -> None:
    for picture in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README):
        assert (ROOT / picture).is_file(), picture
