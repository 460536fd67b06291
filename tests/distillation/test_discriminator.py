"""The critic: features out of every kind of network, the head on them, and the two losses."""

import math
from functools import partial

import pytest
import torch
from torch import nn

from disback_cli.denoisers.dhariwal_unet import DhariwalUNet
from disback_cli.denoisers.discrete import DiscreteDenoiser
from disback_cli.denoisers.edm import EDMDenoiser
from disback_cli.denoisers.edm2 import EDM2Denoiser, EDM2UNet
from disback_cli.denoisers.gaussian_mixture import MixtureDenoiser
from disback_cli.denoisers.mlp_denoiser import MLPDenoiser
from disback_cli.denoisers.protocol import Denoiser
from disback_cli.denoisers.song_unet import SongUNet
from disback_cli.distillation.adapters import LoraSettings
from disback_cli.distillation.discriminator import BottleneckTap, Discriminator, one_sample
from disback_cli.distillation.objectives.critic import Critic
from disback_cli.errors import UserError

BATCH = 3


def song(**options) -> EDMDenoiser:
    torch.manual_seed(0)
    settings = {"model_channels": 16, "channel_mult": (1, 2), "num_blocks": 1, "attn_resolutions": (4,), "dropout": 0.1}
    return EDMDenoiser(SongUNet(8, 1, 1, label_dim=2, **settings | options), (1, 8, 8), label_dim=2)


def dhariwal() -> EDMDenoiser:
    torch.manual_seed(0)
    network = DhariwalUNet(16, 3, 3, model_channels=32, channel_mult=(1, 2), num_blocks=2, attn_resolutions=(8,))
    return EDMDenoiser(network, (3, 16, 16))


def edm2() -> EDM2Denoiser:
    torch.manual_seed(0)
    network = EDM2UNet(16, 3, 3, model_channels=64, channel_mult=(1, 2), num_blocks=1, attn_resolutions=(8,))
    return EDM2Denoiser(network, (3, 16, 16), 3, network_dtype="fp32")


def diffusers_unet() -> DiscreteDenoiser:
    from disback_cli.denoisers.diffusers_networks import UNet2D

    torch.manual_seed(0)
    config = {
        "sample_size": 8, "in_channels": 1, "out_channels": 1, "num_class_embeds": 3, "block_out_channels": (8, 16),
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"), "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
        "layers_per_block": 1, "norm_num_groups": 4, "attention_head_dim": 4,
    }  # fmt: skip
    return DiscreteDenoiser(UNet2D(config), (1, 8, 8), {"num_train_timesteps": 100}, label_dim=3)


def diffusers_dit() -> DiscreteDenoiser:
    from disback_cli.denoisers.diffusers_networks import DiT

    torch.manual_seed(0)
    config = {
        "num_attention_heads": 2, "attention_head_dim": 8, "in_channels": 4, "out_channels": 8, "num_layers": 3,
        "sample_size": 4, "patch_size": 2, "num_embeds_ada_norm": 3,
    }  # fmt: skip
    return DiscreteDenoiser(DiT(config), (4, 4, 4), {"num_train_timesteps": 100}, label_dim=3)


def mixture() -> MixtureDenoiser:
    return MixtureDenoiser("ring", hidden=16, depth=2)


def points() -> MLPDenoiser:
    network = MLPDenoiser(2, hidden=16, depth=3)
    nn.init.normal_(network.model.output.weight, generator=torch.Generator().manual_seed(0))
    return network


def adapted_song() -> Denoiser:
    from disback_cli.distillation.lora import adapted

    return adapted(song(), LoraSettings(2, 2.0, "all"), seed=0, group="fake")


NETWORKS = {
    "ddpmpp": (song, "model.enc.4x4_block0", (32, 4, 4)),
    "ncsnpp": (
        partial(song, encoder_type="residual", resample_filter=(1, 3, 3, 1)), "model.enc.4x4_block0", (32, 4, 4),
    ),
    "adm": (dhariwal, "model.enc.8x8_block1", (64, 8, 8)),
    "edm2": (edm2, "unet.enc.8x8_block0", (128, 8, 8)),
    "mixture": (mixture, "correction.hidden.1", (16,)),
    "mlp": (points, "model.hidden.2", (16,)),
    "diffusers unet": (diffusers_unet, "model.unet.mid_block", (16, 4, 4)),
    "diffusers dit": (diffusers_dit, "model.transformer.transformer_blocks.1", (4, 16)),
    "lora": (adapted_song, "model.enc.4x4_block0", (32, 4, 4)),
}  # fmt: skip


