"""Whether the numbers of runs may stand side by side; where they may not, who differs from whom, and in what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from disback_cli.errors import UserError
from disback_cli.evaluation.comparable import differences
from disback_cli.reporting.comparison.runs import RunRecord
from disback_cli.reporting.comparison.variants import flat, text_of

# settings of a measurement that do not change a number both runs have
_NOT_THE_NUMBER = ("metrics.batch_size", "metrics.teacher", "metrics.kid", "metrics.precision_recall")
_NOT_THE_REFERENCE = ("dataset.flip", "dataset.download")
_NAMED = 4


def require_alike(runs: Sequence[RunRecord]) -> list[str]:
    """What there is to say about numbers that may be compared.

    Raises:
        UserError: they were measured with another n, extractor or reference, or belong to different teachers without
            any number in common.
    """
    measured = [run for run in runs if run.numbers]
    _require_same_teacher(runs, measured)
    told = [run for run in measured if run.measured_with is not None]
    silent = [run for run in measured if run.measured_with is None]
    for ours, theirs in combinations(_first_of_each_kind(told), 2):
        a, b = ours.measured_with, theirs.measured_with
        assert a is not None and b is not None
        found = differences(a, b, set(ours.numbers) & set(theirs.numbers))
        if found:
            raise UserError(_refusal(ours, theirs, told, found))
    for run in silent:
        first = (told or silent)[0]
        found = _different_settings(first, run)
        if found:
            raise UserError(
                f"{run.name} does not say how it was measured (it is {run.state}), and its settings are not those of "
                f"{first.name}: {'; '.join(found)}. Leave it out, or compare it with runs of the same metrics.* and "
                "dataset.*"
            )
    return _notes(measured, silent)


def _require_same_teacher(runs: Sequence[RunRecord], measured: Sequence[RunRecord]) -> None:
    teachers = _by_teacher(runs)
    if len(teachers) > 1 and len(measured) < len(runs):
        raise UserError(
            "these runs are of different teachers, and not all of them have numbers to be compared by: "
            f"{_told(teachers)}"
        )


def _by_teacher(runs: Sequence[RunRecord]) -> dict[str, list[RunRecord]]:
    """Runs by their teacher; of one name are those whose weights are not known to differ."""
    hashes: dict[str, set[str]] = {}
    for run in runs:
        name, weights = run.teacher
        hashes.setdefault(name, set()).update({weights} if weights else ())
    found: dict[str, list[RunRecord]] = {}
    for run in runs:
        name, weights = run.teacher
        several = len(hashes[name]) > 1
        found.setdefault(f"{name} ({(weights or 'unknown')[:12]})" if several else name, []).append(run)
    return found


def _told(teachers: Mapping[str, Sequence[RunRecord]]) -> str:
    return "; ".join(f"{teacher}: {_names(runs)}" for teacher, runs in teachers.items())


def _names(runs: Sequence[RunRecord]) -> str:
    more = f" and {len(runs) - _NAMED} more" if len(runs) > _NAMED else ""
    return ", ".join(run.name for run in runs[:_NAMED]) + more


def _first_of_each_kind(runs: Sequence[RunRecord]) -> list[RunRecord]:
    kinds: list[RunRecord] = []
    for run in runs:
        if not any(run.measured_with == kind.measured_with and run.numbers == kind.numbers for kind in kinds):
            kinds.append(run)
    return kinds


def _refusal(ours: RunRecord, theirs: RunRecord, runs: Sequence[RunRecord], found: Sequence[str]) -> str:
    as_ours = [run for run in runs if run.measured_with == ours.measured_with]
    as_theirs = [run for run in runs if run.measured_with == theirs.measured_with]
    teachers = _by_teacher([ours, theirs])
    of_whom = f"\nThey are of different teachers: {' and '.join(teachers)}." if len(teachers) > 1 else ""
    return (
        f"these runs were measured differently, and their numbers do not compare: {'; '.join(found)}\n"
        f"  one way: {_names(as_ours)}\n  another way: {_names(as_theirs)}{of_whom}\n"
        "Compare runs that were measured alike; `disback evaluate student=RUN metrics=...` measures a student again."
    )


def _different_settings(a: RunRecord, b: RunRecord) -> list[str]:
    ours, theirs = (_measurement(run.config) for run in (a, b))
    return [
        f"{key}: {text_of(ours.get(key))} against {text_of(theirs.get(key))}"
        for key in sorted(ours.keys() | theirs.keys())
        if ours.get(key) != theirs.get(key)
    ]


def _measurement(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that decide what a number means; the data set only where no statistics are named."""
    metrics = flat(config.get("metrics", {}), "metrics")
    found = {key: value for key, value in metrics.items() if key not in _NOT_THE_NUMBER}
    if metrics.get("metrics.reference") is None:
        data = flat(config.get("dataset", {}), "dataset")
        found |= {key: value for key, value in data.items() if key not in _NOT_THE_REFERENCE}
    return found


def _notes(measured: Sequence[RunRecord], silent: Sequence[RunRecord]) -> list[str]:
    notes = []
    if silent:
        notes.append(
            f"not finished, or of an earlier version, and so silent about how they were measured: {_names(silent)}; "
            "the settings of their measurements are those of the others"
        )
    teachers = _by_teacher(measured)
    if len(teachers) > 1:
        notes.append(f"runs of different teachers, measured against the same reference: {_told(teachers)}")
    return notes
