"""Teachers: where a many-step denoiser comes from."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from disback_cli.denoisers.build import TARGET
from disback_cli.denoisers.folder import (
    CONFIG_FILE,
    TRUSTED_PREFIXES,
    build,
    build_network,
    load_decoder,
    load_model,
    load_strictly,
    resolve_folder,
    weights_hash,
)
from disback_cli.denoisers.licences import SHIPPED_LICENCE, licence_of, licence_of_folder
from disback_cli.denoisers.protocol import Denoiser
from disback_cli.denoisers.state_dicts import read_state_dict
from disback_cli.errors import UserError
from disback_cli.files import sha256_of

if TYPE_CHECKING:
    from disback_cli.denoisers.source import NetworkSource

log = logging.getLogger(__name__)

Dtype = Literal["auto", "fp32", "fp16", "bf16"]


@dataclass(frozen=True)
class Teacher:
    """A denoiser with its origin.

    Attributes:
        name: what runs on it are filed under.
        denoiser: the network, frozen and in evaluation mode.
        spec: plain nested dict from which the same network is built (see :func:`build`).
        hash: identity of the weights; a path belongs to exactly one.
        sampler: settings of EDM's Heun sampler (steps, s_churn, ...).
        decoder: turns the samples of a latent model into images; None where samples are what is looked at.
        decoder_spec: plain nested dict from which the same decoder is built.
        licence: of the weights, as far as it is known.
        source: which weights these are, plain JSON values: ``name`` of the file or folder they came from, its
            ``sha256`` (None for diffusers' folders), its ``format``, ``network`` (in words), and ``origin``, the same
            of the file it was converted from; None where there are no weights.
    """

    name: str
    denoiser: Denoiser
    spec: dict[str, Any]
    hash: str
    sampler: dict[str, Any] = field(default_factory=dict)
    decoder: nn.Module | None = None
    decoder_spec: dict[str, Any] | None = None
    licence: str | None = None
    source: dict[str, Any] | None = None

    def identity(self) -> dict[str, Any]:
        """What whatever derives from this teacher tells about it; plain JSON values, no places on this machine."""
        return {"name": self.name, "hash": self.hash, "licence": self.licence, "source": self.source}

    def copy(self) -> Denoiser:
        """A trainable copy of the network, the teacher's weights included, in evaluation mode: no dropout."""
        return copy.deepcopy(self.denoiser).trainable_()


def _teacher(name: str, denoiser: Denoiser, spec: dict[str, Any], sampler: Mapping[str, Any] | None) -> Teacher:
    denoiser.requires_grad_(False).eval()
    return Teacher(name, denoiser, spec, weights_hash(denoiser.state_dict()), dict(sampler or {}))


def shipped(*, name: str, folder: str, denoiser: dict[str, Any], sampler: dict[str, Any] | None = None) -> Teacher:
    """A teacher whose network is described in the configuration and whose weights lie in a model folder.

    Args:
        name: name of the teacher.
        folder: a model folder; ``pkg://disback_cli/...`` is inside the installed package.
        denoiser: the network; `disback pretrain` trains it from scratch.
        sampler: settings of the Heun sampler.

    Raises:
        UserError: no such folder, damaged weights, or a network other than the one described.
    """
    from disback_cli.denoisers.wrong_place import refuse_student

    place = resolve_folder(folder)
    refuse_student(place, folder)
    loaded, config = load_model(place)
    if config["denoiser"] != denoiser:
        raise UserError(
            f"the weights in {folder} are of another network than teacher.denoiser describes. Undo the changes "
            "to teacher.denoiser, or train weights for it with `disback pretrain` "
            "and use teacher=folder teacher.folder=RUN."
        )
    return _with_source(_teacher(name, loaded, denoiser, sampler), place, config)


def folder(*, name: str, folder: str, sampler: dict[str, Any] | None = None) -> Teacher:
    """A teacher from a model folder alone, as `disback pretrain` and `disback convert` leave it.

    Args:
        name: name of the teacher.
        folder: the model folder, or the run folder that contains it as ``teacher``.
        sampler: settings of the Heun sampler.

    Raises:
        UserError: no such folder, a damaged one, or one that holds a one-step student or another program's model.
    """
    from disback_cli.denoisers.wrong_place import missing, refuse_student, require_model_folder

    place = resolve_folder(folder)
    if not place.exists():
        raise UserError(missing("teacher.folder", folder))
    if not (place / CONFIG_FILE).is_file() and (place / "teacher" / CONFIG_FILE).is_file():
        place = place / "teacher"
    refuse_student(place, folder)
    require_model_folder(place)
    loaded, config = load_model(place)
    decoder, decoder_spec = load_decoder(place)
    made = _with_source(_teacher(name, loaded, config["denoiser"], sampler), place, config)
    return replace(made, decoder=decoder, decoder_spec=decoder_spec)


def _with_source(made: Teacher, place: Path, config: Mapping[str, Any]) -> Teacher:
    """The teacher with its licence and with what its model folder tells of where it comes from."""
    from disback_cli.denoisers.open_source import words_of_network

    source: dict[str, Any] = {
        "name": place.resolve().name,
        "sha256": config["sha256"],
        "format": "model-folder",
        "network": words_of_network(made.spec),
    }
    origin = config.get("origin")
    if isinstance(origin, Mapping):
        source["origin"] = {
            "name": origin.get("file"),
            **{key: origin.get(key) for key in ("sha256", "format", "network")},
        }
    return replace(made, licence=licence_of_folder(place, config), source=source)


def closed_form(*, name: str, denoiser: dict[str, Any], sampler: dict[str, Any] | None = None) -> Teacher:
    """A teacher that needs no weights: its denoiser is exact in closed form.

    Args:
        name: name of the teacher.
        denoiser: the denoiser, by ``_target_``.
        sampler: settings of the Heun sampler.
    """
    made = _teacher(name, build(denoiser, allow=None), denoiser, sampler)
    ours = str(denoiser.get(TARGET)).startswith(TRUSTED_PREFIXES)
    return replace(made, licence=SHIPPED_LICENCE if ours else None)


def network(
    *,
    name: str,
    denoiser: dict[str, Any],
    weights: str,
    key: str | None = None,
    prefix: str = "",
    sampler: dict[str, Any] | None = None,
) -> Teacher:
    """A network of the user's own class with its weights, inside one of the adapters.

    Args:
        name: name of the teacher.
        denoiser: the adapter, by ``_target_``, with the network in it, by ``_target_``.
        weights: a state dict of the network (or of the whole denoiser) in a .safetensors, .pt or .ckpt file.
        key: entry of the file that holds the state dict.
        prefix: what is taken off the names in the file.
        sampler: settings of the Heun sampler.

    Raises:
        UserError: the file cannot be read, or its tensors are not exactly the network's.
    """
    from disback_cli.denoisers.open_source import words_of_network

    tensors = read_state_dict(weights, key, prefix)
    built = build(denoiser, allow=None)
    if not isinstance(built, Denoiser):
        raise UserError(f"teacher.denoiser builds a {type(built).__name__}, not a denoiser; name an adapter")
    inner = getattr(built, "model", None)
    whole = tensors.keys() == built.state_dict().keys()
    load_strictly(built if whole or not isinstance(inner, nn.Module) else inner, tensors, weights)
    source = {
        "name": Path(weights).name,
        "sha256": sha256_of(Path(weights).expanduser()),
        "format": "state-dict",
        "network": words_of_network(denoiser),
    }
    return replace(_teacher(name, built.float(), denoiser, sampler), source=source)


def edm(
    *,
    name: str,
    path: str | None = None,
    folder: str = "teachers",
    official: dict[str, Any] | None = None,
    variant: Literal["vp", "ve"] | None = None,
    size: Literal["s", "m", "l", "xl"] | None = None,
    dtype: Dtype = "auto",
    sampler: dict[str, Any] | None = None,
) -> Teacher:
    """A teacher in NVIDIA's pickle format (EDM, EDM2, and what SiD and Diff-Instruct save); nothing in it is executed.

    Args:
        name: name of the teacher.
        path: the file; None looks for the official one.
        folder: where official files are looked for.
        official: which files are official, where they are to be had, and how to recognise them.
        variant: which of the official networks; the file's name in ``official`` follows it.
        size: which size of the official networks, likewise.
        dtype: of the activations inside the network; ``auto`` is as the file asks.
        sampler: settings of the Heun sampler.

    Raises:
        UserError: no file, a damaged or unsafe one, or one whose network is not the official one.
    """
    from disback_cli.denoisers.pickles.nvidia import read_nvidia
    from disback_cli.denoisers.wrong_place import require_nvidia

    place = _place(name, path, folder, official)
    require_nvidia(place)
    log.info("reading %s", place)
    source = read_nvidia(place)
    taken = official if path is None else None
    if taken is not None:
        _require_official(source, taken, place)
    identity = {"name": place.name, "sha256": sha256_of(place)}
    return _from_source(name, source, dtype, sampler, identity, taken)


def diffusers(
    *,
    name: str,
    path: str | None = None,
    folder: str = "teachers",
    official: dict[str, Any] | None = None,
    prediction: Literal["epsilon", "v_prediction", "sample", "flow_prediction"] | None = None,
    scheduler: str | None = None,
    dtype: Dtype = "auto",
    sampler: dict[str, Any] | None = None,
) -> Teacher:
    """A teacher from a folder in diffusers' format: UNet2DModel or DiTTransformer2DModel with its scheduler.

    Args:
        name: name of the teacher.
        path: the pipeline or model folder; None looks for the official one.
        folder: where official folders are looked for.
        official: which folder is official and where its files are to be had.
        prediction: what the network predicts; None is as the scheduler's configuration says.
        scheduler: path of a scheduler_config.json to use instead of the folder's own.
        dtype: of the activations inside the network; ``auto`` is fp32.
        sampler: settings of the Heun sampler.

    Raises:
        UserError: no such folder, or a network or scheduler that cannot be a teacher.
    """
    from disback_cli.denoisers.diffusers_folder import name_of_model, read_diffusers
    from disback_cli.denoisers.wrong_place import require_diffusers

    place = _place(name, path, folder, official)
    require_diffusers(place)
    log.info("reading %s", place)
    source = read_diffusers(place, prediction=prediction, scheduler=Path(scheduler) if scheduler else None)
    taken = official if path is None else None
    if taken is not None:
        _require_official(source, taken, place)
    return _from_source(name, source, dtype, sampler, {"name": name_of_model(place), "sha256": None}, taken)


def _place(name: str, path: str | None, folder: str, official: Mapping[str, Any] | None) -> Path:
    """The file or folder of the teacher, which exists."""
    from disback_cli.denoisers.official import missing_message, official_place
    from disback_cli.denoisers.wrong_place import missing

    if path is not None:
        place = Path(path).expanduser()
        if not place.exists():
            raise UserError(missing("teacher.path", path))
        return place
    if official is None:
        raise UserError(f"teacher={name} needs teacher.path=FILE")
    place = official_place(folder, official)
    if not place.exists():
        raise UserError(missing_message(name, folder, official))
    return place


def _require_official(source: NetworkSource, official: Mapping[str, Any], place: Path) -> None:
    """Refuse a file that lies under the official name and holds another network."""
    wanted, found = official.get("parameters"), source.facts.get("parameters")
    if wanted is not None and found is not None and wanted != found:
        raise UserError(
            f"{place} holds a network of {found:,} parameters, the official one has {wanted:,}: another file lies "
            "under the official name. Restore it, or give your own file as teacher.path=FILE"
        )


def _from_source(
    name: str,
    source: NetworkSource,
    dtype: Dtype,
    sampler: Mapping[str, Any] | None,
    identity: dict[str, Any],
    official: Mapping[str, Any] | None,
) -> Teacher:
    """Build what a file describes and load its weights, strictly; ``official`` is None for a user's own file."""
    spec = dict(source.spec)
    if dtype != "auto":
        spec["network_dtype"] = dtype
    denoiser = build_network(spec, source.weights, f"teacher={name}")
    decoder = decoder_spec = None
    if source.decoder is not None:
        decoder_spec = source.decoder.spec
        decoder = build_network(decoder_spec, source.decoder.weights, f"the decoder of teacher={name}", nn.Module)
    assert isinstance(denoiser, Denoiser)
    for note in source.facts.get("notes", ()):
        log.info("%s", note)
    if spec.get("network_dtype") == "fp16" and torch.cuda.is_available():
        log.info(
            "the network asks for fp16 inside; small gradients may underflow there, teacher.dtype=bf16 has fp32's range"
        )
    return replace(
        _teacher(name, denoiser, spec, sampler),
        decoder=decoder,
        decoder_spec=decoder_spec,
        licence=licence_of(source.facts) or licence_of(official or {}),
        source={**identity, "format": source.format, "network": source.facts.get("network")},
    )
