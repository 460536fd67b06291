"""Signatures read from source files: what a ``_target_`` takes, without importing the module it is in."""

from __future__ import annotations

import ast
import functools
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from disback_cli.configuration.kinds import Kind, from_source

_FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)
_MAX_HOPS = 12  # of a name through imports and base classes


class NotFound(Exception):
    """There is no such module, or nothing of that name in it; ``names`` are those there are."""

    def __init__(self, message: str, name: str = "", names: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.name = name
        self.names = names


@dataclass(frozen=True)
class Parameter:
    """One parameter of a callable. Keyword-only ones are options; others are supplied by the program."""

    name: str
    kind: Kind
    has_default: bool
    is_option: bool


@dataclass(frozen=True)
class Signature:
    """The parameters of a class or function, and whether it takes any other keyword (``**``)."""

    owner: str
    parameters: tuple[Parameter, ...]
    open: bool = False


@dataclass(frozen=True)
class Module:
    """A source file and its dotted name."""

    name: str
    path: Path
    is_package: bool

    @property
    def tree(self) -> ast.Module:
        """The parsed file."""
        return _parse(self.path)


@functools.cache
def _parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


@functools.cache
def signature_of(target: str) -> Signature | None:
    """The signature of the dotted name, or None if it cannot be read from source (compiled, made at run time).

    Raises:
        NotFound: if there is certainly nothing of that name.
    """
    module, names = find_module(target)
    if module is None or not names:
        return None
    found = _resolve(module, names[0], _MAX_HOPS)
    if found is None:
        return None
    where, node = found
    for name in names[1:]:  # a class method, or a class in a class
        inner = [n for n in getattr(node, "body", []) if isinstance(n, (*_FUNCTION, ast.ClassDef)) and n.name == name]
        if not inner:
            return None
        node = inner[0]
    if isinstance(node, ast.ClassDef):
        return _class_signature(where, node, _MAX_HOPS)
    return _function_signature(node, ".".join(names), bound=len(names) > 1) if isinstance(node, _FUNCTION) else None


def find_module(target: str) -> tuple[Module | None, list[str]]:
    """The longest part of a dotted name that is a module, and the names behind it; imports no package on the way."""
    parts = target.split(".")
    try:
        spec = importlib.util.find_spec(parts[0])
    except (ImportError, ValueError):
        spec = None
    if spec is None:
        raise NotFound(f"there is no module '{parts[0]}'")
    places = [Path(place) for place in spec.submodule_search_locations or ()]
    module = None
    if spec.origin and spec.origin.endswith(".py"):
        module = Module(parts[0], Path(spec.origin), bool(places))
    for position, part in enumerate(parts[1:], start=1):
        inner = _inside(places, part, ".".join(parts[: position + 1]))
        if inner is None:
            if module is None and places:
                raise NotFound(f"there is no module '{'.'.join(parts[: position + 1])}'")
            return module, parts[position:]
        module, places = inner
    return module, []


def _inside(places: list[Path], name: str, dotted: str) -> tuple[Module | None, list[Path]] | None:
    """The module or package ``name`` in one of the folders; a package without ``__init__`` has no module."""
    for place in places:
        if (place / name / "__init__.py").is_file():
            return Module(dotted, place / name / "__init__.py", True), [place / name]
        if (place / f"{name}.py").is_file():
            return Module(dotted, place / f"{name}.py", False), []
    folders = [place / name for place in places if (place / name).is_dir()]
    return (None, folders) if folders else None


def _resolve(module: Module, name: str, hops: int) -> tuple[Module, ast.AST] | None:
    """The definition of ``name`` in a module, followed through imports; None where source alone cannot tell."""
    names: list[str] = []
    certain = True
    for node in _statements(module.tree.body):
        if isinstance(node, (*_FUNCTION, ast.ClassDef)):
            if node.name == name:
                return module, node
            names.append(node.name)
            certain = certain and node.name != "__getattr__"
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                certain = certain and alias.name != "*"
                names.append(alias.asname or alias.name)
                if (alias.asname or alias.name) == name:
                    return _follow(module, node, alias.name, hops - 1) if hops else None
        elif name in _bound_names(node):
            return None
    if certain and names:
        raise NotFound(f"module '{module.name}' has no '{name}'", name, tuple(names))
    return None


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements of a module, those under ``if`` and ``try`` included."""
    for node in body:
        yield node
        for block in ("body", "orelse", "finalbody"):
            if isinstance(node, (ast.If, ast.Try)):
                yield from _statements(getattr(node, block, []))


def _bound_names(node: ast.stmt) -> set[str]:
    if isinstance(node, ast.Import):
        return {(alias.asname or alias.name).split(".")[0] for alias in node.names}
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return {leaf.id for target in targets for leaf in ast.walk(target) if isinstance(leaf, ast.Name)}


def _follow(module: Module, node: ast.ImportFrom, name: str, hops: int) -> tuple[Module, ast.AST] | None:
    base = node.module or ""
    if node.level:
        package = module.name.split(".") if module.is_package else module.name.split(".")[:-1]
        package = package[: len(package) - (node.level - 1)]
        base = ".".join([*package, base] if base else package)
    try:
        source, rest = find_module(f"{base}.{name}")
        return _resolve(source, rest[0], hops) if source is not None and len(rest) == 1 else None
    except (NotFound, SyntaxError):
        return None  # what another package imports is its own business


def _function_signature(node: ast.AST, owner: str, bound: bool) -> Signature:
    assert isinstance(node, _FUNCTION)
    arguments = node.args
    static = any(isinstance(d, ast.Name) and d.id == "staticmethod" for d in node.decorator_list)
    positional = [*arguments.posonlyargs, *arguments.args]
    without_default = len(positional) - len(arguments.defaults)
    parameters = [
        Parameter(argument.arg, from_source(argument.annotation), index >= without_default, False)
        for index, argument in enumerate(positional)
    ][1 if bound and not static else 0 :]
    parameters += [
        Parameter(argument.arg, from_source(argument.annotation), default is not None, True)
        for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    ]
    return Signature(owner, tuple(parameters), arguments.kwarg is not None)


def _class_signature(module: Module, node: ast.ClassDef, hops: int) -> Signature | None:
    """From ``__init__``, else the fields of a dataclass, else the first base class that can be read."""
    for item in node.body:
        if isinstance(item, _FUNCTION) and item.name == "__init__":
            return _function_signature(item, node.name, bound=True)
    decorator = _dataclass_decorator(node)
    bases = [base for base in map(lambda base: _base(module, base, hops), node.bases) if base != "object"]
    if decorator is None and not bases:
        return Signature(node.name, ()) if not node.keywords and not node.decorator_list else None
    inherited = bases[0] if bases else Signature(node.name, ())
    if decorator is None or inherited is None or isinstance(inherited, str):
        return inherited if isinstance(inherited, Signature) else None
    fields = {parameter.name: parameter for parameter in inherited.parameters}
    fields |= {parameter.name: parameter for parameter in _dataclass_fields(node, decorator)}
    return Signature(node.name, tuple(fields.values()))


def _base(module: Module, node: ast.expr, hops: int) -> Signature | str | None:
    """The signature a base class gives; ``"object"`` for bases without an ``__init__`` to speak of."""
    name = node.value if isinstance(node, ast.Subscript) else node
    if isinstance(name, ast.Attribute) and name.attr in ("ABC", "Protocol", "Generic"):
        return "object"
    if not isinstance(name, ast.Name) or hops == 0:
        return None
    if name.id in ("ABC", "Protocol", "Generic", "object"):
        return "object"
    try:
        found = _resolve(module, name.id, hops)
    except NotFound:
        return None
    if found is None or not isinstance(found[1], ast.ClassDef):
        return None
    return _class_signature(found[0], found[1], hops - 1)


def _dataclass_decorator(node: ast.ClassDef) -> ast.expr | None:
    for decorator in node.decorator_list:
        called = decorator.func if isinstance(decorator, ast.Call) else decorator
        if (called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")) == "dataclass":
            return decorator
    return None


def _dataclass_fields(node: ast.ClassDef, decorator: ast.expr) -> Iterator[Parameter]:
    """The fields; those after ``KW_ONLY`` or of a ``kw_only=True`` class are options."""
    keyword_only = isinstance(decorator, ast.Call) and _keyword(decorator, "kw_only") is True
    for item in node.body:
        if not isinstance(item, ast.AnnAssign) or not isinstance(item.target, ast.Name):
            continue
        annotation = ast.unparse(item.annotation)
        if annotation.endswith("KW_ONLY"):
            keyword_only = True
            continue
        has_default = item.value is not None
        if isinstance(item.value, ast.Call) and ast.unparse(item.value.func).endswith("field"):
            has_default = any(keyword.arg in ("default", "default_factory") for keyword in item.value.keywords)
            if _keyword(item.value, "init") is False:
                continue
        if "ClassVar" not in annotation:
            yield Parameter(item.target.id, from_source(item.annotation), has_default, keyword_only)


def _keyword(call: ast.Call, name: str) -> object:
    value = next((keyword.value for keyword in call.keywords if keyword.arg == name), None)
    return value.value if isinstance(value, ast.Constant) else None
