"""What all preconditioned networks share: the dtype of the activations, frozen parameters, refusals."""

from collections.abc import Callable

import pytest
import torch

from disback_cli.denoisers.dhariwal_unet import DhariwalUNet
from disback_cli.denoisers.edm import EDMDenoiser
from disback_cli.denoisers.edm2 import EDM2Denoiser, EDM2UNet
from disback_cli.denoisers.iddpm import IDDPMDenoiser
from disback_cli.denoisers.preconditioned import PreconditionedDenoiser
from disback_cli.denoisers.score_sde import VEDenoiser, VPDenoiser
from disback_cli.denoisers.song_unet import SongUNet

SHAPE = (1, 8, 8)
SIZES = {"model_channels": 32, "channel_mult": (1, 2), "num_blocks": 1, "attn_resolutions": (4,)}
SONG = SIZES | {"label_dim": 3, "augment_dim": 9, "dropout": 0.0}
NCSNPP = {"embedding_type": "fourier", "encoder_type": "residual", "resample_filter": (1, 3, 3, 1)}
BUILD: dict[str, Callable[[str], PreconditionedDenoiser]] = {
    "ddpmpp": lambda dtype: EDMDenoiser(SongUNet(8, 1, 1, **SONG), SHAPE, 3, network_dtype=dtype),
    "ncsnpp": lambda dtype: VEDenoiser(SongUNet(8, 1, 1, **SONG, **NCSNPP), SHAPE, 3, network_dtype=dtype),
    "vp": lambda dtype: VPDenoiser(SongUNet(8, 1, 1, **SONG), SHAPE, 3, network_dtype=dtype),
    "adm": lambda dtype: EDMDenoiser(DhariwalUNet(8, 1, 1, **SONG), SHAPE, 3, network_dtype=dtype),
    "iddpm": lambda dtype: IDDPMDenoiser(DhariwalUNet(8, 1, 2, **SONG), SHAPE, 3, network_dtype=dtype),
    "edm2": lambda dtype: EDM2Denoiser(EDM2UNet(8, 1, 3, **SIZES), SHAPE, 3, network_dtype=dtype),
}
X, SIGMA = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(0)), torch.tensor([0.5, 2.0])


def tiny(name: str, dtype: str = "fp32") -> PreconditionedDenoiser:
    """A small conditional denoiser; layers and gains that start at or near zero are filled, so that all matter."""
    torch.manual_seed(0)
    denoiser = BUILD[name](dtype)
    with torch.no_grad():
        for parameter in denoiser.parameters():
            if parameter.abs().max() < 1e-3:
                parameter.normal_(std=0.1)
    return denoiser.eval()


def evaluate(denoiser: PreconditionedDenoiser, device: str = "cpu") -> torch.Tensor:
    return denoiser.to(device)(X.to(device), SIGMA.to(device), torch.eye(3, device=device)[:2])


def activation_dtypes(denoiser: PreconditionedDenoiser) -> set[torch.dtype]:
    """The dtypes that arrive at the convolutions and norms when the denoiser is evaluated next."""
    seen: set[torch.dtype] = set()
    for module in denoiser.modules():
        if type(module).__name__ in ("Conv2d", "GroupNorm", "MPBlock", "UNetBlock"):
            module.register_forward_hook(lambda _, inputs, out: seen.update({inputs[0].dtype, out.dtype}))
    return seen


@pytest.mark.parametrize("name", BUILD)
def test_bf16_activations_with_fp32_weights(name):
    full, narrow = tiny(name), tiny(name, "bf16")
    seen = activation_dtypes(narrow)
    expected, out = evaluate(full), evaluate(narrow)
    assert seen == {torch.bfloat16}
    assert out.dtype == torch.float32 and not torch.equal(out, expected)
    assert (out - expected).norm() < 0.02 * expected.norm()
    out.square().sum().backward()
    expected.square().sum().backward()
    gradients = {name: p.grad for name, p in narrow.named_parameters() if p.grad is not None}
    assert {gradient.dtype for gradient in gradients.values()} == {torch.float32}
    ours = torch.cat([gradient.flatten() for gradient in gradients.values()])
    reference = torch.cat([p.grad.flatten() for p in full.parameters() if p.grad is not None])
    assert torch.cosine_similarity(ours, reference, dim=0) > 0.99


@pytest.mark.parametrize("name", BUILD)
def test_fp16_means_fp32_on_the_cpu(name):
    narrow = tiny(name, "fp16")
    seen = activation_dtypes(narrow)
    assert torch.equal(evaluate(narrow), evaluate(tiny(name))) and seen == {torch.float32}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", BUILD)
def test_fp16_activations_on_a_gpu(name):
    narrow = tiny(name, "fp16")
    seen = activation_dtypes(narrow)
    out, expected = evaluate(narrow, "cuda").cpu(), evaluate(tiny(name))
    assert seen == {torch.float16} and out.dtype == torch.float32
    assert (out - expected).norm() < 0.01 * expected.norm()


@pytest.mark.parametrize("name", BUILD)
def test_unused_parameters_are_those_without_a_gradient(name):
    denoiser = tiny(name)
    evaluate(denoiser).square().sum().backward()
    without = {name for name, p in denoiser.named_parameters() if p.grad is None}
    assert denoiser.unused_parameters() == without and len(without) == 1
    assert [name for name, p in denoiser.named_parameters() if p.grad is not None and not p.grad.any()] == []


def test_no_parameter_is_unused_without_augmentation():
    assert (
        EDMDenoiser(SongUNet(8, 1, 1, **(SONG | {"label_dim": 0, "augment_dim": 0})), SHAPE).unused_parameters()
        == set()
    )


def test_constraining_changes_ordinary_networks_not_at_all():
    denoiser = tiny("adm")
    before = {name: tensor.clone() for name, tensor in denoiser.state_dict().items()}
    denoiser.constrain_()
    assert all(torch.equal(tensor, before[name]) for name, tensor in denoiser.state_dict().items())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"network_dtype": "half"}, "valid are fp32, fp16, bf16"),
        ({"label_dim": 4}, "label_dim=3, but .* needs label_dim=4"),
        ({"shape": (3, 8, 8)}, "in_channels=1, .* needs in_channels=3"),
    ],
)
def test_refuses_networks_that_do_not_fit(arguments, message):
    with pytest.raises(ValueError, match=message):
        EDMDenoiser(SongUNet(8, 1, 1, **SONG), **({"shape": SHAPE, "label_dim": 3} | arguments))


def test_refuses_a_network_without_the_variance_channels():
    with pytest.raises(ValueError, match="out_channels=1, .* needs out_channels=2"):
        IDDPMDenoiser(SongUNet(8, 1, 1, **SONG), SHAPE, label_dim=3)


def test_the_shared_part_alone_cannot_be_built():
    with pytest.raises(TypeError, match="abstract"):
        PreconditionedDenoiser(torch.nn.Identity(), SHAPE, 0, 0.002, 80.0, 0.5, "fp32")  # type: ignore[abstract]