@pytest.fixture(params=NETWORKS)
def known(request):
    build, place, shape = NETWORKS[request.param]
    return build().eval(), place, shape


def batch(network: Denoiser) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(BATCH, *network.shape, generator=generator)
    labels = torch.eye(network.label_dim)[torch.arange(BATCH) % network.label_dim] if network.label_dim else None
    return x, torch.tensor([0.3, 1.0, 2.0]), labels


# Features ---------------------------------------------------------------------------------------------------------


def test_every_network_knows_its_bottleneck(known):
    network, place, shape = known
    assert network.bottleneck_name() == place
    assert BottleneckTap(network).feature_shape() == shape


def test_a_pass_gives_the_denoisers_answer_and_the_modules_output(known):
    network, place, _ = known
    inputs = batch(network)
    outputs = []
    handle = network.get_submodule(place).register_forward_hook(lambda *arguments: outputs.append(arguments[2]))
    plain = network(*inputs)
    handle.remove()
    tap = BottleneckTap(network)
    for frozen in (False, True):
        denoised, features = tap.run(*inputs, frozen=frozen)
        assert torch.equal(denoised, plain)
        assert torch.equal(features, outputs[0])
    assert torch.equal(tap.encode(*inputs), outputs[0])
    assert not network.get_submodule(place)._forward_hooks


def test_a_frozen_pass_has_a_gradient_towards_the_samples_only(known):
    network, _, shape = known
    flags = {name: p.requires_grad for name, p in network.named_parameters()}
    assert any(flags.values())
    x, sigma, labels = batch(network)
    x.requires_grad_(True)
    denoised, features = BottleneckTap(network).run(x, sigma, labels, frozen=True)
    assert features.shape == (BATCH, *shape)
    for output in (denoised, features):
        (gradient,) = torch.autograd.grad(output.square().sum(), x, retain_graph=True)
        assert float(gradient.abs().sum()) > 0
    (denoised.sum() + features.sum()).backward()
    assert all(p.grad is None for p in network.parameters())
    assert {name: p.requires_grad for name, p in network.named_parameters()} == flags


def test_frozen_and_plain_passes_have_the_same_gradient_towards_the_samples():
    network = song().eval()
    x, sigma, labels = batch(network)
    gradients = []
    for frozen in (False, True):
        leaf = x.clone().requires_grad_(True)
        denoised, features = BottleneckTap(network).run(leaf, sigma, labels, frozen=frozen)
        gradients += torch.autograd.grad(denoised.square().sum() + features.square().sum(), leaf)
    torch.testing.assert_close(*gradients, rtol=0, atol=0)


def test_features_train_the_encoder_and_nothing_behind_it():
    network = song()
    BottleneckTap(network).encode(*batch(network)).square().sum().backward()
    trained = {name for name, p in network.named_parameters() if p.grad is not None}
    assert trained == {name for name, _ in network.named_parameters() if not name.startswith("model.dec.")}


def test_features_of_a_network_with_adapters_train_the_adapters_alone():
    network = adapted_song()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.01)
    BottleneckTap(network).encode(*batch(network)).square().sum().backward()
    trained = {name for name, p in network.named_parameters() if p.grad is not None}
    assert trained and all("lora_" in name and ".dec." not in name for name in trained)


def test_encoding_stops_behind_the_module():
    network = song()
    reached = []
    for name in ("enc.4x4_block0", "dec.4x4_in0"):
        network.model.get_submodule(name).register_forward_hook(lambda *_, name=name: reached.append(name))
    tap = BottleneckTap(network)
    tap.encode(*batch(network))
    assert reached == ["enc.4x4_block0"]
    tap.run(*batch(network), frozen=False)
    assert reached == ["enc.4x4_block0", "enc.4x4_block0", "dec.4x4_in0"]


