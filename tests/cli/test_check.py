"""Signatures from source, types of options, and the check of a composed configuration."""

from __future__ import annotations

import ast
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from omegaconf import OmegaConf

from disback_cli.configuration import check
from disback_cli.configuration.kinds import Kind, from_hint, from_source
from disback_cli.configuration.options import Positive
from disback_cli.configuration.source import NotFound, signature_of
from disback_cli.errors import UserError

_GOOD_AND_BAD: list[tuple[str, Any, list[Any], list[Any]]] = [
    ("int", int, [3, -1], [True, 1.0, "3", None]),
    ("float", float, [3, 0.5, float("inf")], [False, "x", None]),
    ("bool", bool, [True, False], [0, "true"]),
    ("str", str, ["x", ""], [1, None]),
    ("int | None", int | None, [3, None], ["x"]),
    ("typing.Optional[str]", str | None, ["x", None], [1]),
    ("Union[int, str]", int | str, [1, "x"], [1.5, None]),
    ("list[int]", list[int], [[], [1, 2]], [1, [1.5], "ab"]),
    ("Sequence[float]", Sequence[float], [[1, 2.5]], [["x"]]),
    ("tuple[int, str]", tuple[int, str], [[1, "a"]], [[1], ["a", 1]]),
    ("tuple[int, ...]", tuple[int, ...], [[1, 2, 3], []], [["a"]]),
    ("Literal['a', 2]", Literal["a", 2], ["a", 2], ["b", "2"]),
    ("dict[str, int]", dict[str, int], [{"a": 1}], [[1]]),
    ("'int'", int, [1], ["x"]),
    ("Annotated[int, 'positive']", Annotated[int, Positive], [1], ["x"]),
    ("Teacher | None", Any, [1, "x", None, {}], []),
]


@pytest.mark.parametrize(("source", "hint", "good", "bad"), _GOOD_AND_BAD)
def test_kinds_from_source_and_from_hints_agree(source: str, hint: Any, good: list[Any], bad: list[Any]) -> None:
    for kind in (from_source(ast.parse(source, mode="eval").body), from_hint(hint)):
        assert all(kind.accepts(value) for value in good)
        assert not any(kind.accepts(value) for value in bad)


def test_kinds_in_words() -> None:
    assert str(from_hint(int | None)) == "an int or null"
    assert str(from_hint(Literal["a", "b"])) == "one of a, b"
    assert str(Kind("list", (Kind("float"),))) == "a list, each item a number"


