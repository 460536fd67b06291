"""The options of each verb that are no constructor's keyword: their names, types and bounds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal


@dataclass(frozen=True)
class Bound:
    """A condition on a value, in words that stand behind "must be"."""

    words: str
    holds: Callable[[Any], bool]


Positive = Bound("positive", lambda value: value > 0)
NotNegative = Bound("zero or more", lambda value: value >= 0)

Count = Annotated[int, Positive]


@dataclass
class Common:
    """Options of every verb."""

    verb: str
    runs: str
    seed: Annotated[int, NotNegative]


@dataclass
class Checkpoint:
    """When a checkpoint is written and how many are kept."""

    every: Count
    keep: Count


@dataclass
class Training(Common):
    """Options of the verbs that train."""

    resume: bool | str
    batch_size: Count
    iterations: Count
    log_every: Count
    checkpoint: Checkpoint


@dataclass
class Pretrain(Training):
    """``disback pretrain``."""


@dataclass
class Record(Training):
    """``disback record``."""

    nodes: Count
    spacing: Literal["distance", "steps", "geometric"]


@dataclass
class Evaluation:
    """Measuring during training; ``every`` counts images."""

    every: Annotated[int, NotNegative]
    at_start: bool


@dataclass
class Backtrack(Training):
    """``disback backtrack``."""

    path: str | None
    share_draw: bool
    evaluate: Evaluation


@dataclass
class StudentSource:
    """The student to look at: the folder of its run."""

    folder: str | None


@dataclass
class Sample(Common):
    """``disback sample``."""

    student: StudentSource
    n: Count
    out: str | None


@dataclass
class Evaluate(Common):
    """``disback evaluate``."""

    student: StudentSource
    n: Count
    out: str | None


VERB_OPTIONS: dict[str, type[Common]] = {
    "pretrain": Pretrain,
    "record": Record,
    "backtrack": Backtrack,
    "sample": Sample,
    "evaluate": Evaluate,
}
