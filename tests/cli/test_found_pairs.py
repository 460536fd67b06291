"""The pairs that `disback regress`, and a distillation with a term on pairs, find on disk."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from test_discovery import a_path, place, prepared  # noqa: F401 - `place` is a fixture of every test here

from disback_cli.configuration import discovery, runfolder
from disback_cli.errors import UserError


def some_pairs(name: str, created: str, *overrides: str, choice: str = "digits", **facts: object) -> Path:
    folder = Path("runs/pairs") / choice / name
    folder.mkdir(parents=True)
    content = {
        "format": 1, "teacher": {"name": choice, "hash": "0"}, "teacher_choice": choice, "overrides": list(overrides),
        "created": created, "places": {},
    } | facts  # fmt: skip
    (folder / "pairs.json").write_text(json.dumps(content))
    return folder


def test_regress_takes_the_newest_pairs_and_their_teacher() -> None:
    some_pairs("a", "2026-01-02")
    some_pairs("b", "2026-01-03", choice="edm")
    folder = some_pairs("c", "2026-01-04", "n=5", "teacher.std=0.2")
    (Path("runs/pairs/digits/unfinished")).mkdir()
    words = prepared("regress", "student=compact")
    assert words == ["teacher=digits", "teacher.std=0.2", f"pairs={folder.absolute()}", "student=compact"]
    assert "pairs: runs/pairs/digits/c (the newest of teacher digits" in discovery.notes()[0]


def test_a_teacher_that_is_named_has_its_own_newest_pairs() -> None:
    newer = some_pairs("a", "2026-01-02")
    older = some_pairs("b", "2026-01-01", "teacher.std=0.2")
    some_pairs("c", "2026-01-03", choice="edm")
    assert f"pairs={newer.absolute()}" in prepared("regress", "teacher=digits")
    assert f"pairs={older.absolute()}" in prepared("regress", "teacher=digits", "teacher.std=0.2")
    assert prepared("regress", "teacher=digits", "teacher.std=0.1") == ["teacher=digits", "teacher.std=0.1"]
    assert prepared("regress", "teacher=gmm_2d") == ["teacher=gmm_2d"]


def test_how_the_teacher_was_sampled_is_neither_asked_nor_taken_over() -> None:
    folder = some_pairs("a", "2026-01-02", "teacher=digits", "teacher.sampler.s_churn=0")
    words = prepared("regress", "teacher=digits", "teacher.sampler.steps=5")
    assert words == [f"pairs={folder.absolute()}", "teacher=digits", "teacher.sampler.steps=5"]


def test_pairs_that_are_named_bring_their_teacher() -> None:
    some_pairs("a", "2026-01-05")
    folder = some_pairs("b", "2026-01-01", choice="edm")
    assert prepared("regress", f"pairs={folder}") == ["teacher=edm", f"pairs={folder.absolute()}"]
    assert prepared("regress", "pairs=null") == ["pairs=null"]
    assert prepared("regress", "-m", "pairs=runs/${seed}", "seed=0,1") == ["pairs=runs/${seed}", "seed=0,1", "-m"]


def test_a_distillation_looks_for_pairs_only_if_it_has_a_term_on_them() -> None:
    folder = some_pairs("a", "2026-01-02")
    assert prepared("backtrack", "objective=dmd") == ["objective=dmd"]
    assert prepared("backtrack", "objective.regression.weight=0") == ["objective.regression.weight=0"]
    words = prepared("backtrack", "objective=dmd", "objective.regression.weight=0.25")
    assert words[:2] == ["teacher=digits", f"pairs={folder.absolute()}"]


def test_the_paths_teacher_decides_which_pairs_a_distillation_takes() -> None:
    path = a_path("p", "2026-01-01", choice="edm")
    folder = some_pairs("a", "2026-01-02", choice="edm")
    some_pairs("b", "2026-01-03")
    words = prepared("backtrack", "objective.regression.weight=0.25")
    assert {"teacher=edm", f"path={path.absolute()}", f"pairs={folder.absolute()}"} <= set(words)
    assert sum(word.startswith("teacher=") for word in words) == 1


def test_pairs_that_cannot_be_used_are_said_to_be_so() -> None:
    with pytest.raises(UserError, match="pairs=nowhere: no such folder"):
        prepared("regress", "pairs=nowhere")
    unfinished = Path("runs/pairs/digits/u")
    runfolder.create(unfinished, "pairs", "digits", ["n=5", "teacher=digits"])
    with pytest.raises(UserError, match="not complete; type 'disback pairs n=5 teacher=digits' first"):
        prepared("regress", f"pairs={unfinished}")
    damaged = some_pairs("d", "2026-01-01", overrides="n=5")
    with pytest.raises(UserError, match="damaged"):
        prepared("regress", f"pairs={damaged}")


def test_words_of_a_strangers_pairs_run_no_code() -> None:
    folder = some_pairs("s", "2026-01-01", "teacher.denoiser._target_=os.system")
    with pytest.raises(UserError, match="could run code"):
        prepared("regress", f"pairs={folder}")
