"""From a path to a network: looks at a file or folder, says what it is, and reads it without executing anything."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from disback_cli.denoisers.kinds import is_generator
from disback_cli.denoisers.licences import licence_of, licence_of_folder
from disback_cli.denoisers.sniff import content_of, is_nvidia, not_a_model
from disback_cli.errors import UserError
from disback_cli.files import sha256_of

if TYPE_CHECKING:
    from torch import Tensor, nn

    from disback_cli.denoisers.protocol import Denoiser
    from disback_cli.denoisers.source import NetworkSource

SUPPORTED = (
    "supported are: NVIDIA's .pkl of EDM and EDM2 (and of SiD and Diff-Instruct), folders of diffusers with a "
    "UNet2DModel or DiTTransformer2DModel, and model folders and runs of this program"
)
_MODEL_FILES = ("config.json", "model.safetensors")
_DIFFUSERS_WEIGHTS = "diffusion_pytorch_model"

Format = Literal["nvidia", "diffusers", "model-folder"]


@dataclass(frozen=True)
class Place:
    """Where a network is: a file or folder that exists, and in which format it is."""

    path: Path
    format: Format


def find_network(path: str | os.PathLike[str]) -> Place | None:
    """The network at a path, or in the run folder there (``student/``, ``teacher/``); None if nothing says it is one.

    Args:
        path: a file or folder; ``~`` and ``pkg://disback_cli/...`` are understood.

    Raises:
        UserError: there is nothing at the path, or it cannot be read.
    """
    from disback_cli.denoisers.folder import resolve_folder

    place = resolve_folder(path)
    if not place.exists():
        raise UserError(f"there is nothing at {place}: check the path")
    if place.is_file():
        content = content_of(place)
        return Place(place, "nvidia") if content == "pickle" or is_nvidia(place, content) else None
    for candidate in (place, place / "student", place / "teacher"):
        if all((candidate / name).is_file() for name in _MODEL_FILES) and _is_ours(candidate / "config.json"):
            return Place(candidate, "model-folder")
    from disback_cli.denoisers.diffusers_folder import is_diffusers

    return Place(place, "diffusers") if is_diffusers(place) else None


def _is_ours(config: Path) -> bool:
    """Whether a ``config.json`` is this program's; diffusers and transformers use the same name."""
    from disback_cli.configuration.runfolder import read_json

    document = read_json(config)
    return not isinstance(document, dict) or "_class_name" not in document


def open_source(
    path: str | os.PathLike[str], *, prediction: str | None = None, scheduler: Path | None = None
) -> NetworkSource:
    """Read the network at a path, whatever its format; nothing is built yet.

    Args:
        path: NVIDIA's pickle, a diffusers folder, a model folder, or a run that holds one.
        prediction: what a diffusers network predicts, where its scheduler's configuration does not say it.
        scheduler: a ``scheduler_config.json`` for a diffusers network instead of its own.

    Raises:
        UserError: there is no network, saying what was found instead; or it is damaged or not supported.
    """
    found = find_network(path)
    if found is None:
        raise UserError(what_instead(Path(path).expanduser()))
    if found.format == "diffusers":
        from disback_cli.denoisers.diffusers_folder import read_diffusers

        return read_diffusers(found.path, prediction=prediction, scheduler=scheduler)
    if prediction is not None or scheduler is not None:
        raise UserError(f"{found.path} is no diffusers folder: leave prediction and scheduler out")
    if found.format == "nvidia":
        from disback_cli.denoisers.pickles.nvidia import read_nvidia

        return read_nvidia(found.path)
    return _read_model_folder(found.path)


def _read_model_folder(folder: Path) -> NetworkSource:
    from disback_cli.denoisers.folder import DECODER_FOLDER
    from disback_cli.denoisers.source import DecoderSource, NetworkSource

    document, weights = _verified(folder)
    decoder: DecoderSource | None = None
    if (folder / DECODER_FOLDER).is_dir():
        decoder_document, decoder_weights = _verified(folder / DECODER_FOLDER)
        decoder = DecoderSource(decoder_document["denoiser"], decoder_weights)
    spec = document["denoiser"]
    if not isinstance(spec, dict):
        raise UserError(f"{folder}: the 'denoiser' of its config.json is no description of a network")
    inner = spec.get("network")
    licence = licence_of_folder(folder, document)
    if licence is not None and licence_of(document) is None:
        document["licence"] = licence
    facts: dict[str, Any] = {
        "network": words_of_network(spec),
        "arguments": {
            k: v
            for k, v in (inner if isinstance(inner, dict) else spec).items()
            if k != "_target_" and not isinstance(v, Mapping)
        },
        "licence": licence,
        "notes": [],
        "document": {key: value for key, value in document.items() if key != "denoiser"},
    }
    return NetworkSource("model-folder", spec, weights, facts, decoder)


def words_of_network(spec: Mapping[str, Any]) -> str:
    """The classes that a description names, e.g. ``EDMDenoiser around SongUNet``."""
    return " around ".join(_class_name(node) for node in (spec, spec.get("network")) if isinstance(node, Mapping))


