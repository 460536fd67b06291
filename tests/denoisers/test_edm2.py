"""EDM2 against the paper's published sizes and the properties its layers are named after."""

import pytest
import torch
from torch import Tensor

from disback_cli.denoisers.edm2 import EDM2Denoiser, EDM2UNet
from disback_cli.denoisers.edm2_layers import (
    MPBlock,
    MPBlockSettings,
    MPConv,
    MPFourier,
    mp_cat,
    mp_silu,
    mp_sum,
    normalize,
)

SIZES = {"model_channels": 64, "channel_mult": (1, 2), "num_blocks": 1, "attn_resolutions": (8,)}


def tiny(**options) -> EDM2UNet:
    """A 16x16 network with three classes whose gains are not zero."""
    torch.manual_seed(0)
    network = EDM2UNet(16, 3, 3, **(SIZES | options))
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("_gain"):
                parameter.fill_(1.0 if name == "out_gain" else 0.3)
    return network.eval()


def inputs(batch: int = 8) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(batch, generator=generator)
    return torch.randn(batch, 3, 16, 16, generator=generator), noise, torch.eye(3)[torch.arange(batch) % 3]


def magnitude(x: Tensor) -> float:
    return x.square().mean().sqrt().item()


@pytest.mark.parametrize(
    ("channels", "millions"), [(128, 125), (192, 280), (256, 498), (320, 777), (384, 1119), (448, 1523)]
)
def test_sizes_of_the_public_networks(channels, millions):
    """XS to XXL of the paper's table of results."""
    with torch.device("meta"):
        denoiser = EDM2Denoiser(EDM2UNet(64, 3, 1000, model_channels=channels), (3, 64, 64), 1000)
    assert round(sum(p.numel() for p in denoiser.parameters()) / 1e6) == millions


def test_state_dict():
    """Names and shapes of all parts; vectors and numbers where the public files have them."""
    denoiser = EDM2Denoiser(tiny(), (3, 16, 16), 3)
    shapes = {name: tuple(tensor.shape) for name, tensor in denoiser.state_dict().items()}
    block = {"emb_gain", "conv_res0.weight", "emb_linear.weight", "conv_res1.weight"}
    attention, skip = {"attn_qkv.weight", "attn_proj.weight"}, {"conv_skip.weight"}
    members = {
        "enc.16x16_conv": {"weight"},
        "enc.16x16_block0": block,
        "enc.8x8_down": block,
        "enc.8x8_block0": block | attention | skip,
        "dec.8x8_in0": block | attention,
        "dec.8x8_in1": block,
        "dec.8x8_block0": block | attention | skip,
        "dec.8x8_block1": block | attention | skip,
        "dec.16x16_up": block,
        "dec.16x16_block0": block | skip,
        "dec.16x16_block1": block | skip,
        "emb_fourier": {"freqs", "phases"},
        "emb_noise": {"weight"},
        "emb_label": {"weight"},
        "out_conv": {"weight"},
    }
    expected = {f"unet.{part}.{name}" for part, names in members.items() for name in names}
    assert set(shapes) == expected | {
        "unet.out_gain",
        "logvar_fourier.freqs",
        "logvar_fourier.phases",
        "logvar_linear.weight",
    }
    assert shapes["unet.out_gain"] == shapes["unet.enc.8x8_down.emb_gain"] == ()
    assert shapes["unet.enc.16x16_conv.weight"] == (64, 4, 3, 3)
    assert shapes["unet.emb_noise.weight"] == (128, 64) and shapes["unet.emb_label.weight"] == (128, 3)
    # An encoder block's branch starts behind its shortcut's convolution, a decoder block's before it.
    assert shapes["unet.enc.8x8_block0.conv_res0.weight"] == (128, 128, 3, 3)
    assert shapes["unet.dec.8x8_block1.conv_res0.weight"] == (128, 128 + 64, 3, 3)
    assert shapes["logvar_linear.weight"] == (1, 128)


