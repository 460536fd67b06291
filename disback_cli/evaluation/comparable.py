"""Which numbers may stand side by side: what an evaluation depends on, in words and in comparison. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping

from disback_cli.errors import UserError

# settings of metrics that not every evaluation has
_OF_SOME_METRICS = ("splits", "kid", "neighbours", "reference_features")
# which samples were drawn is what a comparison is about
_OF_THE_SAMPLES = ("seed", "ranges")


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


def differences(a: Mapping[str, object], b: Mapping[str, object]) -> list[str]:
    """What keeps numbers with provenance a and b from standing in one table; nothing if they may.

    A setting of a metric that only one of them has concerns no number that both have.
    """
    keys = [key for key in sorted(a.keys() | b.keys()) if key not in _OF_SOME_METRICS or (key in a and key in b)]
    return [
        f"{key}: {a.get(key)} against {b.get(key)}"
        for key in keys
        if key not in _OF_THE_SAMPLES and a.get(key) != b.get(key)
    ]


def refuse_mixing(a: Mapping[str, object], b: Mapping[str, object]) -> None:
    """Raise UserError, naming each of the :func:`differences`, unless there are none."""
    found = differences(a, b)
    if found:
        raise UserError("these numbers cannot be compared, they were measured differently: " + "; ".join(found))
