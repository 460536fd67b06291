"""Reading the weights of the 2015-12-05 Inception from the files that people have, without executing anything.

Two files are known: the public conversion ``pt_inception-2015-12-05-6726825d.pth`` (torch-fidelity's
``weights-inception-2015-12-05-6726825d.pth`` is the same file), and NVIDIA's ``inception-v3-2015-12-05.pkl``.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from disback_cli.denoisers.torch_files import load_tensors
from disback_cli.errors import UserError
from disback_cli.evaluation.inception import ConvNormRelu, Inception2015
from disback_cli.files import sha256_of

log = logging.getLogger(__name__)

PUBLIC_FILE = "pt_inception-2015-12-05-6726825d.pth"
PUBLIC_SHA256_PREFIX = "6726825d"
NVIDIA_FILE = "inception-v3-2015-12-05.pkl"
_ADVICE = f"put {PUBLIC_FILE} or {NVIDIA_FILE} on this machine and give metrics.extractor.weights=PATH"


def load_inception(weights: str | Path | None) -> tuple[Inception2015, str]:
    """The network with the weights of a file, and the sha256 of the weights (64 hex digits).

    The hash is that of the tensors, so the same weights have the same hash whatever file they came from.

    Raises:
        UserError: no file, or one with anything but exactly this network in it.
    """
    if weights is None:
        raise UserError(f"the Inception extractor needs its weights: {_ADVICE} (nothing is downloaded)")
    path = Path(weights).expanduser()
    if not path.is_file():
        raise UserError(f"no Inception weights at {path}: {_ADVICE} (nothing is downloaded)")
    network = Inception2015()
    state: Mapping[str, Tensor]
    if path.suffix == ".pkl":
        state = from_nvidia_order(_nvidia_tensors(path), network, path)
        log.warning(
            "%s: tensors taken in the order of the file, where their shapes fit the 2015-12-05 Inception; no published "
            "file was at hand to check the order with, so until a known figure has come out of it, its FID compares "
            "with no published figure", path,
        )  # fmt: skip
    else:
        state = _torch_tensors(path)
        if not sha256_of(path).startswith(PUBLIC_SHA256_PREFIX):
            log.warning(
                "%s is not the published file (its sha256 does not begin with %s): its FID compares with no published "
                "figure", path, PUBLIC_SHA256_PREFIX,
            )  # fmt: skip
    _load_strictly(network, state, path)
    return network, _content_hash(network)


def _torch_tensors(path: Path) -> Mapping[str, Tensor]:
    """The tensors of a file that torch.save wrote."""
    try:
        state = load_tensors(path, advice="")
    except UserError as error:
        raise UserError(f"not a file of torch tensors: {str(error).strip()}; {_ADVICE}") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{path} holds no table of tensors; expected {PUBLIC_FILE}")
    return state


def _nvidia_tensors(path: Path) -> dict[str, Tensor]:
    from disback_cli.denoisers.pickles.nvidia import flat_tensors, read_object

    try:
        return flat_tensors(read_object(path))
    except UserError as error:
        raise UserError(f"{path} is damaged, or no Inception network in NVIDIA's layout; {_ADVICE}") from error


def from_nvidia_order(tensors: Mapping[str, Tensor], network: Inception2015, path: Path) -> dict[str, Tensor]:
    """The state of `network` from tensors in the order in which TensorFlow's graph defines the network.

    That order is: the five convolutions of the stem, then block after block its branches (1x1, tower, tower_1,
    tower_2), of each convolution the kernel [out, in, height, width] and the beta, mean and variance [out] of its
    normalisation, which has no gamma; last the classifier's weight [1008, 2048] and bias. Names play no part beyond a
    check: one that ends in beta, mean or var must stand where the order says. This has been checked on files made in
    that layout only; NVIDIA's own was not at hand.

    Raises:
        UserError: another number of tensors, another shape or another kind at any place; the first is named.
    """
    wanted = list(_graph_order(network))
    found = [(name, value) for name, value in tensors.items() if not name.endswith("num_batches_tracked")]
    for place, ((kind, key, shape), (name, value)) in enumerate(zip(wanted, found, strict=False), start=1):
        problem = _mismatch(kind, shape, name, value)
        if problem:
            raise UserError(
                f"{path} is not the 2015-12-05 Inception ({NVIDIA_FILE}): tensor {place}, {name}, {problem} for {key}; "
                f"{_ADVICE}"
            )
    if len(found) != len(wanted):
        raise UserError(
            f"{path} is not the 2015-12-05 Inception ({NVIDIA_FILE}): it holds {len(found)} tensors instead of "
            f"{len(wanted)}; {_ADVICE}"
        )
    state = {key: value.float() for (_, key, _), (_, value) in zip(wanted, found, strict=True)}
    gammas = {f"{name}.bn.weight": module.bn.weight for name, module in _convolutions(network)}
    return state | {key: torch.ones_like(value) for key, value in gammas.items()}


def _convolutions(network: Inception2015) -> Iterator[tuple[str, ConvNormRelu]]:
    """The convolutions in the order of definition, which is that of TensorFlow's graph."""
    for name, module in network.named_modules():
        if isinstance(module, ConvNormRelu):
            yield name, module