def test_layers_preserve_magnitude():
    torch.manual_seed(0)
    a, b = torch.randn(64, 48, 16, 16), torch.randn(64, 16, 16, 16)
    same = torch.randn_like(a)
    assert magnitude(mp_silu(a)) == pytest.approx(1, rel=0.01)
    for t in (0.1, 0.5, 0.8):
        assert magnitude(mp_sum(a, same, t)) == pytest.approx(1, rel=0.01)
        assert magnitude(mp_cat(a, b, t)) == pytest.approx(1, rel=0.01)
    # At 0.5 both inputs contribute equally although one has three times the channels.
    both = mp_cat(a, b, 0.5)
    assert both[:, :48].square().sum() == pytest.approx(both[:, 48:].square().sum().item(), rel=0.02)
    assert magnitude(MPFourier(256)(torch.randn(512))) == pytest.approx(1, rel=0.02)
    assert magnitude(MPConv(48, 256, 1)(a)) == pytest.approx(1, rel=0.02)
    assert magnitude(MPConv(48, 256)(a[:, :, 0, 0])) == pytest.approx(1, rel=0.05)
    inner = MPConv(48, 256, 3)(a)[..., 1:-1, 1:-1]
    assert magnitude(inner) == pytest.approx(1, rel=0.02)
    pixels = normalize(10 * a, dim=1).square().mean(dim=1)
    torch.testing.assert_close(pixels, torch.ones_like(pixels), rtol=1e-3, atol=0)


@torch.no_grad()
def test_a_fresh_network_preserves_magnitude():
    """No activation grows or dies through the network; attention averages, hence loses a little."""
    network = tiny(num_blocks=3)
    seen: dict[str, float] = {}
    for part, layers in (("enc", network.enc), ("dec", network.dec)):
        for name, layer in layers.items():
            layer.register_forward_hook(lambda *a, key=f"{part}.{name}": seen.update({key: magnitude(a[2])}))
    out = network(*inputs())
    assert len(seen) == len(network.enc) + len(network.dec)
    assert all(0.75 < value < 1.15 for value in seen.values()), seen
    assert 0.75 < magnitude(out) < 1.15


@torch.no_grad()
def test_outputs_do_not_depend_on_the_magnitude_of_the_weights():
    network = tiny()
    before = network(*inputs())
    for module in network.modules():
        if isinstance(module, MPConv):
            module.weight.mul_(20 * torch.rand(module.out_channels, *[1] * (module.weight.ndim - 1)) + 1)
    torch.testing.assert_close(network(*inputs()), before, rtol=5e-3, atol=5e-3)


@torch.no_grad()
def test_projection_keeps_outputs_and_gives_unit_weights():
    denoiser = EDM2Denoiser(tiny(), (3, 16, 16), 3)
    x, _, labels = inputs()
    sigma = torch.linspace(0.1, 5, len(x))
    for parameter in denoiser.parameters():
        if parameter.ndim > 1:
            parameter.mul_(3)
    before = denoiser(x, sigma, labels)
    gains = {name: p.clone() for name, p in denoiser.named_parameters() if name.endswith("gain")}
    denoiser.constrain_()
    torch.testing.assert_close(denoiser(x, sigma, labels), before, rtol=2e-3, atol=2e-3)
    for name, parameter in denoiser.named_parameters():
        if name in gains:
            assert torch.equal(parameter, gains[name])
        else:
            rows = parameter.flatten(1).square().mean(dim=1).sqrt()
            torch.testing.assert_close(rows, torch.ones_like(rows), rtol=1e-3, atol=0)


def test_gradient_is_orthogonal_to_the_weights():
    """Normalising inside the forward pass takes the radial part out of the gradient, for each output channel."""
    torch.manual_seed(0)
    layer = MPConv(8, 16, 3)
    layer(torch.randn(4, 8, 6, 6)).pow(3).sum().backward()
    assert layer.weight.grad is not None
    radial = (layer.weight * layer.weight.grad).flatten(1).sum(dim=1)
    size = layer.weight.flatten(1).norm(dim=1) * layer.weight.grad.flatten(1).norm(dim=1)
    assert bool((radial.abs() < 1e-3 * size).all())


