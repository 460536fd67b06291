"""The counted loop that all stages share."""

import pytest
import torch

from disback_cli.denoisers.protocol import Denoiser
from disback_cli.errors import UserError
from disback_cli.runtime.optimizers import AdamSettings, learning_rate


def test_loop_runs_the_iterations_asked_for_and_counts_images(make_stage, fit):
    stage = make_stage(iterations=5, batch_size=8)
    fit(stage)
    assert stage.iteration == 5
    assert stage.images_seen == 40
    assert stage.seconds > 0


def test_each_iteration_uses_its_own_learning_rate(make_stage, fit):
    stage = make_stage(iterations=8, lr_schedule="cosine", lr_warmup=3)
    fit(stage)
    assert stage.rates == [learning_rate(0.05, i, 8, "cosine", 3) for i in range(8)]
    assert len(set(stage.rates)) > 5


def test_means_are_over_the_iterations_since_the_last_reading(make_stage, fit):
    stage = make_stage(iterations=4)
    fit(stage)
    assert stage.read_scalars()["iteration_plus_one"] == 2.5
    assert stage.read_scalars() == {}


def test_clipping_bounds_the_gradient_that_the_optimiser_sees(make_stage, fit):
    seen = []

    def watched(stage):
        step = stage.optimizer_settings.build

        def build(parameters, lr):
            optimizer = step(parameters, lr)
            optimizer.register_step_pre_hook(
                lambda *_: seen.append(float(torch.cat([p.grad.flatten() for p in stage.line.parameters()]).norm()))
            )
            return optimizer

        stage.optimizer_settings.build = build
        return stage

    fit(watched(make_stage(optimizer=AdamSettings(clip=0.25))))
    assert seen == pytest.approx([0.25] * 6, rel=1e-4)
    seen.clear()
    fit(watched(make_stage(optimizer=AdamSettings())))
    assert min(seen) > 0.25


def test_training_fits_the_line(make_stage, fit):
    stage = make_stage(iterations=120, batch_size=32, lr={"line": 0.1}, lr_schedule="cosine")
    fit(stage)
    assert stage.line.weight.item() == pytest.approx(2, abs=0.02)
    assert stage.line.bias.item() == pytest.approx(1, abs=0.02)


def test_passes_add_up_to_the_gradient_of_the_whole_batch(make_stage, fit):
    weights = []
    for passes in (1, 2, 4):
        stage = make_stage(batch_size=8, passes=passes)
        fit(stage)
        assert stage.images_seen == 48
        weights.append(torch.cat([p.detach().flatten() for p in stage.line.parameters()]))
    torch.testing.assert_close(weights[1], weights[0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(weights[2], weights[0], rtol=1e-5, atol=1e-6)


def test_every_pass_takes_samples_of_its_own(make_stage, fit):
    drawn = []

    def noted(stage):
        normal = stage.normal
        stage.normal = lambda purpose, shape: drawn.append(x := normal(purpose, shape)) or x
        return stage

    fit(noted(make_stage(batch_size=8, iterations=1)))
    fit(noted(make_stage(batch_size=8, iterations=1, passes=4)))
    assert [len(x) for x in drawn] == [8, 2, 2, 2, 2]
    assert torch.equal(torch.cat(drawn[1:]), drawn[0])


def test_scalars_and_losses_are_means_over_the_passes(make_stage, fit):
    readings = []
    for passes in (1, 2):
        stage = make_stage(batch_size=8, iterations=3, passes=passes)
        fit(stage)
        readings.append(stage.read_scalars())
    assert readings[0] == pytest.approx(readings[1], rel=1e-5)


def test_a_batch_that_the_passes_cannot_share_is_refused(make_stage, fit):
    with pytest.raises(UserError, match="batch_size=6 cannot be shared evenly by 1 processes in 4 passes each"):
        fit(make_stage(batch_size=6, passes=4))


def test_weights_are_put_back_after_every_step(make_stage, fit):
    class Bounded(Denoiser):
        def __init__(self):
            super().__init__((1,))
            self.weight = torch.nn.Parameter(torch.ones(1, 1))
            self.calls = 0

        def forward(self, x, sigma=None, labels=None):
            return x * self.weight

        def constrain_(self):
            self.calls += 1
            self.weight.data.fill_(1.5)

    stage = make_stage(iterations=3)
    stage.line = Bounded()
    fit(stage)
    assert stage.line.calls == 3
    assert stage.line.weight.item() == 1.5
