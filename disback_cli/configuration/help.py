"""``disback VERB --help``: the composed options with the comments of the files they come from."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from omegaconf import DictConfig, ListConfig, OmegaConf

from disback_cli.configuration import noise_laws, sweep_files
from disback_cli.configuration.arguments import CommandLine

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

_KEY_LINE = re.compile(r"^(?P<indent> *)'?(?P<key>[\w.\-]+)'?:(?P<rest>(?: .*)?)$")
_PACKAGE = re.compile(r"^#\s*@package\s+(\S+)", re.MULTILINE)
# an option that takes over another one: its comments are the other's
_ALIAS = re.compile(r"^ *- /(\S+)@_here_ *$", re.MULTILINE)
_COMMENT_COLUMN = 48


def register_help() -> None:
    """Make ``${verb_help:}`` available: it is the help template of every verb."""
    OmegaConf.register_new_resolver("verb_help", verb_help, replace=True)


def verb_help(*, _root_: DictConfig) -> str:
    """The whole help text of a verb; ``$`` is doubled because Hydra treats the text as a template."""
    verb = _root_.verb
    help_node = _root_.hydra.help
    options = OmegaConf.masked_copy(_root_, [str(key) for key in _root_ if key not in ("hydra", "verb")])
    choices = {str(k): v for k, v in _root_.hydra.runtime.choices.items() if not str(k).startswith("hydra/")}
    sources = _root_.hydra.runtime.config_sources
    sections = [
        f"disback {verb}: {str(help_node.header).strip()}",
        f"usage: disback {verb} [group=option ...] [key=value ...]",
        f"option groups (* in use):\n{_groups_text(choices)}" if choices else "",
        _shorthands_text(str(verb)),
        f"options:\n{_indent(_annotate(OmegaConf.to_yaml(options), _comments(str(verb), choices, sources)))}",
        f"examples:\n{_indent(str(help_node.footer).strip())}" if str(help_node.footer).strip() else "",
        "flags: --cfg job (show the configuration, do not run)   -m (sweep: key=a,b)   --hydra-help\n"
        "       --config-dir DIR (your own option files)   --info searchpath",
    ]
    return "\n\n".join(section for section in sections if section).replace("$", "$$")


def _indent(text: str) -> str:
    return "\n".join(f"  {line}".rstrip() for line in text.splitlines())


def _groups_text(choices: dict[str, Any]) -> str:
    loader = GlobalHydra.instance().config_loader()
    width = max(map(len, choices)) + 2
    lines = []
    for group, chosen in sorted(choices.items()):
        options = loader.get_group_options(group.split("@")[0], ObjectType.CONFIG)
        if not options:
            continue
        marked = [f"*{option}" if option == chosen else option for option in options]
        lines.append(f"  {group:<{width}}{'  '.join(marked)}")
    return "\n".join(lines)


def _shorthands_text(verb: str) -> str:
    """The words that stand for several others, with the names they take; nothing for a verb that has none."""
    line = CommandLine.parse(sys.argv[1:])
    groups = " and ".join(noise_laws.GROUPS.get(verb, ()))
    known = [
        (f"{noise_laws.WORD}=NAME", groups, noise_laws.names(verb, line)),
        (f"-m {sweep_files.WORD}=NAME", "a sweep that is written down", sweep_files.names(verb, line)),
    ]
    lines = [f"  {word:<15}{what}: {'  '.join(names)}" for word, what, names in known if names]
    return "\n".join(["shorthands:", *lines]) if lines else ""


def _comments(verb: str, choices: dict[str, Any], sources: ListConfig) -> dict[str, str]:
    """Comments by dotted key, read from the verb's file and the files of the chosen options."""
    found: dict[str, str] = {}
    for name, package in _source_files(verb, choices):
        text = _source_text(f"{name}.yaml", sources)
        for stands_for in _ALIAS.findall(text):
            for key, comment in _scan_comments(_source_text(f"{stands_for}.yaml", sources)):
                found[f"{package}.{key}"] = comment
        declared = _PACKAGE.search(text)
        if declared:
            package = "" if declared[1] == "_global_" else declared[1]
        for key, comment in _scan_comments(text):
            found[f"{package}.{key}" if package else key] = comment
    return found


def _source_text(name: str, sources: ListConfig) -> str:
    """The text of a config file in the first place of the search path that has it; nothing for one that is no file."""
    for source in sources:
        folder: Traversable
        if source.schema == "pkg":
            package, *inner = str(source.path).split("/")
            folder = files(package).joinpath(*inner)
        elif source.schema == "file":
            folder = Path(source.path)
        else:
            continue
        file = folder.joinpath(*name.split("/"))
        if file.is_file():
            return file.read_text(encoding="utf-8")
    return ""


def _source_files(verb: str, choices: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for group, chosen in choices.items():
        path, _, package = group.partition("@")
        if isinstance(chosen, str):
            yield f"{path}/{chosen}", package or path.replace("/", ".")
    yield "verb_base", ""
    yield verb, ""


def _walk_keys(text: str) -> Iterator[tuple[int, str, str]]:
    """(line number, dotted key, text after the colon) for every mapping key of a YAML text in block style."""
    stack: list[tuple[int, str]] = []
    for number, line in enumerate(text.splitlines()):
        match = _KEY_LINE.match(line)
        if not match:
            continue
        indent = len(match["indent"])
        while stack and stack[-1][0] >= indent:
            stack.pop()
        stack.append((indent, match["key"]))
        yield number, ".".join(key for _, key in stack), match["rest"]


def _scan_comments(text: str) -> Iterator[tuple[str, str]]:
    """(dotted key, comment): the comment at the end of the key's line, else the comment lines right above it."""
    lines = text.splitlines()
    for number, key, rest in _walk_keys(text):
        if " #" in rest:
            yield key, rest.split(" #", 1)[1].strip()
            continue
        block: list[str] = []
        above = number - 1
        while above >= 0 and lines[above].lstrip().startswith("#"):
            block.insert(0, lines[above].lstrip().lstrip("#").strip())
            above -= 1
        block = [line for line in block if not line.startswith("@package")]
        if block:
            yield key, " ".join(block)


def _annotate(text: str, comments: dict[str, str]) -> str:
    """The YAML text with each key's comment behind it."""
    lines = text.splitlines()
    for number, key, _ in _walk_keys(text):
        if key in comments:
            lines[number] = f"{lines[number]:<{_COMMENT_COLUMN}}  # {comments[key]}"
    return "\n".join(lines)