@pytest.fixture
def user_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package of the user's that would fail if it were imported."""
    package = tmp_path / "userpkg_for_check"
    (package / "inner").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')\n")
    (package / "inner" / "__init__.py").write_text("from .parts import Derived as Renamed, helper\n")
    (package / "inner" / "parts.py").write_text(
        "from dataclasses import dataclass, field\n"
        "from ..base import Base\n"
        "class Derived(Base):\n    limit = 3\n"
        "class Empty: pass\n"
        "class Open:\n    def __init__(self, *, a: int, **rest): ...\n"
        "@dataclass(kw_only=True)\nclass Data:\n"
        "    size: int\n    names: list[str] = field(default_factory=list)\n    kept: int = field(init=False)\n"
        "def helper(net, x: int = 1, *, y: 'float', z: str = 's'): ...\n"
        "class Maker:\n    @classmethod\n    def make(cls, *, n: int): ...\n"
        "made = type('Made', (), {})\n"
    )
    (package / "base.py").write_text(
        "class Base:\n    def __init__(self, teacher, *, depth: int, wide: bool = False): ...\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    return package.name


def _error(node: dict[str, Any]) -> str:
    with pytest.raises(UserError) as caught:
        check.check(OmegaConf.create({"part": node}), "no such verb")
    return str(caught.value)


def _passes(node: dict[str, Any]) -> None:
    check.check(OmegaConf.create({"part": node}), "no such verb")


def test_targets_are_read_and_not_imported(user_package: str) -> None:
    renamed = f"{user_package}.inner.Renamed"
    signature = signature_of(renamed)
    assert signature is not None
    assert [(p.name, p.is_option, p.has_default) for p in signature.parameters] == [
        ("teacher", False, False), ("depth", True, False), ("wide", True, True),
    ]  # fmt: skip
    assert user_package not in sys.modules
    _passes({"_target_": renamed, "depth": 2})
    _passes({"_target_": renamed, "_partial_": True})
    assert "part.depth: Base needs it and it is not given" in _error({"_target_": renamed})
    assert "part.depth=x: must be an int (Base.depth)" in _error({"_target_": renamed, "depth": "x"})
    assert "did you mean 'depth'" in _error({"_target_": renamed, "dept": 2})


def test_functions_dataclasses_and_open_signatures(user_package: str) -> None:
    parts = f"{user_package}.inner.parts"
    _passes({"_target_": f"{parts}.helper", "y": 1})
    assert "part.y=no: must be a number (helper.y)" in _error({"_target_": f"{parts}.helper", "y": "no"})
    _passes({"_target_": f"{parts}.Data", "size": 1, "names": ["a"]})
    assert "Data needs it" in _error({"_target_": f"{parts}.Data"})
    assert "has no option 'kept'" in _error({"_target_": f"{parts}.Data", "size": 1, "kept": 1})
    assert "has no option 'x'" in _error({"_target_": f"{parts}.Empty", "x": 1})
    _passes({"_target_": f"{parts}.Open", "a": 1, "anything": 2})
    assert "must be an int" in _error({"_target_": f"{parts}.Maker.make", "n": "x"})
    _passes({"_target_": f"{parts}.made", "whatever": 1})
    _passes({"deep": [{"_target_": f"{parts}.Open", "a": 1}]})
    assert "part.deep[0].a=x" in _error({"deep": [{"_target_": f"{parts}.Open", "a": "x"}]})


def test_targets_that_do_not_exist(user_package: str) -> None:
    assert "there is no module 'nowhere_at_all'" in _error({"_target_": "nowhere_at_all.Thing"})
    assert "did you mean 'Renamed'" in _error({"_target_": f"{user_package}.inner.Renamd"})
    with pytest.raises(NotFound):
        signature_of(f"{user_package}.inner.parts.Missing")


def test_compiled_targets_are_left_alone() -> None:
    _passes({"_target_": "math.sqrt", "x": "y"})
    _passes({"_target_": "torch.optim.AdamW", "lr": 0.1})


@pytest.fixture
def record() -> dict[str, Any]:
    return {
        "verb": "record", "runs": "runs", "seed": 0, "resume": False, "batch_size": 8, "iterations": 10, "log_every": 1,
        "checkpoint": {"every": 5, "keep": 2}, "nodes": 4, "spacing": "steps", "probe_samples": 16,
        "lr": {"fake": 1e-4, "schedule": "constant", "warmup": 0},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("seed", -1, "seed=-1: must be zero or more"),
        ("seed", 1.5, "seed=1.5: must be an int"),
        ("batch_size", 0, "batch_size=0: must be positive"),
        ("spacing", "even", "spacing=even: must be one of distance, arc, steps, geometric"),
        ("checkpoint", 5, "checkpoint=5: is a group of options; set one of checkpoint.every"),
        (
            "checkpoint",
            {"every": 5, "keep": 2, "kep": 1},
            "checkpoint.kep: Checkpoint has no option 'kep'; did you mean 'keep'",
        ),
        ("lr", {"fake": -1.0, "schedule": "constant", "warmup": 0}, "lr.fake=-1.0: must be zero or more"),
        ("resume", 3, "resume=3: must be true or false or a text"),
        ("iterations", "???", "iterations: no value given; type iterations=..."),
    ],
)
def test_root_options(record: dict[str, Any], key: str, value: Any, message: str) -> None:
    check.check(OmegaConf.create(record), "record")
    with pytest.raises(UserError) as caught:
        check.check(OmegaConf.create(record | {key: value}), "record")
    assert message in str(caught.value)


def test_all_absent_options_are_named_at_once(record: dict[str, Any]) -> None:
    del record["batch_size"], record["checkpoint"]
    with pytest.raises(
        UserError, match=r"batch_size, checkpoint.every, checkpoint.keep: no value given; type \+batch_size"
    ):
        check.check(OmegaConf.create(record), "record")
