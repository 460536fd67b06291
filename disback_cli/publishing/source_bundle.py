"""Code that travels with weights: our own classes, cut out of their modules into one file that needs none of them.

A definition is taken with everything it refers to, as its author wrote it, comments included; imports between our
modules disappear. What remains imports third-party packages only.
"""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

PACKAGE = "disback_cli"
_REMARKS_TO_TOOLS = re.compile(r"  # type: ignore\S*$", flags=re.MULTILINE)

Definition = tuple[str, str]  # module, name
Foreign = tuple[str, str]  # module, what is imported from it ("" for the module itself), each with "as ..." if renamed
Edit = tuple[int, int, int, str]  # line, first and last column in characters, replacement


@dataclass
class _Module:
    """One source file: its statements by the names they define, and where its other names come from.

    Attributes:
        name: dotted.
        lines: of the source.
        definitions: top-level statements by the names they bind.
        ours: names imported from our package, with what they stand for.
        foreign: names imported from elsewhere, likewise.
    """

    name: str
    lines: list[str]
    definitions: dict[str, ast.stmt] = field(default_factory=dict)
    ours: dict[str, Definition] = field(default_factory=dict)
    foreign: dict[str, Foreign] = field(default_factory=dict)


def bundle(roots: Iterable[Definition], header: str) -> str:
    """One self-contained module that defines these names.

    Args:
        roots: (dotted module of ours, name of a class, function or constant).
        header: the docstring of the result.

    Returns:
        Its source.

    Raises:
        ValueError: the code cannot be cut out: it imports a module of ours as a whole, a name cannot be found, or two
            definitions share a name in a way that renaming cannot solve.
    """
    roots = list(roots)
    modules: dict[str, _Module] = {}
    wanted: dict[str, set[str]] = {}
    for module, name in roots:
        _collect((module, name), modules, wanted)
    names = _final_names(wanted, set(roots))
    order = _in_order_of_import(wanted, modules)
    _check_imports(modules, wanted, names)
    imports = {found for module in order for found in _foreign_imports(modules[module], wanted[module]).values()}
    head = f'"""{header.strip()}\n"""\n\nfrom __future__ import annotations\n\n{_import_block(imports)}'
    parts = [head.rstrip()]
    for module in order:
        parts.append(f"# ---- {module.removeprefix(PACKAGE + '.')}")
        parts += _texts(modules[module], wanted[module], names)
    source = "\n\n\n".join(parts) + "\n"
    ast.parse(source)
    return source


def _collect(definition: Definition, modules: dict[str, _Module], wanted: dict[str, set[str]]) -> None:
    """Add a definition and, recursively, what it refers to."""
    module_name, name = definition
    if module_name not in modules:
        modules[module_name] = _read(module_name)
    module = modules[module_name]
    if name in module.ours:
        _collect(module.ours[name], modules, wanted)
        return
    if name not in module.definitions:
        raise ValueError(f"{module_name} does not define {name}")
    taken = wanted.setdefault(module_name, set())
    if name in taken:
        return
    taken.add(name)
    for used in _names_in(module.definitions[name]):
        if used in module.ours or (used in module.definitions and used != name):
            _collect((module_name, used), modules, wanted)


def _read(name: str) -> _Module:
    """Parse a module of ours without importing it."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise ValueError(f"there is no module {name}")
    source = Path(spec.origin).read_text(encoding="utf-8")
    module = _Module(name, source.splitlines())
    tree = ast.parse(source)
    for statement in tree.body:
        if isinstance(statement, (ast.ClassDef, ast.FunctionDef)):
            module.definitions[statement.name] = statement
        elif isinstance(statement, (ast.Assign, ast.AnnAssign)):
            for target in statement.targets if isinstance(statement, ast.Assign) else [statement.target]:
                module.definitions.update({n.id: statement for n in ast.walk(target) if isinstance(n, ast.Name)})
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            _note_import(module, node, at_top=node in tree.body)
    return module


def _note_import(module: _Module, node: ast.Import | ast.ImportFrom, at_top: bool) -> None:
    """Remember what an import statement binds; imports of others inside functions stay where they are."""
    source = node.module if isinstance(node, ast.ImportFrom) else None
    if isinstance(node, ast.ImportFrom) and node.level:
        raise ValueError(f"{module.name}: relative imports are not supported")
    for alias in node.names:
        bound = alias.asname or alias.name.split(".")[0]
        of_ours = (source or alias.name).split(".")[0] == PACKAGE
        if of_ours and source is None:
            raise ValueError(f"{module.name} imports {alias.name} as a whole: import names from it")
        if of_ours:
            module.ours[bound] = (str(source), alias.name)
        elif at_top and source != "__future__":
            renamed = f"{alias.name} as {alias.asname}" if alias.asname else alias.name
            module.foreign[bound] = (source, renamed) if source else (renamed, "")


def _names_in(node: ast.AST) -> set[str]:
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}


def _final_names(wanted: dict[str, set[str]], roots: set[Definition]) -> dict[Definition, str]:
    """Names in the bundle: as they are, with the module's name where two modules use the same one."""
    count = Counter(name for names in wanted.values() for name in names)
    final = {}
    for module, names in wanted.items():
        for name in names:
            alone = count[name] == 1 or (module, name) in roots
            final[module, name] = name if alone else f"_{module.rsplit('.', 1)[-1]}_{name.lstrip('_')}"
    if len(set(final.values())) < len(final):
        raise ValueError(f"names that cannot be told apart: {sorted(n for n, k in count.items() if k > 1)}")
    return final


