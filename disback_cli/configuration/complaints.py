"""Hydra's and OmegaConf's exceptions in words that say what to type instead."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import SequenceMatcher, get_close_matches
from typing import Any

from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig
from omegaconf.errors import OmegaConfBaseException

from disback_cli.configuration.arguments import CommandLine, Override

# options that a package brings, and how to get it
_PLUGINS = {"hydra/sweeper": {"optuna": "pip install 'disback-cli[optuna]'"}}
_SURE = 0.85  # similarity above which one suggestion is enough
_COULD_NOT = re.compile(r"Could not (?:override|delete|append to config\. An item is already at) ?'([^']+)'")


def nearest(word: str, valid: Iterable[str], count: int = 3) -> list[str]:
    """The valid keys a person may have meant: same last part, or similar spelling of the whole or of the last part."""
    valid = [key for key in dict.fromkeys(valid) if not word.startswith(f"{key}.")]
    last = word.rsplit(".", 1)[-1]
    same_end = [key for key in valid if key.rsplit(".", 1)[-1] == last and key != word]
    similar = get_close_matches(word, valid, n=count, cutoff=0.6)
    by_end: dict[str, list[str]] = {}
    for key in valid:
        by_end.setdefault(key.rsplit(".", 1)[-1], []).append(key)
    similar_end = [key for end in get_close_matches(last, by_end, n=count, cutoff=0.75) for key in by_end[end]]
    exact_first = sorted(same_end, key=len) if "." not in word else []
    ordered = dict.fromkeys([*exact_first, *similar, *sorted(same_end, key=len), *sorted(similar_end, key=len)])
    best = list(ordered)[:count]
    if best and SequenceMatcher(None, word, best[0]).ratio() > _SURE:
        return best[:1]
    return best


def did_you_mean(word: str, valid: Iterable[str]) -> str:
    """``; did you mean 'a' or 'b'?`` or nothing."""
    near = nearest(word, valid)
    return f"; did you mean {' or '.join(repr(key) for key in near)}?" if near else ""


def explain(error: Exception, verb: str, line: CommandLine) -> str:
    """The message for a configuration error of ``verb`` called with ``line``."""
    if isinstance(error, OverrideParseException):
        return _explain_syntax(error)
    if isinstance(error, MissingConfigException):
        return _explain_missing(error, verb, line)
    match = _COULD_NOT.search(str(error))
    if match:
        key = match.group(1).split("@", 1)[0]
        return _explain_key(key, str(error), verb, line)
    return _explain_other(error)


def _explain_syntax(error: OverrideParseException) -> str:
    reason = str(error.message).split("\nSee ")[0].strip().replace("\n", "; ")
    return (
        f"cannot read '{error.override}': {reason}\n"
        "overrides are key=value; a value with = , [ { ( or spaces needs quotes inside quotes: 'key=\"a=b\"'"
    )


def _explain_missing(error: MissingConfigException, verb: str, line: CommandLine) -> str:
    missing = error.missing_cfg_file or ""
    if not error.options or "/" not in missing:
        return _explain_other(error)
    group, option = missing.rsplit("/", 1)
    options = sorted(error.options)
    if option in _PLUGINS.get(group, {}):
        what = "is a plugin of Hydra's that is not installed"
        return f"{group}={option} {what}. Install it with `{_PLUGINS[group][option]}`"
    return f"there is no {group} '{option}'{did_you_mean(option, options)}\n{group} can be: {', '.join(options)}"


def _explain_key(key: str, message: str, verb: str, line: CommandLine) -> str:
    if "An item is already" in message:
        return f"'{key}' exists already: write {key}=..., without the +"
    keys, groups, with_hydra = valid_keys(verb, line.without(key))
    if key.startswith("hydra."):
        keys = with_hydra
    if key in keys or key in groups:
        return message.split("\nTo append")[0].strip()
    return (
        f"there is no option '{key}'{did_you_mean(key, [*keys, *groups])}\n"
        f"{_siblings(key, keys)}all options: disback {verb} --help; to add a key that no option has: +{key}=..."
    )


def _siblings(key: str, keys: list[str]) -> str:
    """A line with the keys of the node the mistyped key would be in, if there is such a node."""
    parent = key.rpartition(".")[0]
    inner = [name for name in keys if name.rpartition(".")[0] == parent and not name.endswith("._target_")]
    return f"{parent} has: {', '.join(inner)}\n" if parent and inner else ""


def _explain_other(error: BaseException) -> str:
    """First lines of the exception and its causes, with the key OmegaConf was at."""
    parts: list[str] = []
    current: BaseException | None = error
    while isinstance(current, (HydraException, OmegaConfBaseException)):
        text = str(getattr(current, "msg", None) or current).strip()
        text = re.split(r"\n\s*(?:full_key|object_type|reference_type|Config search path)", text)[0].strip()
        if text and text not in parts:
            parts.append(text)
        full_key = getattr(current, "full_key", None)
        if full_key:
            parts.append(f"at '{full_key}'")
        current = current.__cause__
    return "\n".join(dict.fromkeys(parts)) or repr(error)


def valid_keys(verb: str, line: CommandLine) -> tuple[list[str], list[str], list[str]]:
    """All dotted keys of the composed configuration of ``verb``, its groups, and the keys with Hydra's own among them.

    The user's other overrides are kept if the configuration composes with them: the keys depend on the groups.
    """
    singles = [override.word for override in line.overrides if not override.several]
    for overrides in (singles, [word for word in singles if "." not in Override(word).key], []):
        try:
            cfg = _compose(verb, overrides, line.flags)
        except (HydraException, OmegaConfBaseException):
            continue
        choices = cfg.hydra.runtime.choices
        groups = [str(name) for name in choices if not str(name).startswith("hydra/")]
        keys = _flatten(cfg)
        return [key for key in keys if not re.match(r"hydra(\.|$)", key)], groups, keys
    return [], [], []


def _compose(verb: str, overrides: list[str], flags: tuple[str, ...]) -> DictConfig:
    search_path = create_config_search_path("pkg://disback_cli.conf")
    folder = _config_dir(flags)
    if folder:
        search_path.prepend(provider="command-line", path=f"file://{folder}", anchor=SearchPathQuery(provider="schema"))
    GlobalHydra.instance().clear()
    try:
        composer = Hydra.create_main_hydra2(task_name=verb, config_search_path=search_path)
        return composer.compose_config(verb, overrides, RunMode.RUN, with_log_configuration=False)
    finally:
        GlobalHydra.instance().clear()


def _config_dir(flags: tuple[str, ...]) -> str | None:
    from os.path import abspath

    for position, flag in enumerate(flags):
        name, _, value = flag.partition("=")
        if name in ("--config-dir", "-cd"):
            given = value or (flags[position + 1] if position + 1 < len(flags) else "")
            return abspath(given) if given else None
    return None


def _flatten(node: Any, prefix: str = "") -> list[str]:
    """Dotted keys of a configuration, inner nodes included, without resolving anything."""
    if not isinstance(node, DictConfig) or node._is_none() or node._is_missing() or node._is_interpolation():
        return []
    keys: list[str] = []
    for name in map(str, node):
        key = f"{prefix}{name}"
        keys.append(key)
        child = node._get_node(name)
        if isinstance(child, (DictConfig, ListConfig)):
            keys += _flatten(child, f"{key}.")
    return keys
