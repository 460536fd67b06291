"""The options of each verb that are no constructor's keyword: their names, types and bounds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal


@dataclass(frozen=True)
class Bound:
    """A condition on a value, in words that stand behind "must be"."""

    words: str
    holds: Callable[[Any], bool]


Positive = Bound("positive", lambda value: value > 0)
NotNegative = Bound("zero or more", lambda value: value >= 0)

Count = Annotated[int, Positive]
NoneOrMore = Annotated[int, NotNegative]
Rate = Annotated[float, NotNegative]


@dataclass
class Common:
    """Options of every verb."""

    verb: str
    runs: str
    seed: NoneOrMore


@dataclass
class Checkpoint:
    """When a checkpoint is written and how many are kept."""

    every: Count
    keep: Count


@dataclass
class LearningRate:
    """How the learning rates go over the iterations; the rates themselves depend on the verb's networks."""

    schedule: Literal["constant", "cosine"]
    warmup: NoneOrMore


@dataclass
class TeacherRate(LearningRate):
    """The network of ``pretrain``."""

    denoiser: Rate


@dataclass
class FakeRate(LearningRate):
    """The network of ``record``."""

    fake: Rate


@dataclass
class StudentRate(FakeRate):
    """The networks of ``backtrack``."""

    student: Rate
    critic: Rate | None


@dataclass
class Average:
    """The exponential moving average of the weights, in images."""

    halflife: Annotated[float, NotNegative]
    rampup: Annotated[float, NotNegative]


@dataclass
class Evaluation:
    """Measuring during training; ``every`` counts images."""

    every: NoneOrMore
    at_start: bool


@dataclass
class Metrics:
    """What is measured, how, and against what (``metrics=...``); an option file of a user's may leave things out."""

    extractor: Any = None
    n: NoneOrMore = 0
    splits: Count = 1
    batch_size: Count = 256
    teacher: bool = False
    reference: str | None = None
    kid: bool = False
    precision_recall: bool = False


@dataclass
class Training(Common):
    """Options of the verbs that train."""

    resume: bool | str
    batch_size: Count
    iterations: Count
    log_every: Count
    checkpoint: Checkpoint


@dataclass
class Snapshots:
    """Iterations of ``pretrain`` at which the averaged network is kept: those of ``at``, and every so many."""

    at: list[int]
    every: NoneOrMore


@dataclass
class Pretrain(Training):
    """``disback pretrain``."""

    lr: TeacherRate
    ema: Average
    evaluate: Evaluation
    save_as: Literal["fp32", "fp16"]
    snapshots: Snapshots
    metrics: Metrics = field(default_factory=Metrics)


@dataclass
class Record(Training):
    """``disback record``."""

    lr: FakeRate
    nodes: Count
    spacing: Literal["distance", "arc", "steps", "geometric"]
    probe_samples: Count


@dataclass
class Backtrack(Training):
    """``disback backtrack``."""

    lr: StudentRate
    ema: Average
    evaluate: Evaluation
    path: str | None
    pairs: str | None
    share_draw: bool
    fake_updates: Count | None
    fake_samples: Literal["renoised", "fresh"]
    probe_samples: NoneOrMore
    collapse_below: Annotated[float, NotNegative]
    metrics: Metrics = field(default_factory=Metrics)


@dataclass
class Pairs(Common):
    """``disback pairs``."""

    n: Count
    dtype: Literal["fp32", "fp16"]
    shard_size: Count
    batch_size: Count


@dataclass
class RegressionRate(LearningRate):
    """The network of ``regress``."""

    student: Rate


@dataclass
class Regress(Training):
    """``disback regress``."""

    lr: RegressionRate
    ema: Average
    evaluate: Evaluation
    pairs: str | None
    metrics: Metrics = field(default_factory=Metrics)


@dataclass
class StudentSource:
    """The student to look at: the folder of its run."""

    folder: str | None


@dataclass
class Sample(Common):
    """``disback sample``."""

    student: StudentSource
    n: Count
    first: NoneOrMore
    label: NoneOrMore | None
    batch_size: Count
    out: str | None
    png: bool


@dataclass
class Evaluate(Common):
    """``disback evaluate``."""

    student: StudentSource
    images: str | None
    ranges: Count
    metrics: Metrics = field(default_factory=Metrics)


@dataclass
class Stats:
    """``disback stats``."""

    verb: str
    runs: str
    out: str | None
    metrics: Metrics = field(default_factory=Metrics)


@dataclass
class Fetch:
    """``disback fetch``."""

    verb: str
    allow_http: bool
    retries: NoneOrMore
    timeout: Annotated[float, Positive]


@dataclass
class Assemble(Common):
    """``disback assemble``."""

    snapshots: list[str]
    probe_samples: Count


VERB_OPTIONS: dict[str, type] = {
    "pretrain": Pretrain,
    "record": Record,
    "assemble": Assemble,
    "backtrack": Backtrack,
    "pairs": Pairs,
    "regress": Regress,
    "sample": Sample,
    "evaluate": Evaluate,
    "stats": Stats,
    "fetch": Fetch,
}
