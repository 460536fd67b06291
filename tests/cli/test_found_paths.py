"""Which recorded path is taken where the student is typed: one that was recorded for it, or none."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from disback_cli.configuration.arguments import CommandLine
from disback_cli.configuration.pathsource import with_path
from disback_cli.errors import UserError


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def a_path(name: str, student: str | None, *overrides: str, **settings: object) -> str:
    """A recording named by its date; ``student`` is what was taken of the group, None where the manifest is silent."""
    folder = Path("runs/record/digits") / name / "path"
    folder.mkdir(parents=True)
    manifest = {
        "teacher": {"name": "digits"}, "teacher_choice": "digits", "created": name, "overrides": list(overrides),
        "choices": {"teacher": "digits"} | ({} if student is None else {"student": student}), "student": settings,
    }  # fmt: skip
    (folder / "path.json").write_text(json.dumps(manifest))
    return f"path={folder.parent.absolute()}"


def found(*words: str) -> list[str]:
    return with_path(CommandLine.parse(words), Path("runs"), []).words()


def test_the_newest_path_of_the_student_that_is_typed_is_taken() -> None:
    few = a_path("2024-01", "few_step")
    a_path("2024-02", "compact")
    one = a_path("2024-03", "one_step")
    newest = a_path("2024-04", "generator")
    assert newest in found() and newest in found("student.seed=3")
    assert few in found("student=few_step") and one in found("student=one_step")
    notes: list[str] = []
    with_path(CommandLine.parse(["student=few_step"]), Path("runs"), notes)
    assert notes[0].startswith("path: runs/record/digits/2024-01 (the newest of teacher digits for student=few_step; ")


def test_a_student_without_a_path_is_told_what_to_type() -> None:
    assert found("student=few_step") == ["student=few_step"], "without any path the stage says what to do"
    recorded = a_path("2024-01", "one_step")
    with pytest.raises(UserError) as refusal:
        found("student=few_step", "student.sigmas=[9, 1]", "lr.fake=1", "teacher.dtype=bf16")
    text = str(refusal.value)
    assert "runs/record/digits/2024-01, is for student=one_step" in text and "or give path=RUN" in text
    typed = shlex.split(text.split("`")[1])
    assert typed[:4] == ["disback", "record", "teacher=digits", "student=few_step"]
    assert typed[4:] == ["student.sigmas=[9, 1]", "teacher.dtype=bf16"]
    assert recorded in found("student=few_step", recorded), "a path that is named is the user's own choice"
    for free in ("path=null", "schedule=endpoint"):
        assert found("student=few_step", free) == ["student=few_step", free]


def test_lora_and_one_step_start_alike_with_the_settings_of_either() -> None:
    one = a_path("2024-01", "one_step", "student.weights=/a/run", sigma_init=7.0)
    shared = ["student.sigma_init=7.0", "student.weights=/a/run"]
    assert {one, *shared} <= set(found("student=lora"))
    lora = a_path("2024-02", "lora", "student.rank=2", sigma_init=9.0)
    words = found("student=one_step")
    assert {lora, "student.sigma_init=9.0"} <= set(words) and "student.rank=2" not in words
    assert "student.rank=2" in found("student=lora")
    with pytest.raises(UserError, match="student=compact: no path of teacher digits"):
        found("student=compact")


def test_a_manifest_that_names_no_student_is_of_the_one_typed_then_or_of_the_default() -> None:
    default = a_path("2024-01", None)
    typed = a_path("2024-02", None, "student=few_step")
    assert default in found("student=one_step") and typed in found("student=few_step")


def test_every_job_of_a_sweep_over_students_finds_its_own() -> None:
    paths = {student: a_path(f"2024-0{i}", student) for i, student in enumerate(("one_step", "compact"))}
    sweep = ["student=one_step,compact", "-m"]
    assert found(*sweep) == sweep
    for student, path in paths.items():
        assert path in found(f"student={student}")


def test_what_the_path_was_recorded_for_is_told_where_it_is_not_the_default() -> None:
    notes: list[str] = []
    a_path("2024-01", "one_step")
    with_path(CommandLine.parse([]), Path("runs"), notes)
    a_path("2024-02", "compact", "fake=lora")
    with_path(CommandLine.parse([]), Path("runs"), notes)
    assert "recorded for" not in notes[0]
    assert "(the newest of teacher digits; recorded for student=compact, fake=lora; path=RUN" in notes[1]
