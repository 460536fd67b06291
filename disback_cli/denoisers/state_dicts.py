"""Plain state dicts on disk: named tensors and nothing else, read without executing anything."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from disback_cli.denoisers.torch_files import load_tensors
from disback_cli.errors import UserError


def read_state_dict(path: str | Path, key: str | None = None, prefix: str = "") -> dict[str, Tensor]:
    """Read the tensors of a ``.safetensors`` file, or of what ``torch.save`` wrote.

    Args:
        path: the file.
        key: entry of the file that holds the state dict, dotted (``ema.model``); None takes the file itself, or its
            only dict of tensors.
        prefix: what is taken off the names (``net.``); tensors without it are left out.

    Returns:
        Tensors by name.

    Raises:
        UserError: no such file, one that is damaged or needs code to be run, no such entry, or no tensors in it.
    """
    place = Path(path).expanduser()
    if not place.is_file():
        raise UserError(f"no weights at {place}: give a .safetensors file, or a .pt/.ckpt file that torch.save wrote")
    content = _content(place)
    tensors = _tensors(content, key, place)
    found = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    if not found:
        shown = ", ".join(list(tensors)[:5])
        raise UserError(f"{place}: no tensor's name begins with {prefix!r}; they are called {shown}, ...")
    return found


def _content(place: Path) -> Any:
    if place.suffix != ".safetensors":
        return load_tensors(place)
    try:
        return load_file(place)
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{place} is not a safetensors file: {error}") from error


def _tensors(content: Any, key: str | None, place: Path) -> dict[str, Tensor]:
    if key is not None:
        for part in key.split("."):
            if not isinstance(content, Mapping) or part not in content:
                there = ", ".join(map(str, content)) if isinstance(content, Mapping) else type(content).__name__
                raise UserError(f"{place} has no entry {key!r}; it holds {there[:200]}")
            content = content[part]
        if not _is_table(content):
            raise UserError(f"{place}: its entry {key!r} holds no table of tensors")
        return dict(content)
    if _is_table(content):
        return dict(content)
    tables = [name for name, value in content.items() if _is_table(value)] if isinstance(content, Mapping) else []
    if len(tables) == 1:
        return dict(content[tables[0]])
    if tables:
        raise UserError(f"{place} holds several tables of tensors: {', '.join(map(str, tables))}; give teacher.key=ONE")
    raise UserError(f"{place} holds no table of tensors")


def _is_table(value: Any) -> bool:
    return isinstance(value, Mapping) and len(value) > 0 and all(isinstance(item, Tensor) for item in value.values())
