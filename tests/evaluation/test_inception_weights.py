"""Weights of the Inception network from files of both kinds, and from others that must be refused."""

from __future__ import annotations

import logging
import sys
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from disback_cli.errors import UserError
from disback_cli.evaluation.features import InceptionFeatures
from disback_cli.evaluation.inception import ConvNormRelu, Inception2015
from disback_cli.evaluation.inception_weights import load_inception

sys.path.append(str(Path(__file__).parents[1] / "denoisers"))

from nvidia_files import PersistentObject, dump  # noqa: E402

Layers = list[tuple[str, dict[str, Tensor], dict[str, Tensor]]]


@pytest.fixture(scope="module")
def network() -> Inception2015:
    """Random weights; the normalisations as a trained network has them, without gamma."""
    torch.manual_seed(0)
    made = Inception2015()
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.bias.data.normal_(std=0.1)
            module.running_mean.normal_(std=0.1)  # type: ignore[union-attr, operator]
            module.running_var.uniform_(0.5, 2.0)  # type: ignore[union-attr, operator]
    return made


@pytest.fixture(scope="module")
def layers(network: Inception2015) -> Layers:
    """Name, parameters and buffers of each layer in the order of TensorFlow's graph."""
    found: Layers = []
    for name, module in network.named_modules():
        if isinstance(module, ConvNormRelu):
            bn = module.bn
            assert bn.running_mean is not None and bn.running_var is not None
            parameters = {"weight": module.conv.weight.data, "beta": bn.bias.data}
            found.append((name.replace(".", "_"), parameters, {"mean": bn.running_mean, "var": bn.running_var}))
    found.append(("output", {"weight": network.fc.weight.data, "bias": network.fc.bias.data}, {}))
    return found


def write_pickle(path: Path, layers: Layers) -> Path:
    """A pickle of persistent objects, one for each layer."""

    def state(
        parameters: dict[str, Tensor], buffers: dict[str, Tensor], modules: dict[str, object]
    ) -> dict[str, object]:
        return {
            "_parameters": OrderedDict((name, nn.Parameter(value)) for name, value in parameters.items()),
            "_buffers": OrderedDict(buffers),
            "_modules": OrderedDict(modules),
            "_init_args": (),
            "_init_kwargs": {},
        }

    children: dict[str, object] = {
        name: PersistentObject("Conv2dLayer", state(parameters, buffers, {})) for name, parameters, buffers in layers
    }
    path.write_bytes(dump(PersistentObject("InceptionV3", state({}, {}, children))))
    return path


@pytest.fixture(scope="module")
def nvidia_file(layers: Layers, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pickle(tmp_path_factory.mktemp("nvidia") / "inception-v3-2015-12-05.pkl", layers)


def test_both_files_are_the_same_network(
    network: Inception2015, nvidia_file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        read, sha256 = load_inception(nvidia_file)
    assert "order of the file" in caplog.text and "compares with no published figure" in caplog.text
    assert all(torch.equal(value, read.state_dict()[name]) for name, value in network.state_dict().items())
    torch.save(network.state_dict(), tmp_path / "public.pth")
    assert load_inception(tmp_path / "public.pth")[1] == sha256, "the hash is that of the weights"
    state = network.state_dict()
    state["Mixed_7c.branch_pool.bn.running_var"] = state["Mixed_7c.branch_pool.bn.running_var"] * 1.001
    torch.save(state, tmp_path / "changed.pth")
    assert load_inception(tmp_path / "changed.pth")[1] != sha256
    images = torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8)
    both = [InceptionFeatures(weights=file)(images)[0] for file in (nvidia_file, tmp_path / "public.pth")]
    assert torch.equal(*both) and both[0].std() > 0


def _two_layers_exchanged(layers: Layers) -> Layers:
    return [layers[0], layers[2], layers[1], *layers[3:]]


def _with_gammas(layers: Layers) -> Layers:
    return [
        (name, {**parameters, "gamma": parameters["beta"]} if "beta" in parameters else parameters, buffers)
        for name, parameters, buffers in layers
    ]


def _mean_and_variance_exchanged(layers: Layers) -> Layers:
    return [(name, parameters, dict(reversed(buffers.items()))) for name, parameters, buffers in layers]


def _renamed_and_exchanged(layers: Layers) -> Layers:
    return [
        (name, parameters, {"a": buffers["var"], "b": buffers["mean"]} if buffers else {})
        for name, parameters, buffers in layers
    ]


FAULTS: dict[str, tuple[Callable[[Layers], Layers], str]] = {
    "order": (
        _two_layers_exchanged,
        r"tensor 5, Conv2d_2b_3x3.weight, is \[64, 32, 3, 3\] instead of \[32, 32, 3, 3\] for Conv2d_2a_3x3.conv",
    ),
    "gamma": (_with_gammas, "Conv2d_1a_3x3.mean, stands where var is expected"),
    "names": (_mean_and_variance_exchanged, "Conv2d_1a_3x3.var, stands where mean is expected"),
    "variance": (_renamed_and_exchanged, "Conv2d_1a_3x3.b, holds negative numbers, which is no variance"),
    "short": (lambda layers: layers[:-1], r"it holds 376 tensors instead of 378"),
    "long": (lambda layers: [*layers, ("more", {"weight": torch.zeros(3)}, {})], "it holds 379 tensors"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_another_network_is_refused_with_the_first_difference(fault: str, layers: Layers, tmp_path: Path) -> None:
    change, message = FAULTS[fault]
    path = write_pickle(tmp_path / "other.pkl", change(layers))
    with pytest.raises(UserError, match=message):
        load_inception(path)


def test_a_program_is_not_executed(tmp_path: Path) -> None:
    torch.jit.script(nn.Linear(2, 2)).save(str(tmp_path / "inception-2015-12-05.pt"))
    with pytest.raises(UserError, match="TorchScript program: to read it is to execute it"):
        load_inception(tmp_path / "inception-2015-12-05.pt")


def test_a_damaged_pickle_is_refused(nvidia_file: Path, tmp_path: Path) -> None:
    (tmp_path / "half.pkl").write_bytes(nvidia_file.read_bytes()[:100_000])
    with pytest.raises(UserError, match="half.pkl"):
        load_inception(tmp_path / "half.pkl")