def _class_name(node: Mapping[str, Any]) -> str:
    return str(node.get("_target_", "?")).rsplit(".", 1)[-1]


def _verified(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Config and weights of a model folder whose bytes are those it was written with."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from disback_cli.denoisers.folder import CONFIG_FILE, WEIGHTS_FILE, load_config

    document = load_config(folder)
    file = folder / WEIGHTS_FILE
    if not file.is_file():
        raise UserError(f"{folder} has no {WEIGHTS_FILE}: copy the whole folder, or write the model again")
    if sha256_of(file) != document["sha256"]:
        raise UserError(f"{file} does not match the sha256 in {CONFIG_FILE}: damaged or replaced; copy it again")
    try:
        return document, load_file(file)
    except SafetensorError as error:
        raise UserError(f"{file} is not a safetensors file ({error}): write the model again") from error


def built_without_memory(source: NetworkSource) -> Denoiser:
    """Build the network without storage for its weights, and compare names and shapes with the file's, strictly.

    Returns:
        The denoiser, its parameters on the meta device: good for counting and asking, not for computing.

    Raises:
        UserError: the description is refused, or the weights do not fit it.
    """
    from disback_cli.denoisers.protocol import Denoiser

    denoiser = network_without_memory(source)
    if not isinstance(denoiser, Denoiser):
        raise UserError(f"the description builds a {type(denoiser).__name__}, not a denoiser")
    return denoiser


def network_without_memory(source: NetworkSource) -> nn.Module:
    """The same for a network that need not be a denoiser: a student may be any generator.

    Raises:
        UserError: as :func:`built_without_memory`.
    """
    from torch import nn

    network = _built(source.spec, source.weights, "the network")
    if not isinstance(network, nn.Module):
        raise UserError(f"the description builds a {type(network).__name__}, not a network")
    if source.decoder is not None:
        _built(source.decoder.spec, source.decoder.weights, "the decoder")
    return network


def usable_without_memory(source: NetworkSource) -> nn.Module:
    """The network of a folder, which is a denoiser unless the folder says that it is a student of another kind.

    Raises:
        UserError: as :func:`built_without_memory`.
    """
    plain = is_generator(source.facts.get("document"))
    return network_without_memory(source) if plain else built_without_memory(source)


def _built(spec: Mapping[str, Any], weights: Mapping[str, Tensor], what: str) -> Any:
    import torch

    from disback_cli.denoisers.allocation import bounded_by
    from disback_cli.denoisers.folder import build, load_strictly, trusted_prefixes

    with torch.random.fork_rng(devices=[]), bounded_by(weights, what):
        try:
            with torch.device("meta"):
                network = build(spec, allow=trusted_prefixes())
        except (RuntimeError, NotImplementedError, UserError):
            # a constructor that looks at numbers it has computed: they exist on a real device only
            network = build(spec, allow=trusted_prefixes())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns that numbers are not copied where there is no memory for them
        load_strictly(network, weights, what)
    return network


def what_instead(place: Path) -> str:
    """The message for a path without a network that can be read: what is there, and what to give instead."""
    if place.is_dir():
        names = sorted(entry.name + "/" * entry.is_dir() for entry in place.iterdir())
        found = f"it holds {', '.join(names[:8])}{', ...' if len(names) > 8 else ''}" if names else "it is empty"
        return f"{place} is no folder with a network: {found}\n{SUPPORTED}"
    content = content_of(place)
    hopeless = not_a_model(place, content)
    if hopeless is not None:
        return hopeless
    if content in ("safetensors", "torch-archive", "torch-legacy"):
        return _weights_alone(place)
    known = "its content is of no format known here" if content == "unknown" else f"content: {content}"
    return f"{place} holds no network ({known})\n{SUPPORTED}"


def _weights_alone(file: Path) -> str:
    """A state dict says what the weights are called, not what network they belong to."""
    from disback_cli.configuration.arguments import shown
    from disback_cli.denoisers.tensor_files import guess_network, largest_prefixes, read_tensor_file

    if find_network(file.parent) is not None:
        return f"{file} holds the weights of the network in {file.parent}: give the folder"
    if file.name.startswith(_DIFFUSERS_WEIGHTS):
        return f"{file} holds weights of diffusers without the config.json that describes them: copy the whole folder"
    read = read_tensor_file(file)
    if "disback" in read.metadata:
        return f"{file} is one file of this program: `disback convert {shown(file)} FOLDER` makes a model folder of it"
    table = read.largest
    guess = guess_network(table)
    parts = ", ".join(f"{name}.* ({count / 1e6:.3g} M)" for name, count in largest_prefixes(table))
    return (
        f"{file} holds weights alone ({len(table)} tensors); their network's description is missing. Largest parts: "
        f"{parts}{f'; by these names, {guess}' if guess else ''}\n{SUPPORTED}"
    )
