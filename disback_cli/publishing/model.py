"""What can be converted: our model folders and single files, and teachers' files of other projects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from disback_cli.denoisers.folder import CONFIG_FILE, build_network, resolve_folder, weights_hash
from disback_cli.denoisers.json_objects import parse_json_object
from disback_cli.denoisers.kinds import STUDENT, TEACHER, is_generator
from disback_cli.denoisers.open_source import find_network, network_without_memory, open_source
from disback_cli.denoisers.protocol import Denoiser
from disback_cli.denoisers.source import DecoderSource, NetworkSource
from disback_cli.distillation.student_folder import student_around
from disback_cli.distillation.students import Student
from disback_cli.errors import UserError
from disback_cli.files import sha256_of

# The entry of a single file's metadata that holds what config.json holds in a folder.
METADATA_KEY = "disback"
# What save_model writes itself, and so is not carried over.
_WRITTEN_BY_FOLDER = ("denoiser", "sha256", "weights_hash", "dtype")


@dataclass(frozen=True)
class Model:
    """A network on its way from one format to another.

    Attributes:
        place: the file or folder it was read from.
        format: of that place, e.g. ``model-folder``, ``edm-pickle``.
        spec: how its network is built, nested dicts with ``_target_``.
        weights: the network's state dict, on the CPU, in the dtype of the file.
        facts: what else is known: the entries of a ``config.json`` other than those that describe weights.
        decoder: of a latent model, else None.
    """

    place: Path
    format: str
    spec: dict[str, Any]
    weights: Mapping[str, Tensor]
    facts: dict[str, Any] = field(default_factory=dict)
    decoder: DecoderSource | None = None

    @property
    def settings(self) -> dict[str, Any] | None:
        """How a student's network makes samples, checked by :func:`read_model`; None for a teacher."""
        settings = self.facts.get("student")
        return settings if self.facts.get("kind") == STUDENT and isinstance(settings, dict) else None

    @property
    def sigmas(self) -> list[float]:
        """Noise levels at which a student's denoiser is asked, one an evaluation; none for others."""
        settings = self.settings or {}
        once = [settings["sigma_init"]] if "sigma_init" in settings else []
        return [float(level) for level in settings.get("sigmas", once)]

    @property
    def kind_of_network(self) -> type[nn.Module]:
        """Class that the network must belong to."""
        return nn.Module if is_generator(self.facts) else Denoiser

    def network(self) -> nn.Module:
        """The network with these weights in fp32, on the CPU, in evaluation mode.

        Raises:
            UserError: the weights do not fit the description.
        """
        network: nn.Module = build_network(self.spec, self.weights, str(self.place), self.kind_of_network)
        return network.requires_grad_(False)

    def student_around(self, network: nn.Module) -> Student:
        """The student that this model is, around its network.

        Raises:
            UserError: its settings do not fit the network.
        """
        assert self.settings is not None
        where = self.place / CONFIG_FILE if self.place.is_dir() else self.place
        return student_around(network, self.settings, self.spec, str(where))


def read_model(location: str) -> Model:
    """Read whatever a user names.

    Args:
        location: a model folder, a run folder that holds one, a file of ``to=safetensors``, or a teacher's file or
            folder that ``disback inspect`` knows.

    Raises:
        UserError: there is nothing, it is damaged, or its format is unknown.
    """
    place = resolve_folder(location)
    if not place.exists():
        raise UserError(f"there is nothing at {place}: check the path")
    if place.suffix == ".safetensors" and (document := _single_file_document(place)) is not None:
        model = _read_single_file(place, document)
    else:
        model = _read_open_source(location)
    _check_student(model)
    return model


def _check_student(model: Model) -> None:
    """Refuse a student whose settings do not fit its network, or are of a kind that is not known here."""
    if model.settings is not None:
        model.student_around(network_without_memory(NetworkSource(model.format, model.spec, model.weights, {}, None)))


def _facts(document: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in document.items() if key not in _WRITTEN_BY_FOLDER}


def _single_file_document(file: Path) -> dict[str, Any] | None:
    """What our single files say about themselves; None for other files."""
    try:
        with safe_open(file, framework="pt") as opened:
            text = (opened.metadata() or {}).get(METADATA_KEY)
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{file} is not a safetensors file ({error})") from error
    if not text:
        return None
    document = parse_json_object(text, f"the entry {METADATA_KEY!r} of {file}", "it does not describe a model")
    return document if "denoiser" in document else None


def _read_single_file(file: Path, document: dict[str, Any]) -> Model:
    weights = load_file(file)
    if weights_hash(weights) != document.get("weights_hash"):
        raise UserError(f"{file} is damaged: its weights are not those it was written with; copy it again")
    return Model(file, "single-file", document["denoiser"], weights, _facts(document))


def _read_open_source(location: str) -> Model:
    source = open_source(location)
    found = find_network(location)
    assert found is not None
    place = found.path
    document = source.facts.get("document")
    if isinstance(document, dict):
        return Model(place, source.format, source.spec, source.weights, _facts(document), source.decoder)
    origin: dict[str, Any] = {"format": source.format, "file": place.name, **source.facts}
    if place.is_file():
        origin["sha256"] = sha256_of(place)
    name = place.stem if place.is_file() else place.name
    facts = {"kind": TEACHER, "name": name, "licence": source.facts.get("licence"), "origin": origin}
    return Model(place, source.format, source.spec, source.weights, facts, source.decoder)
