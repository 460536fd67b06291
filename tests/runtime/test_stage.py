"""The counted loop that all stages share."""

import pytest
import torch

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
