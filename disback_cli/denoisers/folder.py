"""A model on disk: a folder with ``model.safetensors`` and ``config.json``.

The config says how to build the denoiser (a nested dict with ``_target_``) and holds the SHA-256 of the weights file.
It is written last, so a folder whose config fits its weights is whole. Nothing in a folder is ever executed: only
network classes of this package can be named, and weights are safetensors.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from disback_cli.configuration.trust import trusted_modules
from disback_cli.denoisers.allocation import bounded_by
from disback_cli.denoisers.build import TARGET, build
from disback_cli.denoisers.json_objects import read_json_object
from disback_cli.denoisers.kinds import DECODER
from disback_cli.denoisers.protocol import Denoiser
from disback_cli.errors import UserError
from disback_cli.files import sha256_of, write_bytes, write_json

__all__ = [
    "CONFIG_FILE",
    "TRUSTED_PREFIXES",
    "WEIGHTS_FILE",
    "build",
    "build_network",
    "load_decoder",
    "save_decoder",
    "load_config",
    "load_model",
    "load_strictly",
    "resolve_folder",
    "save_model",
    "weights_hash",
]

WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"
PACKAGE_SCHEME = "pkg://"
PACKAGE = "disback_cli"
DECODER_FOLDER = "decoder"
TRUSTED_PREFIXES = ("disback_cli.denoisers.",)


def trusted_prefixes() -> tuple[str, ...]:
    """Modules whose network classes a model folder may name: ours, and those in $DISBACK_TRUST, separated by commas.

    A folder may come from a stranger, so it cannot name just any class; whoever distils a network of his own class
    trusts that one.
    """
    return TRUSTED_PREFIXES + tuple(f"{name}." for name in trusted_modules())


def resolve_folder(path: str | os.PathLike[str]) -> Path:
    """Turn what a user typed into a folder.

    Args:
        path: a path on disk (``~`` is expanded), or ``pkg://disback_cli/...`` for a folder shipped with the package.

    Returns:
        The path; it need not exist.

    Raises:
        UserError: a ``pkg://`` path names another package or leaves this one.
    """
    text = os.fspath(path)
    if not text.startswith(PACKAGE_SCHEME):
        return Path(text).expanduser()
    package, *parts = PurePosixPath(text[len(PACKAGE_SCHEME) :]).parts or ("",)
    if package != PACKAGE or ".." in parts:
        raise UserError(f"{text}: only folders inside the package can be named, as {PACKAGE_SCHEME}{PACKAGE}/...")
    return Path(str(resources.files(PACKAGE))).joinpath(*parts)


def weights_hash(state_dict: Mapping[str, Tensor]) -> str:
    """Identity of a set of weights: SHA-256 over sorted names, dtypes, shapes and bytes.

    Floating-point tensors count as fp32, so weights stored in a narrower type hash like their loaded copy. Device,
    memory layout and order of the entries do not matter.

    Args:
        state_dict: tensors by name.

    Returns:
        64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for name in sorted(state_dict):
        tensor = state_dict[name].detach().cpu()
        if tensor.is_floating_point():
            tensor = tensor.to(torch.float32)
        # JSON quotes the name, so no choice of names can imitate another header.
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def save_model(
    folder: str | os.PathLike[str],
    denoiser_spec: Mapping[str, Any],
    weights: Mapping[str, Tensor],
    config: Mapping[str, Any],
    dtype: torch.dtype | None = None,
) -> Path:
    """Write a model folder; a crash leaves either the old model, the new one, or a mismatch that loading reports.

    Args:
        folder: where to write; created if absent.
        denoiser_spec: how to build the denoiser, nested dicts with ``_target_``; must be JSON.
        weights: its state dict.
        config: further facts to keep beside the weights; must be JSON. The keys ``denoiser``, ``sha256``,
            ``weights_hash`` and ``dtype`` are replaced.
        dtype: store floating-point tensors, buffers included, in this type, e.g. ``torch.float16``; None keeps theirs.
            Loading always gives fp32.

    Returns:
        The folder.
    """
    root = Path(folder).expanduser()
    root.mkdir(parents=True, exist_ok=True)
    tensors = {name: _stored(tensor, dtype) for name, tensor in weights.items()}
    document = {
        **config,
        "denoiser": _plain(denoiser_spec),
        "dtype": "as given" if dtype is None else str(dtype).removeprefix("torch."),
        "weights_hash": weights_hash(tensors),
    }
    json.dumps(document)  # refuse what is not JSON before anything is replaced
    write_bytes(root / WEIGHTS_FILE, save(tensors))
    document["sha256"] = sha256_of(root / WEIGHTS_FILE)
    write_json(root / CONFIG_FILE, document)
    return root


