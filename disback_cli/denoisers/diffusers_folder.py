"""Folders in diffusers' format, as `save_pretrained` writes them.

Only what is named here is read, and only classes named here are built: a folder from a stranger cannot run code,
import modules, or lead to files outside itself.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from disback_cli.denoisers.build import TARGET
from disback_cli.denoisers.decoders import VAEDecoder
from disback_cli.denoisers.diffusers_networks import DiT, UNet2D
from disback_cli.denoisers.diffusers_schedulers import parametrisation
from disback_cli.denoisers.diffusers_weights import read_object, read_weights
from disback_cli.denoisers.folder import misfits
from disback_cli.denoisers.source import DecoderSource, NetworkSource
from disback_cli.errors import UserError

PIPELINE_FILE = "model_index.json"
MODEL_FILE = "config.json"
SCHEDULER_FILE = "scheduler_config.json"
_NETWORKS: dict[str, type[UNet2D] | type[DiT]] = {"UNet2DModel": UNet2D, "DiTTransformer2DModel": DiT}
_SUPPORTED = (
    "supported are pipelines and models whose network is a UNet2DModel or a DiTTransformer2DModel, with an "
    "AutoencoderKL if they are latent"
)
# How pipelines call their network, and what else of them is read.
_NAMES = ("unet", "transformer")
_READ = (*_NAMES, "vae", "scheduler")
# Entries of a pipeline that say nothing about its network.
_HARMLESS = ("id2label", "safety_checker", "feature_extractor", "requires_safety_checker")
# Latents are scaled to unit variance, images in [-1, 1] have about half of it.
_LATENT_SIGMA_DATA, _IMAGE_SIGMA_DATA = 1.0, 0.5


@dataclass(frozen=True)
class _Parts:
    """Where the parts of a model lie.

    Attributes:
        root: the pipeline's folder, or the model's.
        network: folder with the network's config.json and weights.
        scheduler: its configuration, or None if there is none.
        vae: folder of the autoencoder, or None.
        class_name: of the network, as far as the pipeline says.
    """

    root: Path
    network: Path
    scheduler: Path | None
    vae: Path | None
    class_name: str | None


def is_diffusers(path: Path) -> bool:
    """Whether a folder has diffusers' format, supported or not: a pipeline's, or a single model's."""
    if (path / PIPELINE_FILE).is_file():
        return True
    if not (path / MODEL_FILE).is_file():
        return False
    try:
        document = json.loads((path / MODEL_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(document, dict) and "_class_name" in document and "denoiser" not in document


def read_diffusers(path: Path, *, prediction: str | None = None, scheduler: Path | None = None) -> NetworkSource:
    """Read a network, its parametrisation and its decoder.

    Args:
        path: folder of a pipeline (model_index.json), or of a model (config.json) with a scheduler_config.json in it,
            in its ``scheduler`` folder or in that of the folder around it.
        prediction: what the network predicts if the scheduler's configuration is wrong about it: "epsilon",
            "v_prediction", "sample" or "flow_prediction".
        scheduler: a scheduler_config.json, or its folder, to use instead of the one found.

    Returns:
        The network's source; ``facts`` has ``network``, ``arguments``, ``parameters`` (their number), ``prediction``,
        ``scheduler`` (class), ``licence`` (of the model card, or None) and ``notes``.

    Raises:
        UserError: the folder is no model of a supported kind, is damaged, or lacks a part.
    """
    parts = _find_parts(path)
    config = read_object(parts.network / MODEL_FILE)
    class_name, network_class = _network_class(config, parts)
    arguments, notes = _arguments(config, class_name, parts.network / MODEL_FILE)
    network = _outline(network_class, {"config": arguments}, f"{parts.network / MODEL_FILE}")
    shape = _shape(arguments, network.in_channels, parts.network / MODEL_FILE)
    scheduler_file = _scheduler_file(parts, scheduler)
    scheduler_config = read_object(scheduler_file)
    wrapped = parametrisation(scheduler_config, str(scheduler_file), prediction)
    weights = read_weights(parts.network)
    prefix = next(iter(network.state_dict())).split(".")[0]
    weights = {f"{prefix}.{name}": tensor for name, tensor in weights.items()}
    _require_fit(weights, network, parts.network)
    spec = {
        TARGET: wrapped.target,
        "network": {TARGET: f"{network_class.__module__}.{network_class.__name__}", "config": arguments},
        "shape": shape,
        "label_dim": network.label_dim,
        "sigma_data": _IMAGE_SIGMA_DATA if parts.vae is None else _LATENT_SIGMA_DATA,
        "network_dtype": "fp32",
        **wrapped.keywords,
    }
    if arguments.get("out_channels") == 2 * network.in_channels:
        notes.append("the network also learnt the variance of its steps; that half of its output is not used")
    facts = {
        "network": class_name,
        "arguments": arguments,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "prediction": wrapped.prediction,
        "scheduler": scheduler_config["_class_name"],
        "licence": _licence(parts),
        "notes": [*notes, *wrapped.notes],
    }
    decoder = None if parts.vae is None else _decoder(parts.vae, network.in_channels)
    return NetworkSource("diffusers", spec, {f"model.{name}": t for name, t in weights.items()}, facts, decoder)


def _find_parts(path: Path) -> _Parts:
    """Look at a pipeline's index, or at the surroundings of a model's folder."""
    if (path / PIPELINE_FILE).is_file():
        return _pipeline_parts(path)
    around = path.absolute().parent
    if path.absolute().name in _READ and (around / PIPELINE_FILE).is_file():
        return _parts_around(path, around)
    if not (path / MODEL_FILE).is_file():
        raise UserError(f"{path} holds neither {PIPELINE_FILE} nor {MODEL_FILE}: it is no folder of diffusers")
    places = [path / SCHEDULER_FILE, path / "scheduler" / SCHEDULER_FILE, around / "scheduler" / SCHEDULER_FILE]
    return _Parts(path, path, next((place for place in places if place.is_file()), None), None, None)


def _parts_around(path: Path, root: Path) -> _Parts:
    """The pipeline that a folder is the network of; its other parts are refused, by their names."""
    name = path.absolute().name
    parts = _pipeline_parts(root)
    if parts.network == root / name:
        return parts
    entry = read_object(root / PIPELINE_FILE).get(name)
    what = f"{name} ({entry[1]})" if isinstance(entry, list) and len(entry) == 2 else name
    raise UserError(f"{path} is the {what} of the pipeline in {root}, not its network: give teacher.path={root}")


def name_of_model(path: Path) -> str:
    """The name a folder goes by: the pipeline's where the folder is the network in it."""
    place = path.resolve()
    return place.parent.name if place.name in _NAMES and (place.parent / PIPELINE_FILE).is_file() else place.name


def _pipeline_parts(root: Path) -> _Parts:
    """The parts that a pipeline's index names; a part without a folder of its own lies in the pipeline's."""
    index = read_object(root / PIPELINE_FILE)
    pipeline = index.get("_class_name")
    if not isinstance(pipeline, str):
        raise UserError(f"{root / PIPELINE_FILE}: the pipeline has code of its own, which is never run; {_SUPPORTED}")
    if pipeline == "ConsistencyModelPipeline":
        raise UserError(
            f"{root}: ConsistencyModelPipeline is a consistency model, which samples in one step already; a teacher "
            "must be a many-step diffusion model"
        )
    classes: dict[str, str] = {}
    for name, entry in index.items():
        if name.startswith("_") or name in _HARMLESS or entry is None or entry == [None, None]:
            continue
        if not (isinstance(entry, list) and len(entry) == 2 and all(isinstance(word, str) for word in entry)):
            if name in _READ:
                raise UserError(f"{root / PIPELINE_FILE}: {name}={entry!r}: need [library, class]")
            continue  # a setting of the pipeline, not a part
        if name not in _READ:
            raise UserError(f"{root}: {pipeline} also needs {name} ({entry[1]}), which is not supported; {_SUPPORTED}")
        if entry[0] != "diffusers":
            raise UserError(
                f"{root / PIPELINE_FILE}: {name} is a class of {entry[0]!r}, not of diffusers; code from elsewhere is "
                f"never run; {_SUPPORTED}"
            )
        classes[name] = entry[1]
    networks = [name for name in _NAMES if name in classes]
    if len(networks) != 1:
        raise UserError(
            f"{root}: {pipeline} has {len(networks)} networks named unet or transformer, need one; {_SUPPORTED}"
        )
    folders = {name: root / name if (root / name).is_dir() else root for name in classes}
    scheduler = folders.get("scheduler", root) / SCHEDULER_FILE
    vae = folders.get("vae")
    if vae is not None and classes["vae"] != "AutoencoderKL":
        raise UserError(f"{root}: the vae is a {classes['vae']}; {_SUPPORTED}")
    network = folders[networks[0]]
    return _Parts(root, network, scheduler if scheduler.is_file() else None, vae, classes[networks[0]])


def _network_class(config: Mapping[str, Any], parts: _Parts) -> tuple[str, type[UNet2D] | type[DiT]]:
    """The wrapper for the class that the configuration names."""
    where = parts.network / MODEL_FILE
    if "auto_map" in config:
        raise UserError(f"{where} names code of its own (auto_map), which is never run; {_SUPPORTED}")
    name = config.get("_class_name", parts.class_name)
    # DiT was a case of this class before it got its own.
    if name == "Transformer2DModel" and config.get("norm_type") == "ada_norm_zero" and config.get("patch_size"):
        name = "DiTTransformer2DModel"
    if not isinstance(name, str) or name not in _NETWORKS:
        raise UserError(f"{where}: _class_name={name!r} is not supported; {_SUPPORTED}")
    return name, _NETWORKS[name]


def _arguments(config: Mapping[str, Any], class_name: str, where: Path) -> tuple[dict[str, Any], list[str]]:
    """The entries that are arguments of a diffusers class, and notes about others."""
    import diffusers

    known = inspect.signature(getattr(diffusers, class_name).__init__).parameters.keys() - {"self"}
    arguments = {key: value for key, value in config.items() if key in known}
    for key, value in arguments.items():
        items = value if isinstance(value, list) else [value]
        if not all(item is None or isinstance(item, (str, int, float, bool)) for item in items):
            raise UserError(f"{where}: {key}={value!r}: need a number, a word or a list of them")
    # Older versions wrote out what was off in their many-purpose classes.
    foreign = sorted(k for k, value in config.items() if k not in known and not k.startswith("_") and value)
    note = f"{where.name}: not arguments of diffusers' {class_name} and left out: {', '.join(foreign)}"
    return arguments, [note] if foreign else []


def _outline(network_class: type[nn.Module], keywords: dict[str, Any], where: str) -> Any:
    """The network without memory for its weights."""
    try:
        with torch.device("meta"), torch.random.fork_rng(devices=[]):
            return network_class(**keywords)
    except UserError:
        raise
    except Exception as error:  # diffusers checks little, so any class of error can come from odd values
        raise UserError(f"{where}: no network can be built of its entries: {error}") from error


def _shape(arguments: Mapping[str, Any], channels: int, where: Path) -> list[int]:
    size = arguments.get("sample_size", 32 if "num_attention_heads" in arguments else None)
    sizes = size if isinstance(size, list) else [size, size]
    if len(sizes) != 2 or not all(isinstance(n, int) and n > 0 for n in sizes):
        raise UserError(f"{where}: sample_size={size!r}: write the height and width of the training samples there")
    return [channels, *sizes]


def _scheduler_file(parts: _Parts, given: Path | None) -> Path:
    """The scheduler's configuration, the given one first."""
    if given is not None:
        file = given / SCHEDULER_FILE if given.is_dir() else given
        if not file.is_file():
            raise UserError(f"teacher.scheduler={given}: there is no such file; give a {SCHEDULER_FILE}")
        return file
    if parts.scheduler is None:
        raise UserError(
            f"{parts.root} has no {SCHEDULER_FILE}, so it is unknown at which noise levels the network was trained and "
            f"what it predicts: put the {SCHEDULER_FILE} of its training there, or give it as teacher.scheduler=FILE"
        )
    return parts.scheduler


def _require_fit(weights: Mapping[str, Tensor], network: nn.Module, folder: Path) -> None:
    """Refuse weights whose names or shapes are not exactly the network's."""
    problems = misfits(network.state_dict(), weights)
    if problems:
        raise UserError(f"{folder}: the weights do not fit the network that {MODEL_FILE} describes: {problems}")


def _decoder(folder: Path, channels: int) -> DecoderSource:
    """The decoding half of a pipeline's autoencoder."""
    where = folder / MODEL_FILE
    config = read_object(where)
    if config.get("_class_name", "AutoencoderKL") != "AutoencoderKL" or "auto_map" in config:
        raise UserError(f"{where}: _class_name={config.get('_class_name')!r} is not supported; {_SUPPORTED}")
    if config.get("latents_mean") is not None or config.get("latents_std") is not None:
        raise UserError(
            f"{where}: latents scaled by latents_mean and latents_std are not supported, only scaling_factor"
        )
    arguments, _ = _arguments(config, "AutoencoderKL", where)
    if arguments.get("latent_channels", 4) != channels:
        raise UserError(
            f"{where}: latent_channels={arguments.get('latent_channels', 4)}, but the network has {channels}"
        )
    scale, shift = arguments.get("scaling_factor", 0.18215), arguments.get("shift_factor") or 0.0
    keywords = {"config": arguments, "scaling_factor": scale, "shift": shift}
    outline = _outline(VAEDecoder, keywords, str(where))
    weights = {n: t for n, t in read_weights(folder).items() if not n.startswith(("encoder.", "quant_conv."))}
    _require_fit(weights, outline, folder)
    return DecoderSource({TARGET: f"{VAEDecoder.__module__}.{VAEDecoder.__name__}", **keywords}, weights)


def _licence(parts: _Parts) -> str | None:
    """The licence that the model card's header names."""
    import yaml

    card = parts.root / "README.md"
    try:
        begin, header, _ = card.read_text(encoding="utf-8").split("---", 2)
        document = yaml.safe_load(header)
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return None
    if begin.strip() or not isinstance(document, dict):
        return None
    licence = document.get("license")
    if licence == "other" and isinstance(document.get("license_name"), str):
        licence = document["license_name"]
    words = licence if isinstance(licence, list) else [licence]
    return ", ".join(word for word in words if isinstance(word, str)) or None
