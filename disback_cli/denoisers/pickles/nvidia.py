"""Teachers and students in NVIDIA's format: EDM, EDM2, and what derives from them (SiD, Diff-Instruct).

The constructor's arguments lie in the file, so nothing has to be said about the architecture. They are mapped by name
to our own networks, whose parameters have the names of the public files.
"""

from __future__ import annotations

import importlib
import inspect
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from disback_cli.denoisers.build import TARGET, build
from disback_cli.denoisers.folder import TRUSTED_PREFIXES, misfits
from disback_cli.denoisers.pickles.objects import describe, names_in_words, shown
from disback_cli.denoisers.pickles.persistent import (
    Persistent,
    Snapshot,
    flat_tensors,
    kind_of,
    read_object,
    read_snapshot,
)
from disback_cli.denoisers.source import NetworkSource
from disback_cli.errors import UserError

__all__ = ["Persistent", "flat_tensors", "read_nvidia", "read_object"]

SIGMA_MIN, SIGMA_MAX = 0.002, 80.0
NVIDIA_LICENCE = "CC BY-NC-SA 4.0 (NVIDIA)"
# How the published files are called; the licence is not in them, and of other files it is not known.
_PUBLISHED = re.compile(r"edm-(cifar10|ffhq|afhqv2|imagenet)-\d+x\d+|edm2-img\d+-")
LARGEST_INT = 1 << 20
LONGEST_LIST = LONGEST_TEXT = 64

_NEEDED = object()
_IMAGE = {"img_resolution": _NEEDED, "img_channels": _NEEDED}
_EDM_COMMON: dict[str, Any] = {**_IMAGE, "label_dim": 0, "use_fp16": False}
# Arguments that say how to build the raw network rather than its preconditioning.
_BUILDING = {"img_resolution", "img_channels", "label_dim", "use_fp16", "model_type"}


@dataclass(frozen=True)
class Wrapper:
    """A preconditioning class of NVIDIA's.

    Attributes:
        words: for people.
        target: our class.
        parameters: names of the constructor's positional parameters, in order, with their defaults.
        member: name of the submodule that is the raw network.
        outputs_per_channel: output channels of the raw network for each image channel.
    """

    words: str
    target: str
    parameters: dict[str, Any]
    member: str = "model"
    outputs_per_channel: int = 1


WRAPPERS = {
    "EDMPrecond": Wrapper(
        "EDM preconditioning",
        "disback_cli.denoisers.edm.EDMDenoiser",
        _EDM_COMMON | {"sigma_min": 0, "sigma_max": math.inf, "sigma_data": 0.5, "model_type": "DhariwalUNet"},
    ),
    "VPPrecond": Wrapper(
        "VP preconditioning",
        "disback_cli.denoisers.score_sde.VPDenoiser",
        _EDM_COMMON | {"beta_d": 19.9, "beta_min": 0.1, "M": 1000, "epsilon_t": 1e-5, "model_type": "SongUNet"},
    ),
    "VEPrecond": Wrapper(
        "VE preconditioning",
        "disback_cli.denoisers.score_sde.VEDenoiser",
        _EDM_COMMON | {"sigma_min": 0.02, "sigma_max": 100, "model_type": "SongUNet"},
    ),
    "iDDPMPrecond": Wrapper(
        "iDDPM preconditioning",
        "disback_cli.denoisers.iddpm.IDDPMDenoiser",
        _EDM_COMMON | {"C_1": 0.001, "C_2": 0.008, "M": 1000, "model_type": "DhariwalUNet"},
        outputs_per_channel=2,
    ),
    "Precond": Wrapper(
        "EDM preconditioning",
        "disback_cli.denoisers.edm2.EDM2Denoiser",
        {**_IMAGE, "label_dim": _NEEDED, "use_fp16": True, "sigma_data": 0.5, "logvar_channels": 128},
        member="unet",
    ),
}
# Raw networks: our class, and words for people.
NETWORKS = {
    "SongUNet": ("disback_cli.denoisers.song_unet.SongUNet", "SongUNet"),
    "DhariwalUNet": ("disback_cli.denoisers.dhariwal_unet.DhariwalUNet", "DhariwalUNet (ADM)"),
    "UNet": ("disback_cli.denoisers.edm2.EDM2UNet", "EDM2 UNet (magnitude-preserving)"),
}


