"""Real samples as a stream addressed by position."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from disback_cli.data.dataset import ImageDataset, PointDataset
from disback_cli.data.pixels import to_float
from disback_cli.data.sampler import indices
from disback_cli.denoisers.teachers import closed_form
from disback_cli.distillation.pretraining import Pretraining
from disback_cli.distillation.real_data import RealSamples
from disback_cli.distillation.sigma_laws import LogNormal
from disback_cli.errors import UserError
from disback_cli.runtime.optimizers import AdamSettings
from disback_cli.verbs.common import build_real_samples

CPU = torch.device("cpu")


def images(labels: bool = True) -> ImageDataset:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (11, 1, 2, 2), generator=generator, dtype=torch.uint8)
    return ImageDataset(pixels, torch.arange(11) % 3 if labels else None, name="dots")


def test_a_position_holds_what_the_samplers_order_says():
    data = images()
    x, labels = RealSamples(data).batch(4, 9, 6, CPU)
    chosen = indices(4, 9, 6, 11)
    assert torch.equal(x, to_float(data.images[chosen])) and x.dtype == torch.float32
    assert torch.equal(labels.argmax(1), data.labels[chosen])


def test_processes_that_take_their_own_positions_share_the_batch_of_one():
    real = RealSamples(images())
    whole, _ = real.batch(0, 40, 8, CPU)
    parts = [real.batch(0, 40 + first, 2, CPU)[0] for first in (0, 2, 4, 6)]
    assert torch.equal(torch.cat(parts), whole)


def test_images_travel_as_stored_pixels():
    class Stored(ImageDataset):
        def batch(self, indices):
            raise AssertionError("floats are four times the bytes")

    x, _ = RealSamples(Stored(images().images, name="dots")).batch(0, 0, 4, CPU)
    assert x.dtype == torch.float32 and x.shape == (4, 1, 2, 2)


def test_points_are_handed_on_as_they_are():
    points = torch.arange(10.0).reshape(5, 2)
    x, labels = RealSamples(PointDataset(points, name="line")).batch(2, 0, 5, CPU)
    assert torch.equal(x, points[indices(2, 0, 5, 5)]) and labels is None


def test_an_unconditional_model_gets_no_labels_and_a_conditional_one_must_get_its_own():
    assert RealSamples(images(), 0).batch(0, 0, 3, CPU)[1] is None
    assert RealSamples(images(), 3).batch(0, 0, 3, CPU)[1].shape == (3, 3)
    with pytest.raises(UserError, match=r"3 classes.*dots has no labels.*dataset="):
        RealSamples(images(labels=False), 3)
    with pytest.raises(UserError, match=r"10 classes.*dots has 3 classes.*dataset="):
        RealSamples(images(), 10)


def test_pretraining_takes_the_positions_after_the_images_it_has_seen():
    teacher = ring_teacher()
    data = PointDataset(torch.randn(50, 2, generator=torch.Generator().manual_seed(1)), name="cloud")
    stage = Pretraining(
        denoiser=teacher.copy(), dataset=data, law=LogNormal(), ema_halflife=0, ema_rampup=0, batch_size=8,
        iterations=9, seed=5, optimizer=AdamSettings(), lr={"denoiser": 1e-3},
    )  # fmt: skip
    seen = []
    stage.denoiser.register_forward_pre_hook(lambda _, args: seen.append(args))
    stage.iteration = 3
    stage.losses(3)
    noisy, sigma, labels = seen[0]
    noise = stage.random.normal("noise", 3, 0, 8, (2,), CPU)
    expected = data.points[indices(5, 24, 8, 50)] + sigma.float()[:, None] * noise
    assert torch.equal(noisy, expected) and labels is None


def ring_teacher():
    target = "disback_cli.denoisers.gaussian_mixture.MixtureDenoiser"
    return closed_form(name="ring", denoiser={"_target_": target, "layout": "ring", "hidden": 8, "depth": 1})


def config(dataset: object) -> object:
    return OmegaConf.create({"teacher": {"name": "ring"}, "dataset": dataset})


def test_what_needs_real_data_says_what_to_type():
    with pytest.raises(
        UserError, match=r"objective=dmd2 has a critic, which needs real data: .*dataset=edm dataset.path"
    ):
        build_real_samples(config(None), ring_teacher(), "objective=dmd2 has a critic")
    with pytest.raises(UserError, match="needs real data"):
        build_real_samples(
            OmegaConf.create({"teacher": {"name": "ring"}}), ring_teacher(), "objective=dmd2 has a critic"
        )


def test_a_latent_teacher_cannot_take_pixels():
    latent = replace(ring_teacher(), decoder=nn.Identity())
    with pytest.raises(UserError, match="works on latents"):
        build_real_samples(
            config({"_target_": "disback_cli.data.digits.digits"}), latent, "objective=dmd2 has a critic"
        )


def test_the_configured_data_must_have_the_teachers_shape():
    node = {"_target_": "disback_cli.data.points.ring", "modes": 8, "radius": 0.7, "std": 0.1, "n": 100}
    real = build_real_samples(config(node), ring_teacher(), "objective=dmd2 has a critic")
    assert len(real) == 100 and real.batch(0, 0, 4, CPU)[0].shape == (4, 2)
    with pytest.raises(UserError, match="has samples of shape"):
        build_real_samples(
            config({"_target_": "disback_cli.data.digits.digits"}), ring_teacher(), "objective=dmd2 has a critic"
        )