def _graph_order(network: Inception2015) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """What stands at each place of the file: the kind of tensor, our name for it and its shape."""
    for name, module in _convolutions(network):
        out = (module.conv.out_channels,)
        yield "weight", f"{name}.conv.weight", tuple(module.conv.weight.shape)
        yield "beta", f"{name}.bn.bias", out
        yield "mean", f"{name}.bn.running_mean", out
        yield "var", f"{name}.bn.running_var", out
    yield "weight", "fc.weight", tuple(network.fc.weight.shape)
    yield "bias", "fc.bias", tuple(network.fc.bias.shape)


def _mismatch(kind: str, shape: tuple[int, ...], name: str, value: Tensor) -> str | None:
    """What is wrong with a tensor at a place where `kind` of `shape` is expected; None if nothing is."""
    if tuple(value.shape) != shape:
        return f"is {list(value.shape)} instead of {list(shape)}"
    for word in ("beta", "mean", "var"):
        if name.endswith(word) and kind != word:
            return f"stands where {kind} is expected"
    # The three vectors of a normalisation have one shape; only a variance is never negative.
    if kind == "var" and bool((value < 0).any()):
        return "holds negative numbers, which is no variance"
    return None


def _load_strictly(network: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Load `state` if it has exactly the network's names and shapes; UserError naming those that differ otherwise."""
    wanted = network.state_dict()
    # The step counters of batch normalisation play no part in evaluation, and conversions differ in keeping them.
    found = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
    needed = {key for key in wanted if not key.endswith("num_batches_tracked")}
    differences = [f"missing {key}" for key in sorted(needed - found.keys())]
    differences += [f"unexpected {key}" for key in sorted(found.keys() - needed)]
    differences += [
        f"{key} is {list(found[key].shape)}, not {list(wanted[key].shape)}"
        for key in sorted(needed & found.keys())
        if found[key].shape != wanted[key].shape
    ]
    if differences:
        shown = "; ".join(differences[:6]) + (f"; and {len(differences) - 6} more" if len(differences) > 6 else "")
        raise UserError(f"{path} is not the 2015-12-05 Inception ({PUBLIC_FILE}): {shown}")
    network.load_state_dict({**wanted, **found}, strict=True)


def _content_hash(network: Inception2015) -> str:
    """Sha256 of names and float32 values of all tensors that the file brought."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        if not name.endswith("num_batches_tracked"):
            digest.update(f"{name}{tuple(value.shape)}".encode())
            digest.update(value.float().contiguous().numpy().data.cast("B"))
    return digest.hexdigest()
