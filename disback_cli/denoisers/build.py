"""Build objects from nested dicts with ``_target_``, without a configuration library.

Two kinds of specification come through here. What a user typed may name anything importable. What lies in a model
folder may come from a stranger, so with ``allow`` it can only name network classes that trusted modules define.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from disback_cli.errors import UserError

TARGET = "_target_"


def build(spec: Any, allow: tuple[str, ...] | None = None) -> Any:
    """Build a specification recursively.

    Args:
        spec: a dict with ``_target_`` (dotted path) and keyword arguments becomes the object that the target returns;
            other dicts and sequences are copied, their entries built; anything else is passed on.
        allow: prefixes of trusted modules, e.g. ``("disback_cli.denoisers.",)``: a target must then be a subclass of
            ``nn.Module`` that is defined in a module below one of them. None allows every importable callable.

    Returns:
        The object.

    Raises:
        UserError: a target is refused, does not exist, or rejects its arguments.
    """
    if isinstance(spec, Mapping):
        arguments = {str(key): build(value, allow) for key, value in spec.items() if key != TARGET}
        if TARGET not in spec:
            return arguments
        reserved = sorted(key for key in arguments if key.startswith("_"))
        if reserved:
            raise UserError(f"{spec[TARGET]}: arguments {', '.join(reserved)} are not supported; remove them")
        return _call(spec[TARGET], arguments, allow)
    if isinstance(spec, Sequence) and not isinstance(spec, (str, bytes)):
        return [build(value, allow) for value in spec]
    return spec


def _call(target: Any, arguments: dict[str, Any], allow: tuple[str, ...] | None) -> Any:
    """Call what ``target`` names with keyword arguments."""
    parts = target.split(".") if isinstance(target, str) else []
    if len(parts) < 2 or not all(part.isidentifier() for part in parts):
        raise UserError(f"_target_={target!r}: need a dotted path such as disback_cli.denoisers.edm.EDMDenoiser")
    if any(part.startswith("__") for part in parts):
        raise UserError(f"_target_={target!r}: names that begin with two underscores are refused")
    function = _find_any(target, parts) if allow is None else _find_trusted(target, parts, allow)
    try:
        return function(**arguments)
    except (TypeError, ValueError) as error:
        raise UserError(f"{target} cannot be built: {error}") from error


def _find_trusted(target: str, parts: list[str], allow: tuple[str, ...]) -> Any:
    """The network class that ``target`` names, if it is defined in a trusted module."""
    module_name, class_name = ".".join(parts[:-1]), parts[-1]
    refusal = (
        f"_target_={target!r} is refused: only network classes under {', '.join(allow)} may be named here; if it is a "
        f"class of your own, set DISBACK_TRUST={module_name}"
    )
    if not any((module_name + ".").startswith(prefix) for prefix in allow):
        raise UserError(refusal)
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise UserError(f"_target_={target!r}: there is no module {module_name}; is this version too old?") from error
    found = getattr(module, class_name, None)
    # Looking only at what the module itself defines keeps its imports (os, importlib, ...) out of reach.
    if not (isinstance(found, type) and issubclass(found, nn.Module) and found.__module__ == module_name):
        raise UserError(refusal)
    return found


def _find_any(target: str, parts: list[str]) -> Any:
    """Import the longest prefix that is a module and look the rest up as attributes."""
    for split in range(len(parts) - 1, 0, -1):
        module_name = ".".join(parts[:split])
        try:
            found: Any = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            # Only a missing part of the path itself may be an attribute; a missing dependency is a real failure.
            if error.name is not None and (module_name + ".").startswith(error.name + "."):
                continue
            raise UserError(f"_target_={target!r}: importing {module_name} failed: {error}") from error
        for part in parts[split:]:
            if not hasattr(found, part):
                raise UserError(f"_target_={target!r}: {module_name} has no {'.'.join(parts[split:])}")
            found = getattr(found, part)
        if not callable(found):
            raise UserError(f"_target_={target!r} is not callable")
        return found
    raise UserError(f"_target_={target!r}: there is no module {parts[0]}; check the spelling, or install it")
