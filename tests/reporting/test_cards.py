"""The card of a teacher that `disback pretrain` trained."""

from __future__ import annotations

from typing import Any

import pytest

from disback_cli.reporting.cards import teacher_card

FACTS: dict[str, Any] = {
    "name": "mine", "command": "disback pretrain", "iterations": 10, "batch_size": 4, "cost": {"images": 40},
    "dataset": {"name": "digits", "split": "all", "n": 1797, "sha256": "ab" * 32}, "metrics": {}, "measured_with": None,
}  # fmt: skip


@pytest.mark.parametrize(
    ("licence", "told"),
    [
        ({"licence": "MIT"}, "Licence of the weights: MIT.\n"),
        ({}, "Licence of the weights: for their trainer to choose"),
    ],
)
def test_the_licence_is_not_made_up(licence: dict[str, str], told: str) -> None:
    card = teacher_card(FACTS | licence, 100, "fp32", {"steps": 18})
    assert told in card and "Apache" not in card
