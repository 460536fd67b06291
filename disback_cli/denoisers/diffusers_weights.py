"""Weights of a diffusers model folder, whole or in shards, without executing anything."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from disback_cli.denoisers.json_objects import read_json_object
from disback_cli.denoisers.torch_files import load_tensors
from disback_cli.errors import UserError

STEM = "diffusion_pytorch_model"
_SUFFIXES = (".safetensors", ".bin")
# Names of the attention layers before diffusers 0.12, which most of the public DDPM and autoencoder files still have.
_OLD_ATTENTION = re.compile(r"(\battentions\.\d+)\.(query|key|value|proj_attn)\.(weight|bias)$")
_NEW_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def read_object(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        UserError: the file cannot be read, or holds something else.
    """
    return read_json_object(path, "it is no file of diffusers")


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Read the weights of a model folder, under today's names.

    Looked for in this order: ``diffusion_pytorch_model.safetensors``, its shards, the same as ``.bin``, and one variant
    such as ``diffusion_pytorch_model.fp16.safetensors`` where there is nothing else.

    Args:
        folder: the folder that holds the network's config.json.

    Returns:
        Tensors by name, on the CPU, in the dtype of the file.

    Raises:
        UserError: no such file, several variants, a damaged or unsafe file.
    """
    weights: dict[str, Tensor] = {}
    for file in _files(folder):
        for name, tensor in _read_file(file).items():
            if name in weights:
                raise UserError(f"{file}: {name} is also in another shard; copy the folder again")
            weights[name] = tensor
    return {_OLD_ATTENTION.sub(_renamed, name): tensor for name, tensor in weights.items()}


def _renamed(match: re.Match[str]) -> str:
    return f"{match[1]}.{_NEW_ATTENTION[match[2]]}.{match[3]}"


def _files(folder: Path) -> list[Path]:
    """The files that together are the weights."""
    for suffix in _SUFFIXES:
        whole, index = folder / f"{STEM}{suffix}", folder / f"{STEM}{suffix}.index.json"
        if whole.is_file():
            return [whole]
        if index.is_file():
            return _shards(index, suffix)
    variants = sorted(path for path in folder.glob(f"{STEM}.*.safetensors") if "-of-" not in path.name)
    if len(variants) == 1:
        return variants
    if variants:
        names = ", ".join(path.name for path in variants)
        raise UserError(f"{folder} holds several variants of the weights ({names}): rename one to {STEM}.safetensors")
    raise UserError(f"{folder} holds no weights: {STEM}.safetensors (or .bin) belongs there; copy the whole folder")


def _shards(index: Path, suffix: str) -> list[Path]:
    """The files that an index names, which must lie beside it."""
    mapping = read_object(index).get("weight_map")
    if not isinstance(mapping, dict) or not mapping:
        raise UserError(f"{index} has no 'weight_map': copy the file again")
    files = []
    for name in sorted({str(value) for value in mapping.values()}):
        # A name from a file must not lead out of its folder.
        if not re.fullmatch(r"[\w.-]+", name) or name.startswith(".") or not name.endswith(suffix):
            raise UserError(f"{index} names {name!r}: only {suffix} files beside it are read")
        if not (index.parent / name).is_file():
            raise UserError(f"{index.parent} lacks {name}, which {index.name} names: copy the whole folder")
        files.append(index.parent / name)
    return files


def _read_file(path: Path) -> dict[str, Tensor]:
    """One file; a pickle may build tensors and containers only."""
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise UserError(f"{path} is not a whole safetensors file ({error}): copy it again") from error
    found = load_tensors(path, "Get the .safetensors file of this model instead")
    if not isinstance(found, dict) or not all(isinstance(tensor, Tensor) for tensor in found.values()):
        raise UserError(f"{path} holds something else than tensors by name: it is no file of diffusers")
    return {str(name): tensor for name, tensor in found.items()}
