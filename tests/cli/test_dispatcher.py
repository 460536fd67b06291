"""``disback``: help, verbs, and what it must not import."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from disback_cli import cli

Disback = Callable[..., "subprocess.CompletedProcess[str]"]

# runs commands one after another in one interpreter and prints their exit codes
_DRIVER = """
import runpy, sys
from disback_cli import cli
for words in {commands!r}:
    sys.argv = ['disback', *words]
    try:
        code = cli.main()
    except SystemExit as end:
        code = end.code or 0
    print('\\nexit', code, flush=True)
    for name in [n for n in sys.modules if n.startswith('disback_cli.verbs')]:
        del sys.modules[name]
heavy = {{'torch', 'lightning', 'matplotlib', 'sklearn'}} & set(sys.modules)
assert not heavy, heavy
"""


def _main(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["disback", *words])
    return cli.main()


@pytest.mark.parametrize("words", [(), ("--help",), ("-h",)])
def test_overview_names_every_verb(
    words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _main(monkeypatch, *words) == 0
    out = capsys.readouterr().out
    assert all(f"  {verb} " in out for verb in cli.VERBS)


def test_unknown_verb_names_the_nearest(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert _main(monkeypatch, "bactrack") == 2
    assert "did you mean 'disback backtrack'" in capsys.readouterr().err
    assert _main(monkeypatch, "teacher=edm") == 2
    assert "the verb comes first: disback VERB teacher=edm" in capsys.readouterr().err


def test_version(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert _main(monkeypatch, "--version") == 0
    assert capsys.readouterr().out.startswith("disback ")


def test_every_verb_is_a_module() -> None:
    folder = Path(cli.__file__).parent / "verbs"
    assert all((folder / f"{verb}.py").is_file() for verb in cli.VERBS)


def test_help_cfg_and_mistakes_import_nothing_heavy(tmp_path: Path, environment: dict[str, str]) -> None:
    commands = [["record", "--help"], ["backtrack", "--cfg", "job"], ["record", "sed=1"], ["sample", "--cfg", "job"]]
    done = subprocess.run(
        [sys.executable, "-c", _DRIVER.format(commands=commands)],
        cwd=tmp_path, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stdout.splitlines() if line.startswith("exit")] == [
        "exit 0",
        "exit 0",
        "exit 2",
        "exit 0",
    ]
    assert "there is no option 'sed'; did you mean 'seed'" in done.stderr
    assert "option groups" in done.stdout and "teacher" in done.stdout
    assert not list(tmp_path.iterdir()), "looking leaves nothing behind"


def test_every_root_value_of_a_verb_is_declared() -> None:
    from disback_cli.configuration.arguments import CommandLine
    from disback_cli.configuration.complaints import valid_keys
    from disback_cli.configuration.options import VERB_OPTIONS

    for verb, options in VERB_OPTIONS.items():
        keys, _, _ = valid_keys(verb, CommandLine(()))
        inner = {key.split(".")[0] for key in keys if "." in key}
        declared = set(options.__dataclass_fields__)
        assert {key for key in keys if "." not in key} - inner <= declared, verb


def test_messages_for_mistakes(tiny: Disback, workplace: Path) -> None:
    cases = {
        "schedule.intervl=4": ("there is no option 'schedule.intervl'; did you mean 'schedule.interval'?",),
        "interval=4": ("did you mean 'schedule.interval'?",),
        "schedule.interval=ten": ("schedule.interval=ten: must be an int (PathSchedule.interval)",),
        "+schedule.intervl=4": ("PathSchedule has no option 'intervl'; did you mean 'interval'?",),
        "seed=a=b": ("cannot read 'seed=a=b'", "quotes"),
        "schedule.interval=???": ("schedule.interval: no value given; type schedule.interval=...",),
        "hydra/launcher=proces": ("there is no hydra/launcher 'proces'; did you mean 'process'?",),
        "teacher.name=${nowhere}": ("nowhere", "not found"),
    }
    for word, expected in cases.items():
        done = tiny(word)
        assert done.returncode == 2, (word, done.stderr)
        assert all(text in done.stderr for text in expected), (word, done.stderr)
        assert "Traceback" not in done.stderr and "HYDRA_FULL_ERROR" not in done.stderr and not done.stdout
    assert not (workplace / "runs").exists(), "a mistake leaves no empty run folder"


def test_failure_of_the_work_keeps_its_trace(tiny: Disback) -> None:
    done = tiny("fails_at=0")
    assert done.returncode == 1
    assert "RuntimeError: this job fails" in done.stderr and "run_and_report" not in done.stderr
    wanted = tiny("sed=1", HYDRA_FULL_ERROR="1")
    assert wanted.returncode == 2 and "Traceback" in wanted.stderr


def test_help_shows_values_comments_and_examples(tiny: Disback) -> None:
    out = tiny("--help").stdout
    assert "disback tiny: a stand-in" in out
    assert any("seed: 0" in line and "# everything random follows from it" in line for line in out.splitlines())
    assert "examples:\n  disback tiny seed=1" in out
    assert "${oc.env:DISBACK_RUNS,runs}" in out
