"""The check of a composed configuration, before torch is imported: values given, keys known, types right."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationKeyError

from disback_cli.configuration.complaints import did_you_mean
from disback_cli.configuration.contradictions import check_together
from disback_cli.configuration.kinds import from_hint
from disback_cli.configuration.options import VERB_OPTIONS, Bound
from disback_cli.configuration.source import NotFound, Signature, signature_of
from disback_cli.errors import UserError

# keys that Hydra's instantiate() takes for itself
_INSTANTIATE_KEYS = ("_target_", "_partial_", "_recursive_", "_convert_", "_args_")


def check(cfg: DictConfig, verb: str) -> None:
    """Raise a ``UserError`` for the first thing in the configuration of ``verb`` that cannot be right."""
    try:
        root = _resolved(cfg)
    except InterpolationKeyError:
        # A reference leads nowhere where a wrong option that others follow was given: that one is the mistake.
        for name, node in cfg.items():
            if name != "hydra" and OmegaConf.is_config(node):
                _check_targets(_without_references(OmegaConf.to_container(node, resolve=False)), str(name))
        raise
    if verb in VERB_OPTIONS:
        _check_fields(root, VERB_OPTIONS[verb], "")
    _check_targets(root, "")
    check_together(root)


def _resolved(cfg: DictConfig) -> dict[str, Any]:
    """The verb's part of the configuration as plain containers, without a value missing."""
    names = [str(name) for name in cfg if name != "hydra"]
    _nothing_missing(cfg, names)
    root: dict[str, Any] = {}
    for name in names:
        node = cfg[name]
        root[name] = OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
    return root


def _without_references(value: Any) -> Any:
    if isinstance(value, dict):
        kept = {key: item for key, item in value.items() if not (isinstance(item, str) and "${" in item)}
        return {key: _without_references(item) for key, item in kept.items()}
    return value


def _nothing_missing(cfg: DictConfig, names: list[str]) -> None:
    missing = [name for name in names if OmegaConf.is_missing(cfg, name)]
    for name in names:
        node = None if name in missing else cfg[name]
        if OmegaConf.is_config(node):
            missing += sorted(str(key) for key in OmegaConf.missing_keys(node))  # full keys, from the root
    if missing:
        words = " ".join(f"{key}=..." for key in missing)
        raise UserError(f"{', '.join(missing)}: no value given; type {words}")


def _check_fields(node: Mapping[str, Any], fields: type, prefix: str) -> None:
    """Check a node that no constructor takes against the dataclass that declares its keys."""
    hints = typing.get_type_hints(fields, include_extras=True)
    if prefix:  # the root also holds the groups, which the verb's file chooses
        _known(node, hints, prefix, fields.__name__)
    absent = list(_absent(node, fields, prefix))
    if absent:
        raise UserError(f"{', '.join(absent)}: no value given; type {' '.join(f'+{key}=...' for key in absent)}")
    for field in dataclasses.fields(fields):
        if field.name in node:
            _check_field(node[field.name], hints[field.name], f"{prefix}{field.name}")


def _absent(node: Mapping[str, Any], fields: type, prefix: str) -> Iterator[str]:
    """The required keys that a node lacks, the keys of missing inner nodes one by one."""
    hints = typing.get_type_hints(fields)
    for field in dataclasses.fields(fields):
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if field.name in node or not required:
            continue
        if dataclasses.is_dataclass(hints[field.name]):
            yield from _absent({}, hints[field.name], f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}"


def _check_field(value: Any, hint: Any, key: str) -> None:
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if not isinstance(value, Mapping):
            raise UserError(f"{_assignment(key, value)}: is a group of options; set one of {_inner_keys(key, hint)}")
        _check_fields(value, hint, f"{key}.")
        return
    kind = from_hint(hint)
    if not kind.accepts(value):
        raise UserError(f"{_assignment(key, value)}: must be {kind}")
    for bound in _bounds(hint):
        if value is not None and not bound.holds(value):
            raise UserError(f"{_assignment(key, value)}: must be {bound.words}")


def _bounds(hint: Any) -> list[Bound]:
    """The bounds of a hint, also of the members of ``X | None``."""
    own = [bound for bound in getattr(hint, "__metadata__", ()) if isinstance(bound, Bound)]
    return own + [bound for member in typing.get_args(hint) for bound in _bounds(member)]


def _inner_keys(key: str, fields: type) -> str:
    return ", ".join(f"{key}.{field.name}" for field in dataclasses.fields(fields))


def _check_targets(value: Any, key: str) -> None:
    """Check every node with a ``_target_`` in a plain container."""
    if isinstance(value, Mapping):
        if "_target_" in value:
            _check_target(value, key)
        for name, item in value.items():
            _check_targets(item, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _check_targets(item, f"{key}[{index}]")


def _check_target(node: Mapping[str, Any], key: str) -> None:
    target = str(node["_target_"])
    try:
        signature = signature_of(target)
    except NotFound as error:
        raise UserError(f"{key}._target_={target}: {error}{did_you_mean(error.name, error.names)}") from None
    except SyntaxError as error:
        place = f"{error.filename}, line {error.lineno}"
        raise UserError(f"{key}._target_={target}: cannot read {place}: {error.msg}") from None
    if signature is None:
        return
    parameters = {parameter.name: parameter for parameter in signature.parameters}
    given = {name: item for name, item in node.items() if name not in _INSTANTIATE_KEYS}
    if not signature.open:
        _known(given, parameters, f"{key}.", signature.owner)
    for name, item in given.items():
        if name in parameters and not parameters[name].kind.accepts(item):
            where = f"{key}.{name}"
            raise UserError(f"{_assignment(where, item)}: must be {parameters[name].kind} ({signature.owner}.{name})")
    if not node.get("_partial_"):
        _nothing_required_is_absent(signature, given, key)


def _nothing_required_is_absent(signature: Signature, given: Mapping[str, Any], key: str) -> None:
    for parameter in signature.parameters:
        if parameter.is_option and not parameter.has_default and parameter.name not in given:
            where = f"{key}.{parameter.name}"
            raise UserError(f"{where}: {signature.owner} needs it and it is not given; type +{where}=...")


def _known(given: Mapping[str, Any], valid: Mapping[str, Any], prefix: str, owner: str) -> None:
    for name in given:
        if name not in valid:
            near = did_you_mean(str(name), valid)
            own = [key for key, value in valid.items() if getattr(value, "is_option", True)]
            options = ", ".join(own or valid) or "no options"
            raise UserError(f"{prefix}{name}: {owner} has no option '{name}'{near}\n{owner} takes: {options}")


def _assignment(key: str, value: Any) -> str:
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    return f"{key}={text if len(text) <= 60 else text[:57] + '...'}"
