"""Descriptions of denoisers compared: nested dicts with ``_target_``, from the configuration or from a file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

# key of a denoiser's description that says how it is run, not which function it is
_PRECISION = "network_dtype"


def differences(
    before: Mapping[str, Any], now: Mapping[str, Any], wording: str = "{key} was {before} and is {now}"
) -> list[str]:
    """In what two descriptions are not of the same denoiser, in words; empty if they are.

    The weights alone do not make a denoiser: what a network predicts, and at which noise levels, is in its
    description. The precision of its activations may differ.
    """
    first, second = (_flat(json.loads(json.dumps(spec))) for spec in (before, now))
    return [
        wording.format(key=key, before=first.get(key), now=second.get(key))
        for key in sorted(first.keys() | second.keys())
        if key != _PRECISION and first.get(key) != second.get(key)
    ]


def _flat(node: Any, prefix: str = "") -> dict[str, Any]:
    """A nested description by dotted keys; lists count as values."""
    if not isinstance(node, Mapping):
        return {prefix: node}
    found: dict[str, Any] = {}
    for key, value in node.items():
        found |= _flat(value, f"{prefix}.{key}" if prefix else str(key))
    return found