@torch.no_grad()
def test_attention_is_the_softmax_of_cosines():
    """Spelled out query by query; channels 3c, 3c + 1 and 3c + 2 of the projection are query, key and value."""
    torch.manual_seed(0)
    block = MPBlock(8, 8, MPBlockSettings(emb_channels=4, channels_per_head=4), attention=True)
    x = torch.randn(1, 8, 3, 3)
    projected = block.attn_qkv(x)[0].reshape(2, 4, 3, 9)
    expected = torch.zeros(2, 4, 9)
    for head in range(2):
        query, key, value = (normalize(projected[head, :, k], dim=0) for k in range(3))
        for pixel in range(9):
            weights = ((query[:, [pixel]] * key).sum(dim=0) / 2).softmax(dim=0)
            expected[head, :, pixel] = (value * weights).sum(dim=1)
    torch.testing.assert_close(block._attend(x), block.attn_proj(expected.reshape(1, 8, 3, 3)))


@torch.no_grad()
def test_blocks_follow_the_architecture():
    """Encoder: shortcut convolution, then pixel norm, then the branch; decoder: the branch sees the block's input."""
    torch.manual_seed(0)
    settings = MPBlockSettings(emb_channels=6, res_balance=0.4)
    x, emb = 3 * torch.randn(2, 8, 4, 4), torch.randn(2, 6)
    for decoder in (False, True):
        block = MPBlock(8, 12, settings, decoder=decoder)
        block.emb_gain.fill_(0.7)
        assert block.conv_skip is not None
        shortcut = block.conv_skip(x)
        start = x if decoder else shortcut / (shortcut.square().mean(dim=1, keepdim=True).sqrt() + 1e-4)
        condition = 1 + 0.7 * block.emb_linear(emb)[:, :, None, None]
        branch = block.conv_res1(mp_silu(block.conv_res0(mp_silu(start)) * condition))
        expected = (0.6 * (shortcut if decoder else start) + 0.4 * branch) / 0.52**0.5
        torch.testing.assert_close(block(x, emb), expected)


@torch.no_grad()
def test_activations_are_clipped():
    torch.manual_seed(0)
    x, emb = 100 * torch.randn(2, 8, 4, 4), torch.randn(2, 4)
    block = MPBlock(8, 8, MPBlockSettings(4, clip_act=50.0), decoder=True)
    assert block(x, emb).abs().max() == 50
    assert MPBlock(8, 8, MPBlockSettings(4, clip_act=None), decoder=True)(x, emb).abs().max() > 50


@torch.no_grad()
def test_labels():
    """Classes matter, a row of zeros is no class, and an unconditional network takes none."""
    network = tiny()
    x, noise, labels = inputs()
    assert not torch.equal(network(x, noise, labels), network(x, noise, 0 * labels))
    with pytest.raises(ValueError, match="one-hot"):
        network(x, noise)
    torch.manual_seed(0)
    unconditional = EDM2UNet(16, 3, 0, **SIZES)
    assert unconditional.emb_label is None and not unconditional(x, noise).any()


@torch.no_grad()
def test_a_fresh_denoiser_is_the_skip_connection():
    """The gain of the output starts at zero."""
    denoiser = EDM2Denoiser(EDM2UNet(16, 3, 3, **SIZES), (3, 16, 16), 3, sigma_data=0.5)
    x, _, labels = inputs()
    torch.testing.assert_close(denoiser(x, torch.tensor(0.5), labels), x / 2)


def test_refuses_heads_that_do_not_divide_the_channels():
    with pytest.raises(ValueError, match="attention heads of 64"):
        tiny(model_channels=48)


@torch.no_grad()
def test_the_network_is_wired_as_described():
    """One level, spelled out: embedding, channel of ones, skips in reverse order, balances, gain."""
    network = tiny(channel_mult=(1,), label_balance=0.3, concat_balance=0.6)
    x, noise, labels = inputs()
    assert network.emb_label is not None
    emb = mp_sum(network.emb_noise(network.emb_fourier(noise)), network.emb_label(labels * 3**0.5), 0.3)
    emb = mp_silu(emb)
    first = network.enc["16x16_conv"](torch.cat([x, torch.ones(len(x), 1, 16, 16)], dim=1))
    second = network.enc["16x16_block0"](first, emb)
    h = network.dec["16x16_in1"](network.dec["16x16_in0"](second, emb), emb)
    h = network.dec["16x16_block0"](mp_cat(h, second, 0.6), emb)
    h = network.dec["16x16_block1"](mp_cat(h, first, 0.6), emb)
    network.out_gain.fill_(0.7)
    torch.testing.assert_close(network(x, noise, labels), 0.7 * network.out_conv(h))
