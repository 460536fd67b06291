"""What the study runs, as data: problems, students, objectives, noise laws, schedules, seeds, and which are crossed.

A *cell* is one (problem, student, objective, law); its schedules are compared with each other. Recordings belong to a
problem, a student, the fake score's law and a seed, and are shared by all cells that agree on them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import product

from benchmarks.convergence.jobs import Job

SEEDS = (0, 1, 2)
# Run as well in a cell whose answer is close: after SEEDS, the interval of endpoint/path in updates includes 1.
FURTHER_SEEDS = (3, 4)
# Rates are chosen on a seed that no result is measured on.
TUNING_SEED = 100
# A rate is chosen by these two alike; see tuning.py.
TUNED_WITH = ("endpoint", "path")
Rates = tuple[float, float]


@dataclass(frozen=True)
class Problem:
    """A teacher and how long and how closely its students are watched.

    Attributes:
        name: in folders and tables.
        teacher: words of both verbs.
        record: further words of ``disback record``.
        backtrack: further words of ``disback backtrack``.
        quality: prefix of the number that is compared; smaller is better.
        good: quality below which a student is worth having, the same for all cells of the problem.
        batch_size: samples of an update.
        updates: length of a run.
        tuning_updates: length of a run that chooses rates.
        measured_every: updates between two measurements.
        generator_rates: learning rates of the student that are tried.
        fake_rates: learning rates of the fake score that are tried with each.
    """

    name: str
    teacher: tuple[str, ...]
    record: tuple[str, ...]
    backtrack: tuple[str, ...]
    quality: str
    good: float
    batch_size: int
    updates: int
    tuning_updates: int
    measured_every: int
    generator_rates: tuple[float, ...]
    fake_rates: tuple[float, ...]

    @property
    def rates(self) -> list[Rates]:
        """Every pair of learning rates that is tried, (student, fake score)."""
        return list(product(self.generator_rates, self.fake_rates))


@dataclass(frozen=True)
class Choice:
    """A student, an objective or a schedule: its name in folders and tables, and the words that choose it.

    ``{seed}`` in a word stands for the run's seed. ``recorded`` is False for a schedule that needs no recording.
    """

    name: str
    words: tuple[str, ...] = ()
    recorded: bool = True


@dataclass(frozen=True)
class Law:
    """Noise laws of a run: words for the recording (the fake score's law) and for the backtracking.

    Attributes:
        name: in tables.
        fake: name of the fake score's law, which the recording shares.
        words: words of ``disback backtrack``; what an objective chooses itself is left alone by "usual".
    """

    name: str
    fake: str
    words: tuple[str, ...] = ()


@dataclass(frozen=True)
class Cell:
    """What is held fixed while schedules are compared."""

    problem: Problem
    student: Choice
    objective: Choice
    law: Law

    @property
    def name(self) -> str:
        """Also the folder's."""
        return f"{self.problem.name}-{self.student.name}-{self.objective.name}-{self.law.name}"


@dataclass(frozen=True)
class Block:
    """Cells that are all combinations of their parts, and the schedules compared in them."""

    problem: str
    students: tuple[str, ...]
    objectives: tuple[str, ...]
    laws: tuple[str, ...]
    schedules: tuple[str, ...]

    def cells(self) -> list[Cell]:
        """The block's cells."""
        problem = PROBLEMS[self.problem]
        return [
            Cell(problem, STUDENTS[self.problem, student], OBJECTIVES[objective], LAWS[law])
            for student, objective, law in product(self.students, self.objectives, self.laws)
        ]


_PLANE = {
    "record": ("iterations=60", "checkpoint.every=100000", "trainer.threads=1"),
    "backtrack": (
        "dataset.n=8000",
        "metrics.n=2048",
        "metrics.teacher=false",
        "probe_samples=0",
        "checkpoint.every=100000",
        "trainer.threads=1",
    ),
    "quality": "swd_",
    "batch_size": 256,
    "updates": 300,
    "tuning_updates": 144,
    "measured_every": 12,
    "generator_rates": (5e-4, 1.5e-3, 4.5e-3, 1.35e-2),
    "fake_rates": (3e-3, 1e-2),
}
_RING = Problem("ring", teacher=("teacher=gmm_2d",), good=0.1, **_PLANE)  # type: ignore[arg-type]
_GRID = Problem(
    "grid",
    teacher=(
        "teacher=gmm_2d",
        "teacher.denoiser.layout=grid",
        "teacher.denoiser.modes=16",
        "teacher.denoiser.radius=null",
        "+teacher.denoiser.spacing=0.44",
        "teacher.denoiser.std=0.08",
    ),
    good=0.1,
    **{**_PLANE, "backtrack": ("dataset=gmm_2d_grid", *_PLANE["backtrack"])},  # type: ignore[arg-type, misc]
)
_DIGITS = Problem(
    "digits",
    teacher=("teacher=edm_digits",),
    record=("iterations=60", "batch_size=48", "checkpoint.every=100000", "trainer.threads=1"),
    backtrack=(
        "metrics.n=1024",
        "metrics.teacher=false",
        "probe_samples=0",
        "checkpoint.every=100000",
        "trainer.threads=1",
    ),
    quality="fid_",
    good=5.0,
    batch_size=48,
    updates=300,
    tuning_updates=96,
    measured_every=25,
    generator_rates=(2e-4, 6e-4),
    fake_rates=(5e-4, 1.5e-3),
)
# a student that starts from random weights takes longer, and steps further
_DIGITS_LONG = replace(
    _DIGITS,
    name="digits_long",
    good=50.0,
    updates=1200,
    tuning_updates=300,
    measured_every=100,
    generator_rates=(1.5e-3, 4e-3),
    fake_rates=(1.5e-3, 4e-3),
)
PROBLEMS = {problem.name: problem for problem in (_RING, _GRID, _DIGITS, _DIGITS_LONG)}

_RANDOM = ("student=generator", "student.seed={seed}", "student.network.hidden=64", "student.network.depth=2")
_IN_THE_PLANE = {
    "teacher": Choice("teacher", ("student=one_step",)),
    # a Gaussian about the data, as wide as they are
    "near": Choice("near", (*_RANDOM, "student.network.shift=0.0", "student.network.spread=0.5")),
    # a narrow one several widths of the data away
    "far": Choice("far", (*_RANDOM, "student.network.shift=2.0", "student.network.spread=0.1")),
}
STUDENTS: dict[tuple[str, str], Choice] = {
    **{(problem, name): student for problem in ("ring", "grid") for name, student in _IN_THE_PLANE.items()},
    ("digits", "teacher"): Choice("teacher", ("student=one_step",)),
    # half as wide and half as deep; untrained it draws near-black pictures that are nearly alike
    ("digits_long", "compact"): Choice("compact", ("student=compact", "student.seed={seed}")),
}

_REAL = ("dmd2", "sida", "f_distill", "uni_instruct")  # these look at real data
OBJECTIVES = {name: Choice(name, (f"objective={name}",)) for name in ("diff_instruct", "vsd", "dmd", "sid", *_REAL)}

_NARROW = ("noise/generator=narrow", "noise/fake=narrow")
LAWS = {
    "usual": Law("usual", "lognormal"),
    "narrow": Law("narrow", "narrow", _NARROW),
    "karras": Law("karras", "lognormal", ("noise/generator=karras",)),
}

SCHEDULES = {
    "endpoint": Choice("endpoint", ("schedule=endpoint",), recorded=False),
    "warm_start": Choice("warm_start", ("schedule=warm_start",)),
    "path": Choice("path", ("schedule=path",)),
    "adaptive": Choice("adaptive", ("schedule=adaptive",)),
    "progress": Choice("progress", ("schedule=progress",)),
    "interpolated": Choice("interpolated", ("schedule=interpolated",)),
    "short_path": Choice("short_path", ("schedule=path", "schedule.interval=5")),
    "proportional": Choice("proportional", ("schedule=proportional",)),
    # one path at the start as the others', and one more towards the student it has become
    "rerecord": Choice("rerecord", ("schedule=rerecord", "schedule.at=[60]")),
}
COMPARED = ("endpoint", "warm_start", "path")
FURTHER = ("adaptive", "progress", "interpolated", "short_path", "proportional", "rerecord")

_CORE = ("diff_instruct", "vsd", "dmd", "sid")
_ALL = ("teacher", "near", "far")
# In the order they are run: what matters most comes first, so that a study cut short is still one.
PARTS: dict[str, tuple[Block, ...]] = {
    "ring": (Block("ring", _ALL, _CORE, ("usual", "narrow"), COMPARED),),
    "digits": (Block("digits", ("teacher",), ("diff_instruct", "sid"), ("usual", "narrow"), COMPARED),),
    "compact": (Block("digits_long", ("compact",), ("diff_instruct", "sid"), ("usual",), COMPARED),),
    "grid": (Block("grid", _ALL, _CORE, ("usual", "narrow"), COMPARED),),
    "further": (Block("ring", _ALL, ("diff_instruct",), ("usual", "narrow"), FURTHER),),
    "real": (Block("ring", ("teacher",), _REAL, ("usual",), COMPARED),),
    "karras": tuple(Block(name, _ALL, ("diff_instruct",), ("karras",), COMPARED) for name in ("ring", "grid")),
}


def compared(parts: Iterable[str]) -> dict[Cell, tuple[str, ...]]:
    """The cells of these parts and the schedules each is run with, in the order of the plan."""
    found: dict[Cell, tuple[str, ...]] = {}
    for block in (block for part in parts for block in PARTS[part]):
        for cell in block.cells():
            found[cell] = tuple(dict.fromkeys((*found.get(cell, ()), *block.schedules)))
    return found


def _filled(words: Iterable[str], seed: int) -> tuple[str, ...]:
    return tuple(word.replace("{seed}", str(seed)) for word in words)


def recording(cell: Cell, seed: int) -> Job:
    """The recording that the runs of this cell and seed read."""
    words = (
        "record",
        *cell.problem.teacher,
        *_filled(cell.student.words, seed),
        f"noise/fake={cell.law.fake}",
        f"seed={seed}",
        *cell.problem.record,
    )
    return Job(f"recordings/{cell.problem.name}-{cell.student.name}-{cell.law.fake}/{seed}", words)


def _backtracking(
    name: str, cell: Cell, schedule: Choice, seed: int, rates: Rates, updates: int, measured_every: int
) -> Job:
    problem, recorded = cell.problem, recording(cell, seed)
    words = (
        "backtrack",
        *problem.teacher,
        *_filled(cell.student.words, seed),
        *cell.objective.words,
        *cell.law.words,
        *schedule.words,
        *((f"path={{work}}/{recorded.name}",) if schedule.recorded else ()),
        f"seed={seed}",
        f"batch_size={problem.batch_size}",
        f"iterations={updates}",
        f"evaluate.every={measured_every * problem.batch_size}",
        f"lr.student={rates[0]:g}",
        f"lr.fake={rates[1]:g}",
        *problem.backtrack,
    )
    return Job(name, words, (recorded.name,) if schedule.recorded else ())


def tuning_run(cell: Cell, schedule: str, rates: Rates) -> Job:
    """A short run that helps to choose the cell's rates."""
    problem = cell.problem
    name = f"tuning/{cell.name}/{rates[0]:g}_{rates[1]:g}/{schedule}"
    every = problem.tuning_updates // 6
    return _backtracking(name, cell, SCHEDULES[schedule], TUNING_SEED, rates, problem.tuning_updates, every)


def run(cell: Cell, schedule: str, seed: int, rates: Rates) -> Job:
    """A run whose curve is a result."""
    problem = cell.problem
    name = f"runs/{cell.name}/{schedule}/{seed}"
    return _backtracking(name, cell, SCHEDULES[schedule], seed, rates, problem.updates, problem.measured_every)


def recordings(cells: Iterable[Cell], seeds: Iterable[int] = (TUNING_SEED, *SEEDS)) -> list[Job]:
    """Every recording these cells need, once; that of the tuning seed is one of them unless seeds are given."""
    wanted = tuple(seeds)
    found = {job.name: job for cell in cells for seed in wanted for job in (recording(cell, seed),)}
    return list(found.values())


def runs(cells: Mapping[Cell, Iterable[str]], rates: Mapping[Cell, Rates], seeds: Iterable[int] = SEEDS) -> list[Job]:
    """Every run of these cells with their schedules and rates, seed after seed."""
    return [
        run(cell, schedule, seed, rates[cell])
        for seed in seeds
        for cell, schedules in cells.items()
        for schedule in schedules
    ]


def tuning_runs(cells: Iterable[Cell]) -> list[Job]:
    """Every run that chooses rates."""
    return [
        tuning_run(cell, schedule, rates) for cell in cells for rates in cell.problem.rates for schedule in TUNED_WITH
    ]
