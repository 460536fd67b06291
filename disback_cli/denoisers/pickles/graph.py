"""The end of a reading: stand-ins become values, and what could hurt whoever walks the result is refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from disback_cli.denoisers.pickles.objects import SCALARS, Handler, Reading, Standin

MAX_DEPTH = 256
MAX_NODES = 5_000_000

_LEAVES = SCALARS | {complex, bytearray, set, frozenset}


def finish(root: Any, reading: Reading) -> Any:
    """Replace every stand-in by its value and check the shape of the whole.

    Afterwards the result may be walked, printed and compared recursively: it has no cycles, is at most ``MAX_DEPTH``
    deep, and has at most ``MAX_NODES`` nodes even if shared parts are counted wherever they occur (a list of two
    references to a list of two references ... grows exponentially when walked).

    Args:
        root: what the machine left.
        reading: the file.

    Returns:
        The value: lists, tuples, dicts, scalars, bytes, and whatever the stand-ins finish as.

    Raises:
        UserError: the result has cycles, is too deep or too large, or a stand-in is no valid value.
    """
    if type(root) in _LEAVES:
        return root
    # The original is kept beside its value: an id says nothing once its object is gone.
    done: dict[int, tuple[Any, Any, int, int]] = {}
    on_path: set[int] = set()
    pending = [root]
    while pending:
        node = pending[-1]
        key = id(node)
        if key in done:
            pending.pop()
            continue
        children = _children(node)
        if key not in on_path:
            on_path.add(key)
            waiting = [child for child in children if type(child) not in _LEAVES and id(child) not in done]
            if any(id(child) in on_path for child in waiting):
                raise reading.error("it contains an object that contains itself")
            if len(on_path) > MAX_DEPTH:
                raise reading.error(f"its objects are nested more than {MAX_DEPTH} deep")
            pending.extend(waiting)
            continue
        inner = [done[id(child)] for child in children if type(child) not in _LEAVES]
        depth = 1 + max((entry[2] for entry in inner), default=0)
        nodes = 1 + len(children) - len(inner) + sum(entry[3] for entry in inner)
        if depth > MAX_DEPTH:
            raise reading.error(f"its objects are nested more than {MAX_DEPTH} deep")
        if nodes > MAX_NODES:
            raise reading.error(f"written out it has more than {MAX_NODES:,} objects: it refers to itself too often")
        values = [child if type(child) in _LEAVES else done[id(child)][1] for child in children]
        done[key] = (node, _value(node, values, reading), depth, nodes)
        on_path.remove(key)
        pending.pop()
    return done[id(root)][1]


def _children(node: Any) -> Sequence[Any]:
    """What a node contains."""
    if isinstance(node, Standin):
        return node.children()
    if isinstance(node, dict):
        return list(node.values())
    return node if isinstance(node, (list, tuple)) else ()


def _value(node: Any, values: list[Any], reading: Reading) -> Any:
    """What a node becomes once its children have become ``values``."""
    if isinstance(node, Standin):
        return node.finished(values)
    if isinstance(node, dict):
        return dict(zip(node, values, strict=True))
    if isinstance(node, list):
        return values
    if isinstance(node, tuple):
        return tuple(values)
    if isinstance(node, memoryview):
        return bytes(node)
    if isinstance(node, Handler):
        raise reading.error(f"it holds the name {node.name} where data should be")
    raise AssertionError(f"the machine does not make {type(node).__name__} objects")
