"""Low-rank adapters: they start at nothing, merge exactly, and are all that is trained and saved."""

import copy
import sys

import pytest
import torch
from adapted_networks import NETWORKS, inputs, network, teacher_of, trained_
from torch import nn

from disback_cli.denoisers.edm import EDMDenoiser
from disback_cli.denoisers.edm2 import EDM2Denoiser, EDM2UNet
from disback_cli.denoisers.protocol import Denoiser
from disback_cli.distillation.adapters import LoraSettings, adaptable_layers, chosen_layers, merged, plain_weights
from disback_cli.distillation.discriminator import without_parameters
from disback_cli.distillation.lora import adapted, lora
from disback_cli.distillation.student_folder import load_student, save_student
from disback_cli.distillation.students import OneStepStudent, fingerprint
from disback_cli.errors import UserError
from disback_cli.runtime.ema import Ema

SETTINGS = LoraSettings(rank=3, alpha=6, layers="all")


def with_adapters(name: str = "song", settings: LoraSettings = SETTINGS, seed: int = 0) -> Denoiser:
    return adapted(network(name), settings, seed=seed, group="fake")


def bits(weights) -> dict[str, bytes]:
    """Content that tells even a zero's sign."""
    return {name: tensor.numpy().tobytes() for name, tensor in weights.items()}


# What a fresh one is ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
def test_a_fresh_adapter_changes_no_bit(name):
    plain, fresh = network(name), with_adapters(name)
    assert torch.equal(fresh(*inputs(plain)), plain(*inputs(plain)))
    assert list(plain_weights(fresh)) == list(plain.state_dict())
    assert bits(plain_weights(fresh)) == bits(plain.state_dict())


@pytest.mark.parametrize("name", NETWORKS)
def test_adapters_alone_are_trained_and_every_one_gets_a_gradient(name):
    """Data-parallel training waits for every parameter that is trained."""
    net = trained_(with_adapters(name))
    net(*inputs(net)).square().sum().backward()
    for parameter_name, parameter in net.named_parameters():
        assert parameter.requires_grad == ("lora_" in parameter_name)
        assert (parameter.grad is not None) == parameter.requires_grad, parameter_name


def test_draws_depend_on_seed_and_layer_alone_and_leave_the_global_generator():
    before = torch.get_rng_state()
    first, again, other = with_adapters(), with_adapters(), with_adapters(seed=1)
    few = with_adapters(settings=LoraSettings(3, 6, ("qkv",)))
    assert torch.equal(torch.get_rng_state(), before)
    assert bits(first.state_dict()) == bits(again.state_dict())
    down = [name for name in first.state_dict() if "lora_A" in name]
    assert not any(torch.equal(first.state_dict()[name], other.state_dict()[name]) for name in down)
    assert all(torch.equal(first.state_dict()[name], tensor) for name, tensor in few.state_dict().items())
    for name in down:
        drawn = first.state_dict()[name]
        assert drawn.abs().max() <= drawn[0].numel() ** -0.5
        assert drawn.std() > 0.4 * drawn[0].numel() ** -0.5


# Merging ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
def test_the_merged_network_computes_what_the_adapted_one_does(name):
    plain, net = network(name), trained_(with_adapters(name))
    whole = copy.deepcopy(plain)
    whole.load_state_dict(plain_weights(net), strict=True)
    x = inputs(plain)
    with torch.no_grad():
        wanted, found, before = net(*x), whole(*x), plain(*x)
    assert (wanted - before).abs().max() > 0.01 * before.abs().max()
    assert (wanted - found).abs().max() < 1e-5 * before.abs().max()


def test_merging_is_the_formula_and_leaves_its_arguments():
    weights = {"a.weight": torch.randn(4, 3, 2, 2), "a.bias": torch.randn(4)}
    kept = copy.deepcopy(weights)
    down, up = torch.randn(2, 3, 2, 2), torch.randn(4, 2, 1, 1)
    adapter = {"a.lora_A.default.weight": down, "a.lora_B.default.weight": up}
    full = merged(weights, adapter, scale=0.5)
    wanted = weights["a.weight"] + 0.5 * torch.einsum("or,rikl->oikl", up[:, :, 0, 0], down)
    torch.testing.assert_close(full["a.weight"], wanted)
    assert full["a.bias"] is weights["a.bias"]
    assert bits(weights) == bits(kept)


def test_alpha_over_rank_is_the_scale():
    plain = network("mixture")
    double, single = (with_adapters("mixture", LoraSettings(3, alpha, "all")) for alpha in (6, 3))
    for net in (double, single):
        trained_(net)
    before = plain.state_dict()["correction.hidden.0.weight"]
    difference = [plain_weights(net)["correction.hidden.0.weight"] - before for net in (double, single)]
    torch.testing.assert_close(difference[0], 2 * difference[1])
    assert torch.linalg.matrix_rank(difference[0], atol=1e-5) == 3


