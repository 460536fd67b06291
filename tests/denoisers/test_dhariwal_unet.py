"""DhariwalUNet (ADM) against the public checkpoint's size and an independent implementation's output."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from disback_cli.denoisers.dhariwal_unet import DhariwalUNet
from disback_cli.denoisers.edm import EDMDenoiser

VECTOR = Path(__file__).parent / "data" / "adm_cond.safetensors"


def tiny(**options) -> DhariwalUNet:
    """A small 8x8 network whose zero-initialised layers are filled, so that every parameter matters."""
    torch.manual_seed(0)
    sizes = {"model_channels": 32, "channel_mult": (1, 2), "num_blocks": 1, "attn_resolutions": (4,), "dropout": 0.0}
    network = DhariwalUNet(8, 1, 1, **(sizes | options))
    with torch.no_grad():
        for parameter in network.parameters():
            if not parameter.any():
                parameter.normal_(std=0.1)
    return network.eval()


def test_size_and_names_of_the_public_network():
    with torch.device("meta"):
        denoiser = EDMDenoiser(DhariwalUNet(64, 3, 3, label_dim=1000), (3, 64, 64), label_dim=1000)
    assert sum(p.numel() for p in denoiser.parameters()) == 295_899_267
    assert len(list(denoiser.parameters())) == 541
    names = set(denoiser.state_dict())
    # Two resampling convolutions in each of three downward and three upward blocks.
    assert sum(name.endswith("resample_filter") for name in names) == 12 and len(names) == 541 + 12
    assert {
        "model.map_layer0.bias",
        "model.map_layer1.weight",
        "model.map_label.weight",
        "model.enc.64x64_conv.bias",
        "model.enc.32x32_down.skip.resample_filter",
        "model.enc.64x64_block0.affine.weight",
        "model.enc.8x8_block2.qkv.weight",
        "model.dec.8x8_in0.proj.bias",
        "model.dec.32x32_block3.norm2.weight",
        "model.dec.64x64_up.conv0.resample_filter",
        "model.dec.64x64_block3.skip.weight",
        "model.out_norm.weight",
        "model.out_conv.bias",
    } <= names
    assert not any(word in name for name in names for word in ("map_augment", "map_label.bias", "64x64_block0.qkv"))


def test_output_of_an_independent_implementation():
    with safe_open(str(VECTOR), "pt") as stream:
        tensors = {key: stream.get_tensor(key) for key in stream.keys()}  # noqa: SIM118
        config = json.loads(stream.metadata()["config"])
    resolution, channels = config.pop("img_resolution"), config.pop("img_channels")
    assert config.pop("model_type") == "DhariwalUNet" and config.pop("preconditioning") == "edm"
    network = DhariwalUNet(resolution, channels, channels, **config)
    denoiser = EDMDenoiser(network, (channels, resolution, resolution), label_dim=config["label_dim"])
    denoiser.load_state_dict({k[2:]: v for k, v in tensors.items() if k.startswith("w.")}, strict=True)
    with torch.no_grad():
        ours = denoiser.eval()(tensors["x"], tensors["sigma"], tensors["labels"])
        skip_only = tensors["x"] * (0.25 / (tensors["sigma"] ** 2 + 0.25)).view(-1, 1, 1, 1)
    error = (ours - tensors["D"]).flatten(1).norm(dim=1)
    # Relative to the network's own share of the output: at small sigma the skip connection dominates the whole.
    assert bool((error <= 1e-5 * (tensors["D"] - skip_only).flatten(1).norm(dim=1)).all())


def test_labels_and_augmentation_labels():
    network = tiny(label_dim=3, augment_dim=2)
    x, noise, labels = torch.randn(2, 1, 8, 8), torch.tensor([0.1, -0.7]), torch.eye(3)[:2]
    plain = network(x, noise, labels)
    assert torch.equal(plain, network(x, noise, labels, torch.zeros(2, 2)))
    assert not torch.equal(plain, network(x, noise, labels, torch.ones(2, 2)))
    assert not torch.equal(plain, network(x, noise, labels.flip(0)))
    with pytest.raises(ValueError, match="one-hot"):
        network(x, noise)
    with pytest.raises(ValueError, match="augment_dim=0"):
        tiny()(x, noise, None, torch.zeros(2, 9))


def test_label_dropout_acts_only_in_training():
    network = tiny(label_dim=3, label_dropout=1.0)
    x, noise, labels = torch.randn(2, 1, 8, 8), torch.tensor([0.1, -0.7]), torch.eye(3)[:2]
    assert not torch.equal(network(x, noise, labels), network(x, noise, 0 * labels))
    network.train()
    assert torch.equal(network(x, noise, labels), network(x, noise, 0 * labels))


def test_initialisation():
    """The residual branches and the output start at zero, so a fresh network adds nothing to the skip connection."""
    torch.manual_seed(0)
    network = DhariwalUNet(8, 1, 1, label_dim=400, model_channels=64, channel_mult=(1,), num_blocks=1)
    assert not network(torch.randn(2, 1, 8, 8), torch.zeros(2), torch.eye(400)[:2]).any()
    assert network.map_label is not None
    assert network.map_label.weight.std().item() == pytest.approx(1, rel=0.02)
    assert network.map_layer1.weight.std().item() == pytest.approx((1 / 3 / 256) ** 0.5, rel=0.02)
    block = network.enc["8x8_block0"]
    assert not block.conv1.weight.any() and not block.proj.bias.any() and bool(block.qkv.bias.any())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channel_mult": (1, 1, 1, 1, 1)}, "5 levels"),
        ({"channel_mult": ()}, "0 levels"),
        ({"model_channels": 48, "channel_mult": (1, 1)}, "attention heads of 64"),
    ],
)
def test_refuses_what_it_cannot_build(options, message):
    with pytest.raises(ValueError, match=message):
        tiny(**options)
