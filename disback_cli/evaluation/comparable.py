"""Which numbers may stand side by side: what an evaluation depends on, in words and in comparison. Imports no torch."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from disback_cli.errors import UserError

# settings of metrics that not every evaluation has
_OF_SOME_METRICS = ("splits", "kid", "neighbours", "reference_features")
# which samples were drawn is what a comparison is about
_OF_THE_SAMPLES = ("seed", "ranges")
# what somebody called the reference
_LABELS = ("reference_dataset", "reference_split")
# the option metrics= of each extractor that comes with the package
_OPTIONS = {"digits-classifier-1": "digits", "points": "points", "inception-2015-12-05": "inception"}
_USUAL_RESIZE = "tf_bilinear"
# of other names larger values are better
_SMALLER_IS_BETTER = ("fid_", "kid_", "swd_")


def smaller_is_better(name: str) -> bool:
    """Whether a metric of this name (``fid_50k``) is a distance; the others grow with quality."""
    return name.startswith(_SMALLER_IS_BETTER)


def is_spread(name: str) -> bool:
    """Whether a number of this name is the spread that belongs to another one."""
    return "_std_" in name


def words_for_features(extractor: object, resize: object, weights: str = "FILE") -> list[str]:
    """What to type for the features of an extractor of this name and resizer; nothing for one that is not known here.

    `weights` stands for the file of the Inception weights.
    """
    option = _OPTIONS.get(str(extractor))
    if option is None:
        return []
    words = [f"metrics={option}"]
    if option == "inception":
        words.append(f"metrics.extractor.weights={weights}")
        words += [] if resize in (None, _USUAL_RESIZE) else [f"metrics.extractor.resize={resize}"]
    return words


def describe_measurement(facts: Mapping[str, object]) -> str:
    """`EvaluationSuite.provenance` in one sentence, to stand under a table of its numbers."""
    weights, data = (str(facts[key] or "unknown")[:12] for key in ("extractor_sha256", "reference_sha256"))
    split = f" {facts['reference_split']}" if facts["reference_split"] else ""
    count = facts["reference_n"] if facts["reference_n"] is not None else "an unknown number of"
    parts = [
        f"n = {facts['n']}",
        f"features {facts['extractor']} ({weights})",
        f"resize {facts['resize']}",
        f"reference {facts['reference_dataset']}{split} ({data}) of {count} samples",
    ]
    if "kid" in facts:
        parts.append(f"KID: {facts['kid']}")
    if "neighbours" in facts:
        parts.append(
            f"precision and recall: {facts['neighbours']} neighbours, {facts['reference_features']} reference samples"
        )
    return "; ".join(parts)


def identity(facts: Mapping[str, object], names: Collection[str] | None = None) -> dict[str, object]:
    """The part of a provenance that must agree for numbers to be compared.

    Names of the reference count only where its hash is unknown, and the splits only for an Inception Score.

    Args:
        facts: the provenance.
        names: of the numbers that are compared; None is any.
    """
    left_out = {*_OF_THE_SAMPLES}
    if facts.get("reference_sha256"):
        left_out.update(_LABELS)
    if names is not None and not any(name.startswith("is_") for name in names):
        left_out.add("splits")
    return {key: value for key, value in facts.items() if key not in left_out}


def differences(a: Mapping[str, object], b: Mapping[str, object], names: Collection[str] | None = None) -> list[str]:
    """What keeps numbers with provenance a and b from standing in one table; nothing if they may.

    A setting of a metric that only one of them has concerns no number that both have; `names`: see :func:`identity`.
    """
    keys = sorted(identity(a, names).keys() | identity(b, names).keys())
    return [
        f"{key}: {a.get(key)} against {b.get(key)}"
        for key in keys
        if a.get(key) != b.get(key) and (key not in _OF_SOME_METRICS or (key in a and key in b))
    ]


def refuse_mixing(a: Mapping[str, object], b: Mapping[str, object]) -> None:
    """Raise UserError, naming each of the :func:`differences`, unless there are none."""
    found = differences(a, b)
    if found:
        raise UserError("these numbers cannot be compared, they were measured differently: " + "; ".join(found))


def require_same_metrics(
    then: Mapping[str, object], names_then: Sequence[str], now: Mapping[str, object], names_now: Sequence[str]
) -> None:
    """Raise UserError unless a run that is resumed measures what it measured before, in the same way.

    Args:
        then: provenance of the numbers in the checkpoint.
        names_then: their names.
        now: provenance of those to come.
        names_now: their names.
    """
    found = differences(then, now)
    if set(names_then) != set(names_now):
        found.append(f"numbers: {', '.join(names_then)} against {', '.join(names_now)}")
    if found:
        raise UserError(
            "the run so far was measured differently, and its numbers cannot be compared with those to come: "
            f"{'; '.join(found)}. Resume with the metrics.* that the run was started with, or with metrics=none"
        )