def test_asking_for_the_shape_leaves_no_trace():
    network = song().train()
    network.model.enc["8x8_conv"].eval()
    modes = [module.training for module in network.modules()]
    torch.manual_seed(5)
    state = torch.get_rng_state()
    BottleneckTap(network).feature_shape()
    assert [module.training for module in network.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_narrow_networks_give_narrow_features_and_the_head_works_in_fp32(dtype):
    network = song().eval()
    network.network_dtype = dtype
    tap = BottleneckTap(network)
    head = learnt(Discriminator(tap.feature_shape(), seed=0))
    x, sigma, labels = batch(network)
    x.requires_grad_(True)
    denoised, features = tap.run(x, sigma, labels, frozen=True)
    assert features.dtype == (torch.bfloat16 if dtype == "bf16" else torch.float32), "fp16 acts on CUDA devices only"
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = head(features)
    assert logits.dtype == denoised.dtype == torch.float32
    torch.testing.assert_close(logits, head(features.float()))
    (gradient,) = torch.autograd.grad(logits.sum(), x)
    assert bool(gradient.isfinite().all()) and float(gradient.abs().sum()) > 0


class Pair(nn.Module):
    """Two outputs, of which the first are the features."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 6)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, None]:
        return self.linear(x), None


class Own(Denoiser):
    """A user's network: no bottleneck named, a module that runs twice, one that never runs, one with five axes."""

    def __init__(self) -> None:
        super().__init__((2,))
        self.inner = nn.ModuleDict({"pair": Pair(), "idle": nn.Linear(2, 2)})
        self.wide = nn.Unflatten(1, (1, 1, 1, 6))
        self.out = nn.Linear(6, 2)

    def forward(self, x, sigma, labels=None):
        h, _ = self.inner["pair"](x)
        self.inner["pair"](2 * x)
        self.wide(h)
        return self.out(h)


def test_own_network_gives_features_where_the_user_says():
    network = Own()
    tap = BottleneckTap(network, "inner.pair")
    x, sigma, _ = batch(network)
    assert tap.feature_shape() == (6,)
    _, features = tap.run(x, sigma, None, frozen=True)
    torch.testing.assert_close(features, network.inner["pair"].linear(x))
    assert torch.equal(tap.encode(x, sigma, None), features)


def test_network_without_a_bottleneck_is_refused_with_names_to_give():
    with pytest.raises(UserError, match=r"Own does not say where its bottleneck is: give objective\.critic\.features="):
        BottleneckTap(Own())
    with pytest.raises(UserError, match=r"such as inner\.pair, inner\.pair\.linear, inner\.idle, out"):
        BottleneckTap(Own())


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("inner.pear", r"features=inner\.pear: the fake score's network has no such module; did you mean inner\.pair"),
        ("", r"has no such module"),
        ("inner.idle", r"features=inner\.idle: this module does not run in a pass"),
        ("wide", r"its output for 1 samples is \(1, 1, 1, 1, 6\); the critic needs \[B, C, H, W\]"),
    ],
)
def test_a_wrong_place_is_refused(place, message):
    with pytest.raises(UserError, match=message):
        BottleneckTap(Own(), place).feature_shape()


def test_hook_is_gone_after_an_error_inside_the_network():
    network = song()
    tap = BottleneckTap(network)
    with pytest.raises(ValueError, match="labels are missing"):
        tap.run(torch.zeros(1, 1, 8, 8), torch.ones(1), None, frozen=True)
    assert not network.get_submodule(tap.place)._forward_hooks


def test_one_sample_has_a_class_for_networks_without_a_class_for_none():
    x, sigma, labels = one_sample(diffusers_unet())
    assert (x.shape, sigma.shape, labels.tolist()) == ((1, 1, 8, 8), (1,), [[1.0, 0.0, 0.0]])
    assert one_sample(mixture())[2] is None


# The head ---------------------------------------------------------------------------------------------------------


