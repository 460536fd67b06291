"""Under which licence weights may be used: what their facts say, theirs, their origin's or their teacher's."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

# Of the weights that are part of the package, as its README says.
SHIPPED_LICENCE = "Apache-2.0"
_MOST_LINKS = 8
_LONGEST = 200
# Identifiers that model cards know, and that teachers have.
_IDENTIFIERS = (
    "apache-2.0", "mit", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "openrail",
    "creativeml-openrail-m",
)  # fmt: skip


def licence_of(facts: Mapping[str, Any]) -> str | None:
    """The licence that weights are under.

    A converted teacher has it itself or in its ``origin``, a student in its ``teacher``, which may be a student again:
    weights that derive from others are under their licence.

    Args:
        facts: what a ``config.json`` tells, perhaps a stranger's.

    Returns:
        One line of text, None where nobody says it.
    """
    return _licence_of(facts, _MOST_LINKS)


def _licence_of(facts: Any, links: int) -> str | None:
    if not isinstance(facts, Mapping) or not links:
        return None
    own = facts.get("licence")
    if isinstance(own, str) and own.strip():
        return " ".join(own.split())[:_LONGEST]
    return _licence_of(facts.get("origin"), links - 1) or _licence_of(facts.get("teacher"), links - 1)


def licence_of_folder(folder: Path, facts: Mapping[str, Any]) -> str | None:
    """The licence of a model folder; the package's own weights are under the package's."""
    found = licence_of(facts)
    if found is None and folder.resolve().is_relative_to(Path(str(resources.files("disback_cli"))).resolve()):
        return SHIPPED_LICENCE
    return found


def identifier_of(licence: str | None) -> str | None:
    """The identifier that model cards use (``cc-by-nc-sa-4.0`` for "CC BY-NC-SA 4.0 (NVIDIA)"); None for others."""
    slug = slug_of(re.sub(r"\(.*?\)", "", licence or ""))
    return slug if slug in _IDENTIFIERS else None


def slug_of(licence: str) -> str:
    """A licence's name in small letters, digits, dots and dashes."""
    return re.sub(r"[^a-z0-9.]+", "-", licence.lower()).strip("-")
