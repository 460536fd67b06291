"""Several updates of the fake score for one of the generator, against the loop written by hand."""

import copy

import pytest
import torch

from disback_cli.denoisers.protocol import expand_sigma
from disback_cli.distillation.losses import denoising_loss
from disback_cli.distillation.schedules import EndpointSchedule
from disback_cli.distillation.sigma_laws import LogNormal
from disback_cli.runtime.randomness import CounterRandom

CPU = torch.device("cpu")


def by_hand(stage, iterations: int, fake_updates: int, fresh: bool):
    """One generator step, then the fake score's steps, on the same samples or on new ones."""
    student, fake, target = (copy.deepcopy(net) for net in (stage.student, stage.fake, stage.target))
    random, law, batch = CounterRandom(0), LogNormal(), stage.batch_size
    student_optimizer = torch.optim.Adam(student.parameters(), lr=3e-3, betas=(0.0, 0.999))
    fake_optimizer = torch.optim.Adam(fake.parameters(), lr=1e-2, betas=(0.0, 0.999))

    def normal(purpose, iteration, update):
        return random.normal(f"{purpose}/{update}" if update else purpose, iteration, 0, batch, (2,), CPU)

    def sigmas(purpose, iteration, update):
        return law.quantile(random.uniform(f"{purpose}/{update}" if update else purpose, iteration, 0, batch, CPU))

    for iteration in range(iterations):
        x = student(normal("z", iteration, 0))
        clean = x.detach()
        sigma = sigmas("sigma_generator", iteration, 0)
        noisy = clean + expand_sigma(sigma, clean) * normal("noise_generator", iteration, 0)
        with torch.no_grad():
            direction = fake(noisy, sigma) - target(noisy, sigma)
        student_optimizer.zero_grad()
        (x * direction).sum().div(batch).backward()
        student_optimizer.step()
        for update in range(fake_updates):
            if update and fresh:
                with torch.no_grad():
                    clean = student(normal("z", iteration, update))
            sigma = sigmas("sigma_fake", iteration, update)
            noisy = clean + expand_sigma(sigma, clean) * normal("noise_fake", iteration, update)
            fake_optimizer.zero_grad()
            denoising_loss(fake(noisy, sigma), clean, sigma, 0.5).backward()
            fake_optimizer.step()
    return student, fake


@torch.no_grad()
def distance(first, second) -> float:
    return max(float((a - b).abs().max()) for a, b in zip(first.parameters(), second.parameters(), strict=True))


@pytest.mark.parametrize("fresh", [False, True], ids=["renoised", "fresh"])
def test_three_fake_updates_equal_the_loop_written_by_hand(make_backtracking, fit, fresh):
    samples = "fresh" if fresh else "renoised"
    stage = make_backtracking(schedule=EndpointSchedule(), iterations=3, fake_updates=3, fake_samples=samples)
    student, fake = by_hand(stage, 3, fake_updates=3, fresh=fresh)
    _, other = by_hand(stage, 3, fake_updates=3, fresh=not fresh)
    fit(stage)
    assert distance(stage.student, student) < 5e-6
    assert distance(stage.fake, fake) < 5e-6
    assert distance(stage.fake, other) > 1e-4


def test_only_the_first_update_moves_the_student(make_backtracking, fit):
    one = make_backtracking(schedule=EndpointSchedule(), iterations=1)
    four = make_backtracking(schedule=EndpointSchedule(), iterations=1, fake_updates=4)
    fit(one)
    fit(four)
    assert distance(one.student, four.student) == 0
    assert distance(one.fake, four.fake) > 1e-4


@pytest.mark.parametrize("passes", [1, 2])
@pytest.mark.parametrize(("samples", "expected"), [("renoised", 8 + 3 * 2), ("fresh", 8 + 4 * 2)])
def test_cost_is_counted_for_every_update(make_backtracking, fit, samples, expected, passes):
    stage = make_backtracking(
        schedule=EndpointSchedule(), iterations=2, fake_updates=3, fake_samples=samples, passes=passes
    )
    fit(stage)
    assert stage.network_passes == expected * 2 * stage.batch_size


def test_passes_share_the_samples_of_an_iteration_as_one_batch_does(make_backtracking, fit):
    """Re-noised updates of a batch in two passes see each pass's own samples again."""
    whole = make_backtracking(schedule=EndpointSchedule(), iterations=2, fake_updates=3)
    parts = make_backtracking(schedule=EndpointSchedule(), iterations=2, fake_updates=3, passes=2)
    fit(whole)
    fit(parts)
    assert distance(whole.fake, parts.fake) < 5e-6
    assert distance(whole.student, parts.student) < 5e-6


def test_resumed_run_is_the_uninterrupted_one_to_the_bit(make_backtracking, fit, save_at, tmp_path):
    settings = {"iterations": 5, "fake_updates": 3, "fake_samples": "fresh"}
    whole = make_backtracking(**settings)
    saver = save_at(tmp_path, [2])
    fit(whole, saver)
    resumed = make_backtracking(**settings)
    fit(resumed, checkpoint=saver.store.newest_whole())
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name
    assert resumed.network_passes == whole.network_passes
