"""Words that come from a file which somebody else may have written: only plain choices and values are taken over.

A recorded path and a student are folders that people pass on. A word like ``teacher.x._target_=...`` in one of them
would name any function of any module, and Hydra would call it.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from disback_cli.configuration.arguments import Override, names_a_place
from disback_cli.errors import UserError

TRUST_VARIABLE = "DISBACK_TRUST"

# no +, ~ or @package, and no part like _target_, which Hydra's instantiate() takes for itself
_KEY = re.compile(r"[A-Za-z0-9]\w*(/[A-Za-z0-9]\w*)*(\.[A-Za-z0-9]\w*)*", re.ASCII)
_TARGET_KEY = re.compile(r"[A-Za-z0-9]\w*(\.[A-Za-z0-9]\w*)*\._target_", re.ASCII)
_DOTTED = re.compile(r"[A-Za-z]\w*(\.[A-Za-z]\w*)+", re.ASCII)
_NUMBER = r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?"
_NUMBERS = re.compile(rf"\[\s*({_NUMBER}(\s*,\s*{_NUMBER})*)?\s*\]", re.ASCII)
_NAMES = re.compile(r"\[\s*([\w.*]+(\s*,\s*[\w.*]+)*)?\s*\]", re.ASCII)
_BARE = re.compile(r"[\w\-./:%+?@|* ]*", re.ASCII)
_CHOICE = re.compile(r"\w[\w\-.]*(/\w[\w\-.]*)*", re.ASCII)
_QUOTED = re.compile(r"\"([^\"\\{]|\\[^{])*\"|'([^'\\{]|\\[^{])*'")


def trusted_modules() -> tuple[str, ...]:
    """The modules of the user's own whose classes files may name: those in $DISBACK_TRUST, separated by commas."""
    names = (name.strip().rstrip(".") for name in os.environ.get(TRUST_VARIABLE, "").split(","))
    return tuple(name for name in names if name)


def _names_trusted_class(word: str) -> bool:
    """Whether the word is ``...._target_=module.Class`` with a module that the user trusts."""
    key, _, value = word.partition("=")
    if _TARGET_KEY.fullmatch(key) is None or _DOTTED.fullmatch(value) is None:
        return False
    module = value.rpartition(".")[0]
    return any(f"{module}.".startswith(f"{name}.") for name in trusted_modules())


def require_plain(word: str, file: Path) -> None:
    """Refuse a word of ``file`` that is more than the choice of a group, a value, or a list of numbers or names."""
    if is_plain(word) or _names_trusted_class(word):
        return
    mend = "If you trust it, type it yourself"
    key, _, value = word.partition("=")
    if _TARGET_KEY.fullmatch(key) is not None and "." in value:
        mend += f", or set {TRUST_VARIABLE}={value.rpartition('.')[0]}"
    raise UserError(
        f"{file}: '{word}' is not taken over: it is more than a choice or a value and could run code. {mend}"
    )


def is_plain(word: str) -> bool:
    """Whether the word does nothing but choose an option of a group or set a value."""
    key, equals, value = word.partition("=")
    if not equals or _KEY.fullmatch(key) is None:
        return False
    if _NUMBERS.fullmatch(value) or ("." in key and _NAMES.fullmatch(value)):
        return True
    if _BARE.fullmatch(value) is None and _QUOTED.fullmatch(value) is None:
        return False
    if names_a_place(key):
        return True
    text = Override(word).value or ""
    if "." in key:  # teacher.name is part of the run folder's name
        return not set(text) & {"/", "\\"} and text not in (".", "..")
    return _CHOICE.fullmatch(text) is not None
