"""diffusers' networks: the same numbers as diffusers' own pipelines, classes, precision, and the way back."""

from __future__ import annotations

import pytest
import tiny_pipelines
import torch
from diffusers import DDIMScheduler, DDPMPipeline, DiTPipeline, DiTTransformer2DModel, FlowMatchEulerDiscreteScheduler

from disback_cli.denoisers.diffusers_folder import read_diffusers
from disback_cli.denoisers.diffusers_networks import DiT, UNet2D, to_diffusers
from disback_cli.denoisers.edm import EDMDenoiser
from disback_cli.denoisers.folder import build_network
from disback_cli.denoisers.protocol import Denoiser

STEPS = [0, 1, 37, 500, 998]


def load(folder, **keywords) -> Denoiser:
    source = read_diffusers(folder, **keywords)
    return build_network(source.spec, source.weights, str(folder))


def one_hot(classes: list[int], width: int) -> torch.Tensor:
    return torch.eye(width)[classes]


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("build", "extra"),
    [
        (tiny_pipelines.unconditional, {}),
        (tiny_pipelines.velocity, {}),
        (tiny_pipelines.sample_prediction, {}),
        (tiny_pipelines.unconditional, {"beta_schedule": "scaled_linear", "channels": 3, "size": 16}),
        (tiny_pipelines.unconditional, {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}),
    ],
)
def test_same_sample_as_a_step_of_ddim(tmp_path, build, extra):
    """x0 at whole steps equals what the stock scheduler makes of the stock network's output."""
    build(tmp_path, **extra)
    denoiser, pipeline = load(tmp_path), DDPMPipeline.from_pretrained(tmp_path)
    scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    scheduler.set_timesteps(1000)
    for step in STEPS:
        x_t = noise(2, *denoiser.shape)
        with torch.no_grad():
            stock = scheduler.step(pipeline.unet(x_t, step).sample, step, x_t).pred_original_sample
            sigma = torch.tensor(denoiser.levels[step])
            ours = denoiser(x_t / scheduler.alphas_cumprod[step].sqrt(), sigma)
        torch.testing.assert_close(ours, stock, rtol=1e-5, atol=1e-5 * (1 + float(sigma)))


def test_class_conditional_unet_equals_diffusers(tmp_path):
    tiny_pipelines.class_conditional(tmp_path)
    denoiser, pipeline = load(tmp_path), DDPMPipeline.from_pretrained(tmp_path)
    assert denoiser.label_dim == 3 and denoiser.model.null_class is None
    scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    scheduler.set_timesteps(1000)
    x_t, classes = noise(3, 3, 8, 8), [2, 0, 1]
    with torch.no_grad():
        raw = pipeline.unet(x_t, 300, class_labels=torch.tensor(classes)).sample
        stock = scheduler.step(raw, 300, x_t).pred_original_sample
        x = x_t / scheduler.alphas_cumprod[300].sqrt()
        ours = denoiser(x, torch.tensor(denoiser.levels[300]), one_hot(classes, 3))
    torch.testing.assert_close(ours, stock, rtol=1e-5, atol=2e-5)
    with pytest.raises(ValueError, match="a row of labels is all zeros"):
        denoiser(x, torch.tensor(1.0), torch.tensor([[0.0, 1, 0], [0, 0, 0], [1, 0, 0]]))


def test_flow_equals_a_step_of_euler(tmp_path):
    """The last step of the stock sampler goes to no noise, that is to its estimate of x0."""
    tiny_pipelines.flow(tmp_path, shift=3.0)
    denoiser, pipeline = load(tmp_path), DDPMPipeline.from_pretrained(tmp_path)
    for count in (2, 5, 50):
        scheduler = FlowMatchEulerDiscreteScheduler.from_config(pipeline.scheduler.config)
        scheduler.set_timesteps(count)
        share, time = float(scheduler.sigmas[-2]), scheduler.timesteps[-1]
        scheduler.set_begin_index(count - 1)
        x_u = noise(2, 1, 8, 8)
        with torch.no_grad():
            stock = scheduler.step(pipeline.unet(x_u, time).sample, time, x_u).prev_sample
            ours = denoiser(x_u / (1 - share), torch.tensor(share / (1 - share)))
        torch.testing.assert_close(ours, stock, rtol=1e-5, atol=1e-5)


