"""What was made with a teacher belongs to it: a path, pairs. The check, and the words when another teacher comes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from disback_cli.denoisers.descriptions import differences
from disback_cli.errors import UserError


def require_same_teacher(
    stated: Mapping[str, Any],
    name: str,
    weights_hash: str,
    spec: Mapping[str, Any] | None,
    *,
    origin: str,
    instead: str,
) -> None:
    """Check that a teacher is the one that a manifest states.

    The weights alone do not make a denoiser: what a network predicts, and at which noise levels, is in its
    description. The precision of its activations may differ.

    Args:
        stated: the manifest's ``teacher``: ``name``, ``hash``, and ``denoiser`` where it was written down.
        name: of this run's teacher.
        weights_hash: of its weights.
        spec: description of its denoiser; None compares the weights only.
        origin: begins the message, before "the teacher NAME".
        instead: what to type if that teacher is not to be had.

    Raises:
        UserError: the weights are others, or the same read as another denoiser.
    """
    theirs = f"{origin} the teacher {stated['name']}"
    if stated["hash"] != weights_hash:
        mend = f"Give teacher={stated['name']}"
        if name == stated["name"]:
            mend = "They differ in a teacher.* option or in the weights: leave teacher.* options out"
        raise UserError(
            f"{theirs} (weights {stated['hash'][:12]}), but this run's teacher is {name} (weights "
            f"{weights_hash[:12]}). {mend}, {instead}."
        )
    described = stated.get("denoiser")
    changed = differences(described, spec) if spec is not None and described is not None else []
    if changed:
        raise UserError(
            f"{theirs} with the same weights, but as another denoiser: {'; '.join(changed[:4])}. Leave teacher.* "
            f"options as they were, {instead}."
        )
