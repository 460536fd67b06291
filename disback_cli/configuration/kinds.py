"""Types of options, read from annotations in source (``ast``) or from type hints, and the test of a value."""

from __future__ import annotations

import ast
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_SEQUENCES = ("list", "tuple", "Sequence", "Iterable", "Collection")
_MAPPINGS = ("dict", "Mapping", "MutableMapping")
_PYTHON_TYPES: dict[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "str": (str,)}
_ARTICLES = {"int": "an int", "float": "a number", "bool": "true or false", "str": "a text", "None": "null"}


@dataclass(frozen=True)
class Kind:
    """A type an option can have.

    ``name`` is one of int, float, bool, str, None, union, list, tuple, literal, dict, any.
    """

    name: str
    inner: tuple[Kind, ...] = ()
    values: tuple[Any, ...] = ()

    def accepts(self, value: Any) -> bool:
        """Whether a plain value from the configuration is of this type."""
        if self.name == "any":
            return True
        if self.name == "union":
            return any(kind.accepts(value) for kind in self.inner)
        if self.name == "None":
            return value is None
        if self.name == "literal":
            return any(type(value) is type(allowed) and value == allowed for allowed in self.values)
        if self.name == "dict":
            return isinstance(value, Mapping)
        if self.name == "list":
            return isinstance(value, (list, tuple)) and all(self.inner[0].accepts(item) for item in value)
        if self.name == "tuple":
            return isinstance(value, (list, tuple)) and len(value) == len(self.inner) and self._items_fit(value)
        if self.name == "bool" or isinstance(value, bool):
            return self.name == "bool" and isinstance(value, bool)
        return isinstance(value, _PYTHON_TYPES[self.name])

    def _items_fit(self, value: list[Any] | tuple[Any, ...]) -> bool:
        return all(kind.accepts(item) for kind, item in zip(self.inner, value, strict=True))

    def __str__(self) -> str:
        """The type in words, to stand behind "must be"."""
        if self.name == "union":
            return " or ".join(str(kind) for kind in self.inner)
        if self.name == "literal":
            return "one of " + ", ".join(str(value) for value in self.values)
        if self.name == "list":
            return "a list" if self.inner[0].name == "any" else f"a list, each item {self.inner[0]}"
        if self.name == "tuple":
            return f"a list of {len(self.inner)}: " + ", ".join(str(kind) for kind in self.inner)
        return _ARTICLES.get(self.name, "a mapping" if self.name == "dict" else "anything")


ANY = Kind("any")


def union(kinds: tuple[Kind, ...]) -> Kind:
    """One of several types; a type that is not checked makes the whole union unchecked."""
    return ANY if ANY in kinds else Kind("union", kinds)


def from_source(node: ast.expr | None) -> Kind:
    """The type an annotation in source code means; what is not a plain type is not checked."""
    if node is None:
        return ANY
    if isinstance(node, ast.Constant):
        if node.value is None:
            return Kind("None")
        if isinstance(node.value, str):  # an annotation in quotes
            try:
                return from_source(ast.parse(node.value, mode="eval").body)
            except SyntaxError:
                return ANY
        return ANY
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return union((from_source(node.left), from_source(node.right)))
    if isinstance(node, ast.Subscript):
        items = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        return _subscripted(_last_name(node.value), list(items))
    return _plain(_last_name(node))


def _last_name(node: ast.expr) -> str:
    """``Optional`` of both ``Optional`` and ``typing.Optional``."""
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _plain(name: str) -> Kind:
    if name in ("int", "float", "bool", "str", "None"):
        return Kind(name)
    if name in (*_SEQUENCES, "List", "Tuple"):
        return Kind("list", (ANY,))
    return Kind("dict") if name in (*_MAPPINGS, "Dict") else ANY


def _subscripted(name: str, items: list[ast.expr]) -> Kind:
    if name == "Annotated":
        return from_source(items[0])
    if name == "Optional":
        return union((from_source(items[0]), Kind("None")))
    if name == "Union":
        return union(tuple(from_source(item) for item in items))
    if name == "Literal":
        values = [_literal(item) for item in items]
        return Kind("literal", values=tuple(values)) if all(value is not ... for value in values) else ANY
    if name in ("tuple", "Tuple"):
        if len(items) == 2 and isinstance(items[1], ast.Constant) and items[1].value is ...:
            return Kind("list", (from_source(items[0]),))
        return Kind("tuple", tuple(from_source(item) for item in items))
    if name in (*_SEQUENCES, "List"):
        return Kind("list", (from_source(items[0]),))
    return Kind("dict") if name in (*_MAPPINGS, "Dict") else ANY


def _literal(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except ValueError:
        return ...


def from_hint(hint: Any) -> Kind:
    """The type a resolved type hint means."""
    if hint in (int, float, bool, str):
        return Kind(hint.__name__)
    if hint is None or hint is type(None):
        return Kind("None")
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return from_hint(arguments[0])
    if origin in (typing.Union, types.UnionType):
        return union(tuple(from_hint(argument) for argument in arguments))
    if origin is typing.Literal:
        return Kind("literal", values=arguments)
    name = getattr(origin or hint, "__name__", "")
    if name == "tuple" and arguments and arguments[-1] is not ...:
        return Kind("tuple", tuple(from_hint(argument) for argument in arguments))
    if name in _SEQUENCES:
        return Kind("list", (from_hint(arguments[0]) if arguments else ANY,))
    return Kind("dict") if name in _MAPPINGS else ANY
