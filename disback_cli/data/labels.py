"""Labels as files hold them: read, checked and counted before anything is built of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from disback_cli.errors import UserError

MAX_CLASSES = 1_000_000
"""More are taken for a mistake: a label is handed on as a one-hot row of that length."""
_MAX_DIGITS = 18  # what fits into an int64


def parse_json(content: bytes, where: str) -> Any:
    """What a JSON file holds; UserError naming ``where`` if it is none, or nested beyond reason."""
    try:
        return json.loads(content)
    except RecursionError as error:
        raise UserError(f"{where}: not valid JSON: nested too deeply; write the file again") from error
    except ValueError as error:
        raise UserError(f"{where}: not valid JSON: {error}") from error


def is_label(value: object) -> bool:
    """Whether a value is an int of 0 or more."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def label_in_text(text: str) -> int | str:
    """The number that a text spells in digits, else the text."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS else text


def shown(value: object) -> str:
    """A value in a message: at most 60 characters; lists are only named, since a deep one cannot be printed."""
    return f"a {type(value).__name__}" if isinstance(value, (list, dict)) else repr(value)[:60]


def check_classes(labels: Sequence[int], num_classes: int | None, source: str) -> int:
    """Number of classes: ``num_classes`` or the largest label plus one.

    Raises:
        UserError: naming ``source``, for labels outside, or more than MAX_CLASSES.
    """
    low, high = min(labels), max(labels)
    if low < 0:
        raise UserError(f"{source}: label {low} of image {labels.index(low)} is negative; classes count from 0")
    if num_classes is not None and high >= num_classes:
        raise UserError(
            f"{source}: label {high} does not fit dataset.num_classes={num_classes}; labels are 0..{num_classes - 1}"
        )
    classes = high + 1 if num_classes is None else num_classes
    if classes > MAX_CLASSES:
        what = f"label {high} of image {labels.index(high)}" if num_classes is None else f"num_classes={num_classes}"
        raise UserError(
            f"{source}: {what} makes more than {MAX_CLASSES:,} classes; number the classes 0, 1, 2, ..., or leave the "
            "labels out"
        )
    return classes