def _check_imports(modules: dict[str, _Module], wanted: dict[str, set[str]], final: dict[Definition, str]) -> None:
    """Refuse names that mean different things in different modules, and no renaming can help."""
    meanings: dict[str, Foreign] = {}
    for module, names in wanted.items():
        for bound, found in _foreign_imports(modules[module], names).items():
            if meanings.setdefault(bound, found) != found or bound in final.values():
                raise ValueError(f"{bound} means different things in {module} and elsewhere")


def _in_order_of_import(wanted: dict[str, set[str]], modules: dict[str, _Module]) -> list[str]:
    """Modules, each after those it imports from."""
    order: list[str] = []

    def visit(name: str) -> None:
        if name in order or name not in wanted:
            return
        for needed, _ in modules[name].ours.values():
            visit(needed)
        order.append(name)

    for name in wanted:
        visit(name)
    return order


def _statements(module: _Module, names: set[str]) -> list[ast.stmt]:
    """The statements that define these names, in the order of the file."""
    found = {id(s): s for name, s in module.definitions.items() if name in names}
    return sorted(found.values(), key=lambda statement: statement.lineno)


def _import_block(imports: set[Foreign]) -> str:
    """Import statements: the standard library's first, one for each module."""

    def standard(name: str) -> bool:
        return name.split(".")[0].split(" ")[0] in sys.stdlib_module_names

    groups = []
    for wanted in (True, False):
        chosen = sorted(found for found in imports if standard(found[0]) is wanted)
        lines = [f"import {module}" for module, name in chosen if not name]
        sources = sorted({module for module, name in chosen if name})
        lines += [
            f"from {s} import {', '.join(name for module, name in chosen if name and module == s)}" for s in sources
        ]
        groups.append("\n".join(lines))
    return "\n\n".join(group for group in groups if group)


def _foreign_imports(module: _Module, names: set[str]) -> dict[str, Foreign]:
    used = {name for statement in _statements(module, names) for name in _names_in(statement)}
    return {bound: line for bound, line in module.foreign.items() if bound in used}


def _texts(module: _Module, names: set[str], final: dict[Definition, str]) -> Iterator[str]:
    """The statements as they are written, names adjusted; short ones in a row stay together."""
    together: list[str] = []
    for statement in _statements(module, names):
        text = _text(module, statement, final)
        if isinstance(statement, (ast.ClassDef, ast.FunctionDef)):
            if together:
                yield "\n".join(together)
                together = []
            yield text
        else:
            together.append(text)
    if together:
        yield "\n".join(together)


def _text(module: _Module, statement: ast.stmt, final: dict[Definition, str]) -> str:
    """One statement with its decorators, the comment above it, and its edits."""
    decorators = getattr(statement, "decorator_list", [])
    first = min([statement.lineno, *(d.lineno for d in decorators)]) - 1
    assert statement.end_lineno is not None
    lines = list(module.lines)
    for row, start, stop, replacement in sorted(_edits(module, statement, final), reverse=True):
        lines[row] = lines[row][:start] + replacement + lines[row][stop:]
    while first and lines[first - 1].startswith("#"):
        first -= 1
    return _REMARKS_TO_TOOLS.sub("", "\n".join(lines[first : statement.end_lineno]))


def _edits(module: _Module, statement: ast.stmt, final: dict[Definition, str]) -> Iterator[Edit]:
    """Renamed names, and imports of ours inside functions, which become ``pass``."""
    renamed = {
        bound: final[of]
        for bound, of in [*module.ours.items(), *((n, (module.name, n)) for n in module.definitions)]
        if of in final and final[of] != bound
    }
    for node in ast.walk(statement):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == PACKAGE:
            yield from _blanked(module, node)
        elif isinstance(node, ast.Name) and node.id in renamed:
            yield _renaming(module, node.lineno, node.col_offset, node.id, renamed[node.id])
        elif isinstance(node, ast.arg) and node.arg in renamed:
            raise ValueError(f"{module.name}:{node.lineno}: an argument hides the module's {node.arg}")
    if isinstance(statement, (ast.ClassDef, ast.FunctionDef)) and statement.name in renamed:
        column = len("class " if isinstance(statement, ast.ClassDef) else "def ")
        yield _renaming(module, statement.lineno, column, statement.name, renamed[statement.name])


def _renaming(module: _Module, line: int, column: int, old: str, new: str) -> Edit:
    text = module.lines[line - 1]
    # the parser counts bytes
    start = len(text.encode()[:column].decode())
    if text[start : start + len(old)] != old:
        raise ValueError(f"{module.name}:{line}: cannot rename {old} here")
    return (line - 1, start, start + len(old), new)


def _blanked(module: _Module, node: ast.ImportFrom) -> Iterator[Edit]:
    assert node.end_lineno is not None
    for row in range(node.lineno - 1, node.end_lineno):
        start = node.col_offset if row == node.lineno - 1 else 0
        yield (row, start, len(module.lines[row]), "pass" if row == node.lineno - 1 else "")