def learnt(head: Discriminator) -> Discriminator:
    """A head whose last layer is not zero any more."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        head.logit.weight.normal_(generator=generator)
    return head


SHAPES = [(32, 4, 4), (16, 1, 1), (8, 7, 5), (300, 16, 16), (12, 2, 2), (10, 24), (16,), (3,)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_head_takes_features_of_any_size_and_treats_samples_alone(shape):
    features = torch.randn(4, *shape, generator=torch.Generator().manual_seed(0))
    head = learnt(Discriminator(shape, seed=0))
    logits = head(features)
    assert logits.shape == (4,)
    torch.testing.assert_close(logits, torch.cat([head(features[i : i + 1]) for i in range(4)]), rtol=1e-4, atol=1e-5)
    assert float(logits.detach().std()) > 0.01
    gradients = torch.autograd.grad(logits.square().sum(), list(head.parameters()))
    assert all(float(gradient.abs().sum()) > 0 for gradient in gradients)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_fresh_head_gives_every_sample_a_ratio_of_one(shape):
    features = torch.randn(4, *shape, generator=torch.Generator().manual_seed(0))
    assert torch.equal(Discriminator(shape, seed=0)(features), torch.zeros(4))


def test_weights_are_drawn_from_the_seed_alone():
    torch.manual_seed(3)
    state = torch.get_rng_state()
    first, again, other = (Discriminator((8, 4, 4), seed=seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_shape_without_a_meaning_is_refused():
    with pytest.raises(ValueError, match=r"need \(C, H, W\), \(T, d\) or \(d,\)"):
        Discriminator((2, 3, 4, 5), seed=0)


@pytest.mark.parametrize("shape", [(8, 4, 4), (5, 8), (8,)], ids=str)
def test_head_learns_the_log_ratio_of_two_gaussians(shape):
    """Means apart by 1 in every component; the optimum of the loss is the log-ratio, here of mean dim / 2."""
    head, generator = Discriminator(shape, seed=0), torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(head.parameters(), lr=1e-2)
    critic = Critic(critic_weight=1.0)
    losses = []
    for _ in range(60):
        fake, real = torch.randn(2, 64, *shape, generator=generator)
        loss = critic.loss(head(fake - 0.5), head(real + 0.5))
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    fake, real = torch.randn(2, 256, *shape, generator=generator)
    assert losses[0] == pytest.approx(2 * math.log(2))
    assert losses[-1] < 0.6 * losses[0]
    with torch.no_grad():
        assert float(head(real + 0.5).mean()) > 0.5 > -0.5 > float(head(fake - 0.5).mean())


# Losses -----------------------------------------------------------------------------------------------------------


def test_critics_losses_are_the_non_saturating_gans():
    critic = Critic(generator_weight=0.3, critic_weight=0.2)
    fake, real = torch.tensor([0.0, 2.0, -1.0]), torch.tensor([1.0, -3.0])
    torch.testing.assert_close(critic.generator_loss(fake), -0.3 * torch.sigmoid(fake).log())
    expected = -torch.sigmoid(-fake).log().mean() - torch.sigmoid(real).log().mean()
    torch.testing.assert_close(critic.loss(fake, real), 0.2 * expected)


def test_critics_loss_is_least_at_the_log_ratio():
    """Two densities on three places; the logit of each place is free."""
    fake, real = torch.tensor([0.2, 0.3, 0.5]), torch.tensor([0.6, 0.3, 0.1])
    logits = (real / fake).log().requires_grad_(True)
    loss = (fake * nn.functional.softplus(logits)).sum() + (real * nn.functional.softplus(-logits)).sum()
    counts = [Critic(critic_weight=1.0).loss(logits.repeat_interleave((10 * fake).long()),
              logits.repeat_interleave((10 * real).round().long()))]  # fmt: skip
    torch.testing.assert_close(counts[0], loss)
    (gradient,) = torch.autograd.grad(loss, logits)
    torch.testing.assert_close(gradient, torch.zeros(3), rtol=0, atol=1e-7)


def test_generator_loss_falls_where_samples_look_more_real():
    logits = torch.tensor([0.0, 2.0], requires_grad=True)
    Critic().generator_loss(logits).sum().backward()
    assert bool((logits.grad < 0).all())


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("generator_weight", -1.0, "need 0 or more"),
        ("critic_weight", 0.0, "objective.critic=null is an objective without a critic"),
        ("warmup", -1, "need 0 or more iterations"),
        ("when", "never", "valid are teacher and always"),
    ],
)
def test_options_outside_their_range_are_refused(option, value, message):
    with pytest.raises(ValueError, match=rf"objective\.critic\.{option}.*{message}"):
        Critic(**{option: value})
