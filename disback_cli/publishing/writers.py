"""The plain formats: our model folder, one safetensors file, a state dict; each is read back after it was written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from disback_cli.denoisers.folder import DECODER_FOLDER, WEIGHTS_FILE, load_model, save_model, weights_hash
from disback_cli.denoisers.kinds import DECODER
from disback_cli.errors import UserError
from disback_cli.files import write_atomically, write_bytes
from disback_cli.publishing.cards import folder_card
from disback_cli.publishing.model import METADATA_KEY, Model
from disback_cli.publishing.precision import DTYPES, differing, in_precision

PICKLE_SUFFIXES = (".pt", ".pth")


def write_folder(model: Model, root: Path, dtype: str | None) -> None:
    """Write our model folder, and the decoder's folder in it.

    Args:
        model: a student or a teacher.
        root: the folder to make.
        dtype: of the weights; None keeps theirs.

    Raises:
        UserError: the weights do not fit in ``dtype`` or did not arrive on the disk.
    """
    weights = in_precision(model.weights, dtype)
    stored = DTYPES[dtype] if dtype else None
    save_model(root, model.spec, weights, model.facts, dtype=stored)
    load_model(root, model.kind_of_network)
    _compare(load_file(root / WEIGHTS_FILE), weights)
    if model.decoder is not None:
        inner = in_precision(model.decoder.weights, dtype)
        save_model(root / DECODER_FOLDER, model.decoder.spec, inner, {"kind": DECODER}, dtype=stored)
        _compare(load_file(root / DECODER_FOLDER / WEIGHTS_FILE), inner)
    write_bytes(root / "README.md", folder_card(model, weights).encode())


def write_safetensors(model: Model, file: Path, dtype: str | None) -> None:
    """Write one file that holds the weights and, in its header, everything else; ``read_model`` reads it.

    Raises:
        UserError: the model has a decoder, which such a file has no place for, or as for ``write_folder``.
    """
    if model.decoder is not None:
        raise UserError(
            f"{model.place} works on latents and needs its decoder, which one file has no place for: use to=folder or "
            "to=diffusers (to=state_dict writes the denoiser's weights alone)"
        )
    model.network()
    weights = in_precision(model.weights, dtype)
    document: dict[str, Any] = {**model.facts, "denoiser": model.spec, "weights_hash": weights_hash(weights)}
    write_bytes(file, save(weights, metadata={"format": "pt", METADATA_KEY: json.dumps(document)}))
    _compare(load_file(file), weights)


def write_state_dict(model: Model, file: Path, dtype: str | None, pickled: bool) -> None:
    """Write the network's weights alone, by name: ``model.*`` for EDM's networks, as in the public files.

    Args:
        model: a student or a teacher.
        file: the file to write.
        dtype: of the weights; None keeps theirs.
        pickled: for ``torch.load`` instead of safetensors.
    """
    model.network()
    weights = in_precision(model.weights, dtype)
    if pickled:
        write_atomically(file, lambda stream: torch.save(weights, stream))
        _compare(torch.load(file, weights_only=True, map_location="cpu"), weights)
    else:
        write_bytes(file, save(weights, metadata={"format": "pt"}))
        _compare(load_file(file), weights)


def _compare(written: Mapping[str, Tensor], meant: Mapping[str, Tensor]) -> None:
    """What is on the disk is what was meant."""
    wrong = differing(written, meant)
    if wrong:
        raise UserError(f"{len(wrong)} tensors changed on their way to the disk, {wrong[0]} first: check the disk")