def read_nvidia(path: Path) -> NetworkSource:
    """Read a network snapshot of EDM or EDM2, or of a project that kept their format; nothing in it is executed.

    Args:
        path: the file, a plain pickle or written by ``torch.save``.

    Returns:
        The network, checked to have exactly the parameters that its constructor's arguments imply. ``facts`` also has
        ``class_name``, ``key`` (of the entry), ``others`` (the kinds of the other ones), ``parameters`` (how many).

    Raises:
        UserError: the file is damaged, holds no such network, or the network has an argument or a parameter that ours
            does not know.
    """
    snapshot = read_snapshot(path)
    network = snapshot.network
    wrapper = WRAPPERS.get(network.class_name)
    if wrapper is None:
        raise UserError(
            f"{path} holds a network of class {shown(network.class_name)}; the known ones are {', '.join(WRAPPERS)}"
        )
    arguments = _arguments(network, wrapper, path)
    raw = network.modules.get(wrapper.member)
    network_class = "UNet" if wrapper.member == "unet" else arguments["model_type"]
    found = "nothing" if raw is None else raw.class_name
    if found != network_class or found not in NETWORKS:
        raise UserError(
            f"{path}: the raw network of its {network.class_name} is {shown(found)}, its arguments say "
            f"{describe(network_class)}; the known ones are {', '.join(NETWORKS)}"
        )
    notes: list[str] = []
    spec = _spec(wrapper, network_class, arguments, notes, path)
    weights = flat_tensors(network)
    _check_weights(spec, weights, arguments, path)
    _note_encoder(snapshot, notes)
    return NetworkSource(
        format="edm2-pickle" if network_class == "UNet" else "edm-pickle",
        spec=spec,
        weights=weights,
        facts={
            "network": f"{_network_words(network_class, arguments)}, {wrapper.words}",
            "class_name": network.class_name,
            "arguments": {name: _json(value) for name, value in arguments.items()},
            "key": snapshot.key,
            "others": {name: kind_of(value) for name, value in snapshot.others.items()},
            "licence": NVIDIA_LICENCE if _PUBLISHED.match(path.name) else None,
            "parameters": _count_parameters(network),
            "notes": notes,
        },
    )


def _arguments(network: Persistent, wrapper: Wrapper, path: Path) -> dict[str, Any]:
    """The constructor's arguments by name, defaults filled in; tuples become lists."""
    names = list(wrapper.parameters)
    if len(network.init_args) > len(names):
        raise UserError(f"{path}: {network.class_name} takes {len(names)} positional arguments at most: is it damaged?")
    given = dict(zip(names, network.init_args, strict=False))
    twice = [name for name in given if name in network.init_kwargs]
    if twice:
        raise UserError(f"{path}: {network.class_name} got {names_in_words(twice)} twice: the file is damaged")
    arguments = {**wrapper.parameters, **given, **network.init_kwargs}
    missing = [name for name, value in arguments.items() if value is _NEEDED]
    if missing:
        raise UserError(f"{path}: the arguments of {network.class_name} lack {', '.join(missing)}")
    return {name: _checked(name, value, path) for name, value in arguments.items()}


def _checked(name: str, value: Any, path: Path) -> Any:
    """An argument that networks can have: a scalar or a flat list of them, integers of a sane size."""
    if isinstance(value, (list, tuple)):
        if len(value) <= LONGEST_LIST and not any(isinstance(entry, (list, tuple)) for entry in value):
            return [_checked(name, entry, path) for entry in value]
    else:
        limits = {int: LARGEST_INT, str: LONGEST_TEXT}
        size = abs(value) if type(value) is int else len(value) if type(value) is str else 0
        if value is None or (type(value) in (bool, float, int, str) and size <= limits.get(type(value), 0)):
            return value
    raise UserError(f"{path}: the argument {shown(name)} of its network is {describe(value)}, which none of ours takes")