def test_latent_transformer_equals_diffusers(tmp_path):
    """Classes, no class, and the half of the output that is the variance."""
    tiny_pipelines.latent(tmp_path)
    denoiser, pipeline = load(tmp_path), DiTPipeline.from_pretrained(tmp_path)
    assert (denoiser.label_dim, denoiser.model.null_class, denoiser.sigma_data) == (3, 3, 1.0)
    pipeline.scheduler.set_timesteps(1000)
    x_t = noise(4, 4, 4, 4)
    labels = torch.tensor([[0.0, 1, 0], [0, 0, 0], [0, 0, 1], [1, 0, 0]])
    with torch.no_grad():
        raw = pipeline.transformer(x_t, torch.full((4,), 420), class_labels=torch.tensor([1, 3, 2, 0])).sample
        stock = pipeline.scheduler.step(raw[:, :4], 420, x_t).pred_original_sample
        x = x_t / pipeline.scheduler.alphas_cumprod[420].sqrt()
        ours = denoiser(x, torch.tensor(denoiser.levels[420]), labels)
    assert raw.shape[1] == 8
    torch.testing.assert_close(ours, stock, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("build", [tiny_pipelines.class_conditional, tiny_pipelines.latent, tiny_pipelines.flow])
def test_way_back_keeps_every_bit(tmp_path, build):
    build(tmp_path / "in")
    denoiser = load(tmp_path / "in")
    name = "transformer" if isinstance(denoiser.model, DiT) else "unet"
    stock = to_diffusers(denoiser)
    stock.save_pretrained(tmp_path / "out")
    again = type(stock).from_pretrained(tmp_path / "out")
    original = type(stock).from_pretrained(tmp_path / "in", subfolder=name)
    assert dict(again.config) == dict(original.config) | {"_name_or_path": again.config["_name_or_path"]}
    for loaded in (stock, again):
        state = loaded.state_dict()
        assert list(state) == list(original.state_dict())
        assert all(torch.equal(tensor, state[key]) for key, tensor in original.state_dict().items())
    with torch.no_grad():
        next(stock.parameters()).zero_()
    kept = denoiser.state_dict()[f"model.{name}.{next(iter(original.state_dict()))}"]
    assert bool(kept.any())  # a copy was zeroed


def test_way_back_needs_a_network_of_diffusers():
    with pytest.raises(ValueError, match="is a Linear"):
        to_diffusers(EDMDenoiser(torch.nn.Linear(2, 2), [2]))


@pytest.mark.parametrize("build", [tiny_pipelines.class_conditional, tiny_pipelines.latent])
def test_every_parameter_gets_a_gradient(tmp_path, build):
    """Data-parallel training waits for all of them; half precision must not cut any off, nor change weights' dtype."""
    build(tmp_path)
    denoiser = load(tmp_path)
    x, labels = noise(2, *denoiser.shape), one_hot([0, 2], 3)
    exact = denoiser(x, torch.tensor([0.5, 20.0]), labels)
    denoiser.network_dtype = "bf16"
    with torch.no_grad():
        denoiser(x, torch.tensor([0.5, 20.0]), labels)
    rough = denoiser(x, torch.tensor([0.5, 20.0]), labels)
    assert rough.dtype == torch.float32 and not torch.equal(rough, exact)
    error = (rough - exact).abs().amax(dim=(1, 2, 3))
    assert bool((error < 0.05 * torch.tensor([0.5, 20.0])).all())
    rough.square().sum().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in denoiser.trainable_().parameters())


def test_half_precision_without_a_gpu_is_fp32(tmp_path):
    tiny_pipelines.unconditional(tmp_path)
    denoiser = load(tmp_path)
    x, sigma = noise(2, 1, 8, 8), torch.tensor(1.0)
    exact = denoiser(x, sigma)
    denoiser.network_dtype = "fp16"
    assert torch.equal(denoiser(x, sigma), exact)


def test_learned_time_embedding_takes_the_nearest_step():
    unet = tiny_pipelines.tiny_unet(time_embedding_type="learned", num_train_timesteps=10)
    network = UNet2D({key: value for key, value in unet.config.items() if not key.startswith("_")})
    network.unet.load_state_dict(unet.state_dict())
    x = noise(2, 1, 8, 8)
    found = network.eval()(x, torch.tensor([3.4, 8.6]))
    torch.testing.assert_close(found, unet(x, torch.tensor([3, 9])).sample)
    assert not torch.allclose(found, unet(x, torch.tensor([4, 8])).sample)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"class_embed_type": "timestep"}, "class_embed_type='timestep'"),
        ({"time_embedding_type": "fourier"}, "time_embedding_type='fourier'"),
        ({"in_channels": 6, "out_channels": 3}, "in_channels=6, out_channels=3"),
    ],
)
def test_variants_that_are_refused(config, message):
    small = {key: value for key, value in tiny_pipelines.tiny_unet().config.items() if not key.startswith("_")}
    with pytest.raises(ValueError, match=message):
        UNet2D(small | config)


def test_transformer_without_labels_means_no_class():
    network = DiT({k: v for k, v in tiny_pipelines.tiny_transformer().config.items() if not k.startswith("_")}).eval()
    assert isinstance(network.transformer, DiTTransformer2DModel)
    x, t = noise(2, 4, 4, 4), torch.tensor([3.0, 700.0])
    assert torch.equal(network(x, t), network(x, t, torch.zeros(2, 3)))
    assert not torch.equal(network(x, t), network(x, t, one_hot([0, 1], 3)))
