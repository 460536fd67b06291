"""JSON objects that describe networks, which may come from a stranger."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from disback_cli.errors import UserError

# Descriptions of networks are about five deep. Whoever walks one recursively need not look out below this.
MAX_DEPTH = 50


def read_json_object(path: Path, otherwise: str) -> dict[str, Any]:
    """Read a file that holds a JSON object.

    Args:
        path: the file.
        otherwise: what to conclude if it holds another JSON value, for the message.

    Raises:
        UserError: the file cannot be read, or holds something else.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON ({error}): copy or write the file again") from error
    return parse_json_object(text, str(path), otherwise)


def parse_json_object(text: str, where: str, otherwise: str) -> dict[str, Any]:
    """The same for a text at hand; ``where`` says in messages what it is.

    Raises:
        UserError: the text is no JSON object, or is nested more than ``MAX_DEPTH`` deep.
    """
    try:
        document = json.loads(text)
    except RecursionError as error:
        raise UserError(f"{where} is nested too deeply: copy or write the file again") from error
    except ValueError as error:
        raise UserError(f"{where} is not valid JSON ({error}): copy or write the file again") from error
    if not isinstance(document, dict):
        raise UserError(f"{where} holds a JSON {type(document).__name__}, not an object: {otherwise}")
    if not _is_flat_enough(document):
        raise UserError(f"{where} is nested more than {MAX_DEPTH} deep: copy or write the file again")
    return document


def _is_flat_enough(document: Any) -> bool:
    level = [document]
    for _ in range(MAX_DEPTH + 1):
        level = [
            item
            for node in level
            if isinstance(node, (dict, list))
            for item in (node.values() if isinstance(node, dict) else node)
            if isinstance(item, (dict, list))
        ]
    return not level