def _spec(
    wrapper: Wrapper, network_class: str, arguments: dict[str, Any], notes: list[str], path: Path
) -> dict[str, Any]:
    """Describe the denoiser for ``build``."""
    channels, size, label_dim = arguments["img_channels"], arguments["img_resolution"], arguments["label_dim"]
    for name in ("img_channels", "img_resolution", "label_dim"):
        if not isinstance(arguments[name], int):
            raise UserError(f"{path}: {name} is {describe(arguments[name])} instead of a whole number")
    target, _ = NETWORKS[network_class]
    network: dict[str, Any] = {TARGET: target, "img_resolution": size, "label_dim": label_dim}
    if network_class == "UNet":
        network["img_channels"] = channels
    else:
        network["in_channels"] = channels
        network["out_channels"] = channels * wrapper.outputs_per_channel
    extra = {name: value for name, value in arguments.items() if name not in wrapper.parameters}
    if network_class == "UNet" and extra.get("resample_filter") == [1, 1]:
        del extra["resample_filter"]  # the only filter that network is defined with
    module_name, _, class_name = target.rpartition(".")
    known = inspect.signature(getattr(importlib.import_module(module_name), class_name)).parameters
    unknown = [name for name in extra if name in network or name not in known]
    if unknown:
        raise UserError(
            f"{path}: its {network_class} was built with {names_in_words(unknown)}, which ours does not know; it would "
            "compute something else"
        )
    options = {name: arguments[name] for name in wrapper.parameters if name not in _BUILDING}
    return {
        TARGET: wrapper.target,
        "network": network | extra,
        "shape": [channels, size, size],
        "label_dim": label_dim,
        **_with_finite_range(options, notes),
        "network_dtype": "fp16" if arguments["use_fp16"] else "fp32",
    }


def _with_finite_range(options: dict[str, Any], notes: list[str]) -> dict[str, Any]:
    """Replace noise levels that mean "unlimited" by those EDM uses."""
    unlimited = {"sigma_min": (0, SIGMA_MIN), "sigma_max": (math.inf, SIGMA_MAX)}
    replaced = {name: use for name, (means, use) in unlimited.items() if name in options and options[name] == means}
    if replaced:
        values = " and ".join(f"{name} = {value:g}" for name, value in replaced.items())
        notes.append(f"The file does not limit the noise levels on this side: {values} is used, as EDM's sampler does.")
    return options | replaced


def _check_weights(spec: dict[str, Any], weights: Mapping[str, Tensor], arguments: dict[str, Any], path: Path) -> None:
    """Compare names and shapes with those of our network, before any memory is allocated for it."""
    blocks, levels = arguments.get("num_blocks"), arguments.get("channel_mult")
    if isinstance(blocks, int) and blocks * len(levels if isinstance(levels, list) else [1]) > len(weights):
        raise UserError(f"{path}: num_blocks={blocks} does not fit a network of {len(weights)} tensors: is it damaged?")
    try:
        with torch.device("meta"):  # which draws no random numbers either
            expected = build(spec, allow=TRUSTED_PREFIXES).state_dict()
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except (RuntimeError, ArithmeticError, LookupError, AttributeError) as error:
        raise UserError(f"{path}: no network can be built with its arguments ({shown(str(error))})") from error
    problems = misfits(expected, weights)
    if problems:
        raise UserError(
            f"{path}: its parameters are not those of the network that its arguments describe: {shown(problems, 600)}"
        )
    # A file can refer to one large tensor many times; a network is as large as its file.
    total = sum(tensor.numel() * tensor.element_size() for tensor in weights.values())
    if total > path.stat().st_size:
        raise UserError(f"{path}: its network has {total:,} bytes of parameters, more than the file: it is damaged")


def _note_encoder(snapshot: Snapshot, notes: list[str]) -> None:
    """EDM2's snapshots say what turns images into what the network denoises."""
    encoder = snapshot.others.get("encoder")
    if isinstance(encoder, Persistent) and encoder.class_name != "StandardRGBEncoder":
        notes.append(
            f"The network denoises latents of an autoencoder ({kind_of(encoder)}), which is not in the file: what it "
            "generates is no image."
        )


def _network_words(network_class: str, arguments: dict[str, Any]) -> str:
    """The raw network, for people."""
    words = NETWORKS[network_class][1]
    if network_class != "SongUNet":
        return words
    return f"{words} ({'NCSN++' if arguments.get('encoder_type') == 'residual' else 'DDPM++'})"


def _count_parameters(network: Persistent) -> int:
    """Number of trainable numbers."""
    own = sum(parameter.numel() for parameter in network.parameters.values())
    return own + sum(_count_parameters(child) for child in network.modules.values())


def _json(value: Any) -> Any:
    """JSON has no infinite numbers."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