def load_config(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the ``config.json`` of a model folder.

    Args:
        folder: as for ``resolve_folder``.

    Returns:
        The document: what ``save_model`` got as config, and ``denoiser``, ``sha256``, ``weights_hash``, ``dtype``.

    Raises:
        UserError: the folder or the file is missing, or the file is no such document.
    """
    root = resolve_folder(folder)
    if not root.is_dir():
        raise UserError(f"no model folder at {root}: give a folder that holds {CONFIG_FILE} and {WEIGHTS_FILE}")
    path = root / CONFIG_FILE
    if not path.is_file():
        raise UserError(f"{root} has no {CONFIG_FILE}: it is no model folder, or writing it was interrupted")
    document = read_json_object(path, "it does not describe a model")
    if not {"denoiser", "sha256"} <= document.keys():
        raise UserError(f"{path} lacks the entries 'denoiser' and 'sha256': it does not describe a model")
    return document


def load_model(folder: str | os.PathLike[str], kind: type[nn.Module] = Denoiser) -> tuple[Any, dict[str, Any]]:
    """Verify a model folder and build its denoiser, in fp32, on the CPU, in evaluation mode.

    Args:
        folder: as for ``resolve_folder``.
        kind: class that the network must belong to.

    Returns:
        The denoiser and the document of ``load_config``.

    Raises:
        UserError: something is missing, a byte changed, or the weights do not fit the described denoiser exactly.
    """
    root = resolve_folder(folder)
    document = load_config(root)
    path = root / WEIGHTS_FILE
    if not path.is_file():
        raise UserError(f"{root} has no {WEIGHTS_FILE}: copy the whole folder, or write the model again")
    if sha256_of(path) != document["sha256"]:
        raise UserError(
            f"{path} does not match the sha256 in {CONFIG_FILE}: the file is damaged, was replaced, or its writing was "
            "interrupted; copy or write the model again"
        )
    try:
        weights = load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is not a safetensors file ({error}): write the model again") from error
    network = build_network(document["denoiser"], weights, str(path), kind)
    return network, document


def build_network(
    spec: Mapping[str, Any], weights: Mapping[str, Tensor], what: str, kind: type[nn.Module] = Denoiser
) -> Any:
    """Build a network from trusted classes and load its weights strictly; in fp32, on the CPU, in evaluation mode.

    Args:
        spec: nested dict with ``_target_``.
        weights: state dict with exactly the network's names and shapes.
        what: the file or teacher, for messages.
        kind: class that the network must belong to.

    Raises:
        UserError: the description is refused, or the weights do not fit it.
    """
    own = all(target.startswith(TRUSTED_PREFIXES) for target in _targets(spec))
    # Building draws initial weights that the loaded ones replace; the caller's random state must not notice.
    with torch.random.fork_rng(devices=[]):
        network = _built_in_bounds(spec, weights, what, kind) if own else build(spec, allow=trusted_prefixes())
    _require(network, kind, what)
    load_strictly(network, weights, what)
    return network.float().eval()


def _built_in_bounds(spec: Mapping[str, Any], weights: Mapping[str, Tensor], what: str, kind: type[nn.Module]) -> Any:
    """Build a network of this package's classes, in no more memory than its weights justify.

    It is built without memory first, to compare names and shapes. Users' own classes do not come here: they may need
    real numbers or files while they are built, and the user trusts them.
    """
    with bounded_by(weights, what):
        try:
            with torch.device("meta"):
                network = build(spec, allow=TRUSTED_PREFIXES)
        except RuntimeError:
            network = None  # a constructor looks at numbers it has computed: they exist on a real device only
        if network is not None:
            _require(network, kind, what)
            _refuse_misfits(network, weights, what)
    with bounded_by(weights, what):
        try:
            return build(spec, allow=TRUSTED_PREFIXES)
        except (RuntimeError, ArithmeticError, LookupError, AttributeError, MemoryError) as error:
            raise UserError(f"{what}: the network described beside it cannot be built: {error}") from error


def _targets(spec: Any) -> Iterator[str]:
    """The classes that a description names."""
    if isinstance(spec, Mapping):
        if TARGET in spec:
            yield str(spec[TARGET])
        spec = list(spec.values())
    if isinstance(spec, (list, tuple)):
        for value in spec:
            yield from _targets(value)


def _require(network: Any, kind: type[nn.Module], what: str) -> None:
    if not isinstance(network, kind):
        wanted = "denoiser" if kind is Denoiser else "network"
        raise UserError(f"{what}: its description builds a {type(network).__name__}, not a {wanted}")


def save_decoder(folder: str | os.PathLike[str], spec: Mapping[str, Any], decoder: nn.Module) -> None:
    """Write the decoder of a latent model beside its denoiser, as the model folder ``<folder>/decoder``."""
    save_model(Path(folder) / DECODER_FOLDER, spec, decoder.state_dict(), {"kind": DECODER})


def load_decoder(folder: str | os.PathLike[str]) -> tuple[nn.Module | None, dict[str, Any] | None]:
    """The decoder beside a denoiser and its description, or (None, None) where the samples are no latents.

    Raises:
        UserError: as :func:`load_model`.
    """
    place = resolve_folder(folder) / DECODER_FOLDER
    if not place.is_dir():
        return None, None
    decoder, document = load_model(place, kind=nn.Module)
    return decoder.requires_grad_(False), document["denoiser"]


def misfits(expected: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> str:
    """Which names or shapes of ``weights`` are not those of ``expected``, the first five in words; empty if none."""
    problems = [f"missing {name}" for name in expected if name not in weights]
    problems += [f"unexpected {name}" for name in weights if name not in expected]
    problems += [
        f"{name} has shape {list(weights[name].shape)} instead of {list(tensor.shape)}"
        for name, tensor in expected.items()
        if name in weights and weights[name].shape != tensor.shape
    ]
    return "; ".join(problems[:5]) + (f"; and {len(problems) - 5} more" if len(problems) > 5 else "")


def load_strictly(module: nn.Module, weights: Mapping[str, Tensor], what: str) -> None:
    """Load weights whose names and shapes are exactly those of the module, or raise UserError."""
    _refuse_misfits(module, weights, what)
    module.load_state_dict(weights, strict=True)


def _refuse_misfits(module: nn.Module, weights: Mapping[str, Tensor], what: str) -> None:
    problems = misfits(module.state_dict(), weights)
    if problems:
        raise UserError(f"{what}: the weights do not fit the network that is described beside them: {problems}")


def _stored(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    """A private contiguous CPU copy; floating-point tensors in ``dtype`` if one is given."""
    target = dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype
    return tensor.detach().to("cpu", target).clone(memory_format=torch.contiguous_format)


def _plain(node: Any) -> Any:
    """Dicts, lists and scalars only: containers of a configuration library become JSON's."""
    if isinstance(node, Mapping):
        return {str(key): _plain(value) for key, value in node.items()}
    if isinstance(node, (str, int, float, bool)) or node is None:
        return node
    return [_plain(value) for value in node]