def test_an_adapter_of_another_network_is_refused():
    adapter = trained_(with_adapters("mixture")).state_dict()
    with pytest.raises(UserError, match="does not fit this teacher"):
        merged(network("song").state_dict(), adapter, 1.0)


def test_narrow_activations_stay_narrow_and_gradients_fp32():
    plain, net = network("song"), trained_(with_adapters("song"))
    inside = []
    layer = net.get_submodule("model.enc.16x16_block0.conv0")
    layer.register_forward_hook(lambda module, given, made: inside.append((given[0].dtype, made.dtype)))
    exact = net(*inputs(net)).detach()
    net.network_dtype = "bf16"
    rough = net(*inputs(plain))
    rough.square().sum().backward()
    assert inside[1] == (torch.bfloat16, torch.bfloat16)
    assert 0 < (rough - exact).abs().max() < 0.1 * exact.abs().max()
    assert {p.grad.dtype for p in net.parameters() if p.requires_grad} == {torch.float32}


@pytest.mark.parametrize("name", ["ncsn", "stock_unet"])
def test_the_gradient_flows_through_an_adapted_network_that_is_held_fixed(name):
    """As objectives with the gradient through the fake score need it."""
    net = trained_(with_adapters(name))
    x, sigma, labels = inputs(net)
    x.requires_grad_(True)
    held = without_parameters(net, x, sigma, labels)
    torch.testing.assert_close(held, net(x, sigma, labels))
    held.square().sum().backward()
    assert x.grad is not None and x.grad.abs().max() > 0
    assert all(parameter.grad is None for parameter in net.parameters())


# Which layers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "ends"),
    [
        ("song", {"qkv", "proj"}),
        ("ncsn", {"qkv", "proj"}),
        ("adm", {"qkv", "proj"}),
        ("stock_unet", {"to_q", "to_k", "to_v", "to_out.0"}),
        ("stock_transformer", {"to_q", "to_k", "to_v", "to_out.0"}),
    ],
)
def test_attention_means_the_attentions_layers(name, ends):
    chosen = chosen_layers(network(name), "attention", "fake")
    assert {next(end for end in ends if layer.endswith(f".{end}")) for layer in chosen} == ends
    assert not any("pos_embed" in layer for layer in chosen)


def test_all_means_every_linear_layer_and_convolution_that_a_gradient_reaches():
    plain = network("song")
    known = {
        name.removesuffix(".weight")
        for name, tensor in plain.state_dict().items()
        if name.endswith(".weight") and tensor.ndim in (2, 4)
    }
    assert known - set(chosen_layers(plain, "all", "fake")) == {"model.map_augment"}


def test_patterns_fit_names_and_their_ends():
    plain = network("mixture")
    hidden = ["correction.hidden.0", "correction.hidden.1"]
    assert chosen_layers(plain, ["hidden.*"], "fake") == hidden
    assert chosen_layers(plain, ["correction.hidden.1", "hidden.0"], "fake") == hidden
    assert chosen_layers(plain, ["*"], "fake") == chosen_layers(plain, "all", "fake")


@pytest.mark.parametrize(
    ("name", "layers", "says"),
    [
        ("mixture", "attention", r"(?s)fake.layers: attention finds no attention.*hidden.0.*Type fake.layers=all"),
        ("song", ["qvk"], r"(?s)'qvk' matches no layer.*did you mean 'qkv'.*conv0 \(10\)"),
        ("song", ["qkv", "hidden"], r"'hidden' matches no layer"),
    ],
)
def test_no_matching_layer_names_those_there_are(name, layers, says):
    with pytest.raises(UserError, match=says):
        chosen_layers(network(name), layers, "fake")


def test_edm2_is_refused_with_its_reason():
    unet = EDM2UNet(16, 3, 0, model_channels=64, channel_mult=(1,), num_blocks=1, attn_resolutions=())
    with pytest.raises(UserError, match="EDM2 network, whose layers normalise their weights.*Type student=one_step"):
        chosen_layers(EDM2Denoiser(unet, (3, 16, 16), 0), "all", "student")


