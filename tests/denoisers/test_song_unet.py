"""SongUNet against the public checkpoints' sizes and an independent implementation's output."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch.nn import functional as F

from disback_cli.denoisers.edm import EDMDenoiser
from disback_cli.denoisers.layers import Conv2d, GroupNorm, Init, Linear
from disback_cli.denoisers.song_unet import SongUNet

VECTOR = Path(__file__).parent / "data" / "song_ddpmpp_uncond.safetensors"
NCSNPP: dict[str, Any] = {
    "embedding_type": "fourier",
    "encoder_type": "residual",
    "channel_mult_noise": 2,
    "resample_filter": [1, 3, 3, 1],
}
CIFAR: dict[str, Any] = {"img_resolution": 32, "channel_mult": [2, 2, 2]}
TINY: dict[str, Any] = {
    "model_channels": 16,
    "channel_mult": (1, 2),
    "num_blocks": 1,
    "attn_resolutions": (4,),
    "dropout": 0.0,
}


def vector() -> tuple[dict[str, torch.Tensor], dict]:
    """Tensors and constructor arguments of the test vector."""
    with safe_open(str(VECTOR), "pt") as stream:
        return {key: stream.get_tensor(key) for key in stream.keys()}, json.loads(stream.metadata()["config"])  # noqa: SIM118


def tiny(seed: int = 0, **options) -> SongUNet:
    """A small 8x8 network whose last layers are not near zero, so that every parameter matters."""
    torch.manual_seed(seed)
    network = SongUNet(8, 1, 1, **(TINY | options))
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith(("conv1.weight", "proj.weight", "aux_conv.weight")):
                parameter.normal_(std=0.1)
    return network.eval()


@pytest.mark.parametrize(
    ("options", "parameters", "tensors"),
    [
        (CIFAR, 55_733_891, 417),
        (CIFAR | {"label_dim": 10}, 55_735_299, 419),
        (CIFAR | NCSNPP, 56_397_827, None),
        (CIFAR | NCSNPP | {"label_dim": 10}, 56_400_643, None),
        ({"img_resolution": 64}, 61_805_571, 541),
        ({"img_resolution": 64} | NCSNPP, 62_761_091, None),
    ],
)
def test_sizes_of_the_public_networks(options, parameters, tensors):
    with torch.device("meta"):
        network = SongUNet(in_channels=3, out_channels=3, augment_dim=9, **options)
    assert sum(p.numel() for p in network.parameters()) == parameters
    if tensors is not None:
        assert len(list(network.parameters())) == tensors


def test_state_dict_of_the_public_cifar_network():
    """The eight filter buffers are in it, the positional frequencies are not, and the names are the public ones."""
    with torch.device("meta"):
        denoiser = EDMDenoiser(SongUNet(in_channels=3, out_channels=3, augment_dim=9, **CIFAR), (3, 32, 32))
        ncsnpp = SongUNet(in_channels=3, out_channels=3, **CIFAR, **NCSNPP)
    names = set(denoiser.state_dict())
    assert sum(name.endswith("resample_filter") for name in names) == 8 and len(names) == 417 + 8
    assert {
        "model.map_layer0.weight",
        "model.map_augment.weight",
        "model.enc.32x32_conv.bias",
        "model.enc.16x16_down.skip.resample_filter",
        "model.enc.16x16_block3.qkv.weight",
        "model.dec.8x8_in0.proj.bias",
        "model.dec.32x32_up.conv0.weight",
        "model.dec.16x16_block4.norm2.weight",
        "model.dec.32x32_aux_norm.weight",
        "model.dec.32x32_aux_conv.weight",
    } <= names
    assert {"map_noise.freqs", "enc.8x8_aux_residual.weight", "enc.8x8_aux_residual.resample_filter"} <= set(
        ncsnpp.state_dict()
    )


def test_output_of_an_independent_implementation():
    tensors, config = vector()
    resolution, channels = config.pop("img_resolution"), config.pop("img_channels")
    assert config.pop("model_type") == "SongUNet" and config.pop("preconditioning") == "edm"
    denoiser = EDMDenoiser(SongUNet(resolution, channels, channels, **config), (channels, resolution, resolution))
    denoiser.load_state_dict({k[2:]: v for k, v in tensors.items() if k.startswith("w.")}, strict=True)
    with torch.no_grad():
        ours = denoiser.eval()(tensors["x"], tensors["sigma"])
        skip_only = tensors["x"] * (0.25 / (tensors["sigma"] ** 2 + 0.25)).view(-1, 1, 1, 1)
    error = (ours - tensors["D"]).flatten(1).norm(dim=1)
    # Relative to the network's own share of the output: at small sigma the skip connection dominates the whole.
    assert bool((error <= 1e-5 * (tensors["D"] - skip_only).flatten(1).norm(dim=1)).all())


@pytest.mark.parametrize("options", [{}, NCSNPP])
def test_every_parameter_gets_a_gradient(options):
    network = tiny(label_dim=3, augment_dim=2, **options)
    torch.manual_seed(1)
    x, noise, labels = torch.randn(2, 1, 8, 8), torch.tensor([0.1, -0.7]), torch.eye(3)[:2]
    network(x, noise, labels, torch.randn(2, 2)).square().sum().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_augment_labels_of_none_equal_zeros():
    network = tiny(augment_dim=9)
    x, noise = torch.randn(2, 1, 8, 8), torch.tensor([0.1, -0.7])
    assert torch.equal(network(x, noise), network(x, noise, None, torch.zeros(2, 9)))
    assert not torch.equal(network(x, noise), network(x, noise, None, torch.ones(2, 9)))
    with pytest.raises(ValueError, match="augment_dim=0"):
        tiny()(x, noise, None, torch.zeros(2, 9))


def test_dropout_and_label_dropout_act_only_in_training():
    x, noise, labels = torch.randn(2, 1, 8, 8), torch.tensor([0.1, -0.7]), torch.eye(3)[:2]
    dropping = tiny(dropout=0.5)
    assert torch.equal(dropping(x, noise), dropping(x, noise))
    dropping.train()
    assert not torch.equal(dropping(x, noise), dropping(x, noise))
    labelled = tiny(label_dim=3, label_dropout=1.0)
    assert not torch.equal(labelled(x, noise, labels), labelled(x, noise, 0 * labels))
    labelled.train()
    assert torch.equal(labelled(x, noise, labels), labelled(x, noise, 0 * labels))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"embedding_type": "sine"}, "positional, fourier"),
        ({"encoder_type": "skip"}, "standard, residual"),
        ({"decoder_type": "skip"}, "valid are standard"),
        ({"channel_mult": (1, 1, 1, 1, 1)}, "5 levels"),
        ({"model_channels": 3}, "cannot be normalised"),
    ],
)
def test_refuses_what_it_cannot_build(options, message):
    with pytest.raises(ValueError, match=message):
        tiny(**options)


def test_edm_denoiser_refuses_wrong_labels_and_shapes():
    conditional = EDMDenoiser(tiny(label_dim=3), (1, 8, 8), label_dim=3)
    x, sigma = torch.randn(2, 1, 8, 8), torch.tensor([0.5, 2.0])
    with pytest.raises(ValueError, match="labels are missing"):
        conditional(x, sigma)
    with pytest.raises(ValueError, match="one-hot"):
        conditional(x, sigma, torch.zeros(2, 4))
    with pytest.raises(ValueError, match="made for"):
        conditional(x[..., :4], sigma, torch.eye(3)[:2])
    with pytest.raises(ValueError, match="label_dim=3"):
        EDMDenoiser(tiny(label_dim=3), (1, 8, 8))
    zeros = conditional(x, sigma, torch.zeros(2, 3))
    assert zeros.shape == x.shape and not torch.equal(zeros, conditional(x, sigma, torch.eye(3)[:2]))


@pytest.mark.parametrize(("up", "down"), [(True, False), (False, True)])
@pytest.mark.parametrize("kernel", [0, 1, 3])
def test_box_filter_shortcuts_equal_the_filter_itself(up, down, kernel):
    """Pooling and repetition stand in for the two-tap filter; the general path must give the same."""
    torch.manual_seed(0)
    layer = Conv2d(4, 4, kernel, up=up, down=down, init=Init(bias=1.0))
    x = torch.randn(2, 4, 6, 6)
    fast = layer(x)
    layer.box = False
    assert fast.shape[-1] == (12 if up else 3)
    torch.testing.assert_close(fast, layer(x))


def test_long_filter_keeps_a_constant_image():
    """The filter is normalised: away from the zero-padded border, a constant passes both ways."""
    x = torch.ones(1, 2, 8, 8)
    for layer in (Conv2d(2, 2, 0, up=True, resample_filter=[1, 3, 3, 1]), Conv2d(2, 2, 0, True, False, [1, 3, 3, 1])):
        torch.testing.assert_close(layer(x)[..., 2:-2, 2:-2], torch.ones(1, 2, 12, 12))
    down = Conv2d(2, 2, 0, down=True, resample_filter=[1, 3, 3, 1])
    torch.testing.assert_close(down(x)[..., 1:-1, 1:-1], torch.ones(1, 2, 2, 2))


def test_fused_convolution_equals_filtering_the_padded_convolution():
    torch.manual_seed(0)
    layer = Conv2d(3, 5, 3, down=True, resample_filter=[1, 3, 3, 1], fused=True, init=Init(bias=1.0))
    x = torch.randn(2, 3, 8, 8)
    assert layer.weight is not None and layer.bias is not None and layer.resample_filter is not None
    wide = F.conv2d(x, layer.weight, padding=2)
    expected = torch.stack([F.conv2d(wide[:, [c]], layer.resample_filter, stride=2)[:, 0] for c in range(5)], dim=1)
    torch.testing.assert_close(layer(x), expected + layer.bias[:, None, None])


@pytest.mark.parametrize(
    "arguments",
    [
        {"kernel": 2},
        {"kernel": 0, "out_channels": 8},
        {"kernel": 3, "up": True, "down": True},
        {"kernel": 1, "down": True, "fused": True},
        {"kernel": 3, "up": True, "resample_filter": [1, 2, 1]},
    ],
)
def test_convolution_refuses_contradictions(arguments):
    with pytest.raises(ValueError):
        Conv2d(**({"in_channels": 4, "out_channels": 4} | arguments))


def test_initialisation_scales():
    """Xavier and Kaiming laws by their variance; factors of 0 give zeros."""
    torch.manual_seed(0)
    xavier = Linear(400, 100)
    assert xavier.weight.std().item() == pytest.approx((2 / 500) ** 0.5, rel=0.02)
    assert xavier.bias is not None and not xavier.bias.any()
    uniform = Conv2d(16, 64, 3, init=Init("kaiming_uniform", (1 / 3) ** 0.5, (1 / 3) ** 0.5))
    assert uniform.weight is not None and uniform.bias is not None
    assert uniform.weight.std().item() == pytest.approx((1 / 3 / 144) ** 0.5, rel=0.02)
    assert uniform.weight.abs().max().item() <= (1 / 144) ** 0.5 and bool(uniform.bias.any())
    normal = Linear(400, 100, init=Init("kaiming_normal", 2.0))
    assert normal.weight.std().item() == pytest.approx(2 / 20, rel=0.02)
    network = SongUNet(8, 1, 1, **TINY)
    assert 0 < network.dec["8x8_aux_conv"].weight.abs().max() < 1e-5
    with pytest.raises(ValueError, match="xavier_uniform"):
        Init("orthogonal")


@pytest.mark.parametrize(("channels", "groups"), [(8, 2), (64, 16), (256, 32)])
def test_group_norm_groups(channels, groups):
    x = torch.randn(2, channels, 3, 3)
    torch.testing.assert_close(GroupNorm(channels, 1e-6)(x), F.group_norm(x, groups, eps=1e-6))