class Strange(nn.Module):
    """Layers that LoRA cannot be put beside."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = nn.MultiheadAttention(4, 2)
        self.dilated = nn.Conv2d(4, 4, 3, dilation=2)
        self.grouped = nn.Conv2d(4, 4, 3, groups=2)
        self.normed = nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))
        self.first = nn.Linear(4, 4)
        self.tied = nn.Linear(4, 4)
        self.tied.weight = self.first.weight
        self.plain = nn.Linear(4, 4)


def test_layers_whose_weights_others_use_are_left_out():
    assert adaptable_layers(EDMDenoiser(Strange(), (3, 8, 8))) == ["model.plain"]


@pytest.mark.parametrize(
    "options",
    [{"rank": 0}, {"rank": 2.5}, {"alpha": 0}, {"layers": []}, {"layers": "qkv"}],
    ids=["rank", "part", "alpha", "layers", "word"],
)
def test_impossible_settings_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        LoraSettings(**({"rank": 4, "alpha": 4, "layers": "all"} | options))


def test_without_peft_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    monkeypatch.delitem(sys.modules, "disback_cli.distillation.lora_layers", raising=False)
    with pytest.raises(UserError, match=r"fake=lora needs the package peft.*pip install 'disback-cli\[lora\]'"):
        with_adapters("mixture")


# What is saved ---------------------------------------------------------------------------------------------------


def test_the_state_is_the_adapters_and_loading_them_is_strict():
    net = trained_(with_adapters())
    state = net.state_dict()
    assert all("lora_" in name for name in state)
    fresh = with_adapters(seed=5)
    fresh.load_state_dict(state, strict=True)
    assert torch.equal(fresh(*inputs(net)), net(*inputs(net)))
    fewer = dict(list(state.items())[1:])
    with pytest.raises(RuntimeError, match="Missing key"):
        fresh.load_state_dict(fewer, strict=True)
    with pytest.raises(RuntimeError, match="Unexpected key"):
        fresh.load_state_dict(state | {"model.more": torch.zeros(1)}, strict=True)
    with pytest.raises(RuntimeError, match="size mismatch"):
        with_adapters(settings=LoraSettings(4, 6, "all")).load_state_dict(state, strict=True)


def test_a_copy_has_adapters_of_its_own():
    net = trained_(with_adapters("mixture"))
    twin = copy.deepcopy(net)
    assert bits(twin.state_dict()) == bits(net.state_dict())
    trained_(twin)
    assert bits(twin.state_dict()) != bits(net.state_dict())
    twin.load_state_dict(net.state_dict(), strict=True)
    assert bits(plain_weights(twin)) == bits(plain_weights(net))


def test_inside_another_module_too():
    """As in a stage's checkpoint: names have a prefix."""
    outer = nn.ModuleDict({"fake": trained_(with_adapters("mixture")), "other": nn.Linear(2, 2)})
    state = outer.state_dict()
    assert {name.split(".")[0] for name in state} == {"fake", "other"}
    assert all("lora_" in name for name in state if name.startswith("fake."))
    restored = nn.ModuleDict({"fake": with_adapters("mixture", seed=7), "other": nn.Linear(2, 2)})
    restored.load_state_dict(state, strict=True)
    assert bits(restored.state_dict()) == bits(state)


# The student -----------------------------------------------------------------------------------------------------


def lora_student(name: str = "mixture", **options):
    return lora(teacher_of(network(name)), **({"sigma_init": 1.0, "rank": 3, "alpha": 6, "layers": "all"} | options))


def test_the_untrained_student_is_the_untrained_one_step_student():
    plain = OneStepStudent(network("mixture"), sigma_init=1.0)
    student = lora_student()
    assert fingerprint(student) == fingerprint(plain)
    assert student.settings() == plain.settings()


def test_exported_it_is_an_ordinary_one_step_student(tmp_path):
    from disback_cli.denoisers import teachers

    spec = {"_target_": "disback_cli.denoisers.gaussian_mixture.MixtureDenoiser", "hidden": 16, "depth": 2}
    teacher = teachers.closed_form(name="ring", denoiser=spec)
    student = lora(teacher, sigma_init=1.0, rank=3, alpha=6, layers="all")
    trained_(student.denoiser)
    save_student(tmp_path / "student", student, teacher, {})
    read, config = load_student(str(tmp_path))
    assert type(read) is OneStepStudent
    assert config["denoiser"] == spec
    z = torch.randn(8, 2, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(read(z), student(z).detach(), rtol=1e-4, atol=1e-5)
    # and another one can start from it
    further = lora(teacher, sigma_init=1.0, rank=2, alpha=2, layers=["hidden.*"], weights=str(tmp_path))
    assert fingerprint(further) == fingerprint(read)
    assert torch.equal(further(z).detach(), read(z))


def test_the_average_moves_its_adapters_and_shares_nothing():
    student = lora_student()
    average = Ema(student, halflife=10.0, rampup=0.0)
    base = {name: p.clone() for name, p in average.network.named_parameters() if "lora_" not in name}
    before = {name: p.clone() for name, p in average.network.named_parameters() if "lora_" in name}
    trained_(student.denoiser)
    average.update(student, batch_size=10, images_seen=10)
    live = dict(student.named_parameters())
    for name, parameter in average.network.named_parameters():
        if name in base:
            assert torch.equal(parameter, base[name])
        else:
            torch.testing.assert_close(parameter.detach(), (before[name] + live[name].detach()) / 2)
    assert average.network.export_weights().keys() == network("mixture").state_dict().keys()
