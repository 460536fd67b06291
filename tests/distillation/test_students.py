"""What students make of noise, what they train on, and from which options they are built."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import pytest
import torch
from built_students import BUILT, MIXTURE, MLP, POINTS
from hydra.core.override_parser.overrides_parser import OverridesParser
from torch import nn

from disback_cli.denoisers import teachers
from disback_cli.denoisers.discrete import DiscreteDenoiser
from disback_cli.denoisers.mlp_denoiser import MLPDenoiser
from disback_cli.denoisers.point_generator import PointGenerator
from disback_cli.denoisers.protocol import Denoiser, expand_sigma
from disback_cli.distillation.student_folder import save_student
from disback_cli.distillation.students import (
    FewStepStudent,
    OneStepStudent,
    evaluations_of_all_steps,
    factories,
    fingerprint,
    samples_of_all_steps,
    step_of,
)
from disback_cli.errors import UserError
from disback_cli.evaluation.measure import EvaluationNoise, student_sampler
from disback_cli.runtime.randomness import CounterRandom

CPU = torch.device("cpu")
SONG = {
    "_target_": "disback_cli.denoisers.edm.EDMDenoiser",
    "shape": [1, 8, 8],
    "label_dim": 10,
    "network": {
        "_target_": "disback_cli.denoisers.song_unet.SongUNet", "img_resolution": 8, "in_channels": 1,
        "out_channels": 1, "label_dim": 10, "model_channels": 8, "channel_mult": [1], "num_blocks": 1,
        "attn_resolutions": [],
    },
}  # fmt: skip


class Gaussian(Denoiser):
    """Exact denoiser of N(mean, std^2), times a gain that can be trained; notes whether each call keeps a graph."""

    def __init__(self, mean: float = 0.7, std: float = 0.5) -> None:
        super().__init__((2,))
        self.mean, self.std = mean, std
        self.gain = nn.Parameter(torch.ones(()))
        self.calls: list[tuple[float, bool]] = []

    def factor(self, sigma: float) -> float:
        return self.std**2 / (self.std**2 + sigma**2)

    def forward(self, x, sigma, labels=None):
        self.calls.append((float(sigma[0]), torch.is_grad_enabled()))
        level = expand_sigma(sigma, x)
        return self.gain * (self.mean + self.std**2 / (self.std**2 + level.square()) * (x - self.mean))


class Identity(nn.Module):
    def forward(self, x, noise, labels=None):
        return x


@pytest.fixture
def points() -> teachers.Teacher:
    return teachers.closed_form(name="points", denoiser=MIXTURE)


@pytest.fixture(scope="module")
def digits() -> teachers.Teacher:
    return teachers.folder(name="edm_digits_cond", folder="pkg://disback_cli/assets/edm_digits_cond")


def normal(seed: int, count: int):
    """Latents and the noise of the further evaluations."""

    def draw(step: int) -> torch.Tensor:
        return torch.randn(count, 2, generator=torch.Generator().manual_seed(100 * seed + step))

    return draw(0), draw


# Samples ------------------------------------------------------------------------------------------------------


def test_one_step_is_the_denoiser_asked_once_to_the_bit():
    denoiser = MLPDenoiser(2, hidden=8, seed=3)
    z, _ = normal(0, 5)
    expected = denoiser(2.5 * z, torch.full((5,), 2.5))
    student = OneStepStudent(denoiser, sigma_init=2.5)
    assert torch.equal(student(z), expected)
    assert torch.equal(student.training_sample(z, None, None, 0), expected)
    with pytest.raises(ValueError, match="step 0 only"):
        student.training_sample(z, None, None, 1)


SIGMAS = [3.0, 1.0, 0.4]


def test_few_step_chain_has_its_exact_distribution():
    """x_k = mean + a_k (x_{k-1} + s_k n - mean): a Gaussian whose moments follow step by step."""
    denoiser, count = Gaussian(), 200_000
    student = FewStepStudent(denoiser, sigmas=SIGMAS)
    z, noise = normal(1, count)
    mean, variance = 0.0, 0.0
    for step, sigma in enumerate(SIGMAS):
        a = denoiser.factor(sigma)
        mean, variance = denoiser.mean + a * (mean - denoiser.mean), a**2 * (variance + sigma**2)
        with torch.no_grad():
            x = student.training_sample(z, None, noise, step)
        error = math.sqrt(variance / (2 * count))
        assert x.mean().item() == pytest.approx(mean, abs=5 * error)
        assert x.std().item() == pytest.approx(math.sqrt(variance), abs=5 * error)
    with torch.no_grad():
        assert torch.equal(student(z, None, noise), x)
    assert student.steps == student.network_evaluations == 3


@pytest.mark.parametrize("step", [0, 1, 2])
def test_the_gradient_flows_through_the_last_evaluation_alone(step):
    denoiser = Gaussian()
    student = FewStepStudent(denoiser, sigmas=SIGMAS)
    z, noise = normal(2, 6)
    x = student.training_sample(z, None, noise, step)
    assert denoiser.calls == [(pytest.approx(SIGMAS[k]), k == step) for k in range(step + 1)]
    # x is gain times something that the gain before had no part in, as far as autograd knows: dx/dgain = x / gain
    (gradient,) = torch.autograd.grad(x.sum(), denoiser.gain)
    assert gradient.item() == pytest.approx(x.sum().item(), rel=1e-6)


@pytest.mark.parametrize("step", [-1, 3])
def test_a_step_that_is_not_there(step):
    z, noise = normal(0, 2)
    with pytest.raises(ValueError, match="steps 0 to 2"):
        FewStepStudent(Gaussian(), sigmas=SIGMAS).training_sample(z, None, noise, step)


def test_a_few_step_student_does_not_make_up_its_noise():
    with pytest.raises(ValueError, match="pass noise"):
        FewStepStudent(Gaussian(), sigmas=SIGMAS)(torch.zeros(1, 2))


def test_training_sees_every_step_equally_often_and_the_draw_knows_no_rank():
    student, random = FewStepStudent(Gaussian(), sigmas=SIGMAS), CounterRandom(0)
    steps = [step_of(student, random, update) for update in range(300)]
    assert all(70 < steps.count(step) < 130 for step in range(3))
    assert steps == [step_of(student, CounterRandom(0), update) for update in range(300)]
    assert steps != [step_of(student, CounterRandom(1), update) for update in range(300)]
    assert {step_of(OneStepStudent(Gaussian(), sigma_init=1.0), random, i) for i in range(9)} == {0}


@pytest.mark.parametrize("at_once", [None, 2])
def test_samples_of_all_steps_take_turns(at_once):
    student = FewStepStudent(Gaussian(), sigmas=SIGMAS)
    z, noise = normal(3, 8)
    x = samples_of_all_steps(student, z, None, noise, at_once)
    with torch.no_grad():
        of = [student.training_sample(z, None, noise, step) for step in range(3)]
    assert torch.equal(x, torch.stack([of[i % 3][i] for i in range(8)]))
    assert evaluations_of_all_steps(student, 8) == 1 + 2 + 3 + 1 + 2 + 3 + 1 + 2


def test_evaluation_samples_do_not_depend_on_the_batch():
    student = FewStepStudent(Gaussian(), sigmas=SIGMAS).requires_grad_(False)
    sampler = student_sampler(student, EvaluationNoise(0, (2,), 0, CPU))
    whole = sampler(0, 40)
    assert torch.equal(torch.cat([sampler(0, 7), sampler(7, 33)]), whole)
    noise = EvaluationNoise(0, (2,), 0, CPU)
    assert not torch.equal(noise.renoise(0, 4)(1), noise.renoise(0, 4)(2))
    assert not torch.equal(noise.renoise(0, 4)(1), noise.churn(0, 4)(1))


def test_an_untrained_point_generator_is_the_gaussian_it_says():
    z, _ = normal(4, 50)
    generator = PointGenerator(2, hidden=8, shift=3.0, spread=0.25)
    torch.testing.assert_close(generator(z), 3.0 + 0.25 * z)
    generator(z).square().sum().backward()
    trained = {name for name, p in generator.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert {"affine.weight", "affine.bias", "mlp.output.weight"} <= trained
    with pytest.raises(ValueError, match="spread"):
        PointGenerator(2, spread=-1.0)


def test_a_fresh_mlp_denoiser_is_exact_for_a_gaussian_of_sigma_data():
    x, sigma = torch.randn(6, 2), torch.rand(6) + 0.1
    expected = 0.25 / (0.25 + sigma[:, None].square()) * x
    torch.testing.assert_close(MLPDenoiser(2, hidden=8, sigma_data=0.5)(x, sigma), expected)


# Levels -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sigmas", "message"),
    [
        ([2.0], r"has 2 to 4 noise levels, this has 1; student=one_step student.sigma_init=2 is the student of one"),
        ([], "this has 0; give 2 to 4"),
        ([5.0, 4.0, 3.0, 2.0, 1.0], "this has 5; give 2 to 4"),
        ([2.0, 12.0, 80.0], r"must fall strictly .* type student.sigmas=\[80,12,2\]"),
        ([12.0, 12.0], "must fall strictly .* give levels that differ$"),
        ([100.0, 2.0], "100 is outside the network's noise levels, 0.002 to 80"),
        ([80.0, 0.001], "0.001 is outside"),
        ([80.0, float("nan")], "nan is outside"),
    ],
)
def test_levels_that_cannot_be(sigmas, message):
    with pytest.raises(ValueError, match=message):
        FewStepStudent(Gaussian(), sigmas=sigmas)


def test_a_network_of_discrete_time_is_asked_at_trained_levels():
    denoiser = DiscreteDenoiser(Identity(), [1, 2, 2], {"num_train_timesteps": 10})
    student = FewStepStudent(denoiser, sigmas=[denoiser.levels[8] * 1.01, denoiser.levels[2] * 0.99])
    assert student.sigmas == (denoiser.levels[8], denoiser.levels[2])
    near = [denoiser.levels[5], denoiser.levels[5] * 0.999]
    with pytest.raises(ValueError, match="the network was trained at .* of these only"):
        FewStepStudent(denoiser, sigmas=near)


# Factories ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", BUILT)
def test_the_same_options_build_the_same_student_and_draw_nothing(points, kind):
    before = torch.get_rng_state()
    first, second = BUILT[kind](points), BUILT[kind](points)
    assert torch.equal(torch.get_rng_state(), before)
    assert fingerprint(first) == fingerprint(second)
    assert first.kind == kind and (first.shape, first.label_dim) == ((2,), 0)
    assert all(parameter.requires_grad for parameter in first.parameters())
    with torch.no_grad():
        next(first.parameters()).add_(1)
    assert fingerprint(first) != fingerprint(second)
    assert fingerprint(BUILT[kind](points)) == fingerprint(second), "the teacher itself was changed"


def test_random_weights_follow_the_seed(digits):
    students = [factories.compact(digits, denoiser=SONG, sigma_init=2.5, seed=seed) for seed in (0, 0, 1)]
    hashes = [fingerprint(student) for student in students]
    assert hashes[0] == hashes[1] != hashes[2]
    z, labels = torch.randn(2, 1, 8, 8), torch.eye(10)[[3, 4]]
    assert students[0](z, labels).shape == (2, 1, 8, 8)


def test_a_compact_student_of_other_samples_is_refused(digits, points):
    def message(**changes):
        spec = {**SONG, **changes, "network": {**SONG["network"], **changes.get("network", {})}}
        with pytest.raises(UserError) as caught:
            factories.compact(digits, denoiser=spec, sigma_init=2.5)
        return str(caught.value)

    larger = message(shape=[1, 16, 16], network={"img_resolution": 16})
    assert "samples of shape [1, 16, 16]" in larger and "another image size cannot follow" in larger
    assert "Give a network that makes samples of shape [1, 8, 8]" in larger
    inside = message(network={"img_resolution": 16})
    assert "img_resolution=16: the network is built for another image size" in inside
    assert inside.endswith("Type student.denoiser.network.img_resolution=8")
    unconditional = message(label_dim=0, network={"label_dim": 0})
    assert "has label_dim=0" in unconditional and "Type student.denoiser.label_dim=10" in unconditional
    with pytest.raises(UserError, match="builds a PointGenerator, which is no denoiser; .* student=generator"):
        factories.compact(points, denoiser=POINTS, sigma_init=2.5)
    with pytest.raises(ValueError, match="outside the network's noise levels"):
        factories.compact(points, denoiser=MLP, sigma_init=1000.0)


@pytest.mark.parametrize("which", ["digits", "points"])
def test_without_a_network_it_says_what_to_type_and_that_works(which, request):
    teacher = replace(request.getfixturevalue(which), name="mine")
    with pytest.raises(UserError, match="no network is known for teacher=mine") as caught:
        factories.compact(teacher, sigma_init=2.5)
    word = re.search(r"'(student\.denoiser=.*)'", str(caught.value)).group(1)
    spec = OverridesParser.create().parse_override(word).value()
    student = factories.compact(teacher, denoiser=spec, sigma_init=2.5)
    assert (student.shape, student.label_dim) == (teacher.denoiser.shape, teacher.denoiser.label_dim)


def test_a_generator_that_does_not_fit_is_refused(digits, points):
    with pytest.raises(UserError, match=r"no network is known .*student.network=\{_target_: disback_cli"):
        try:
            factories.generator(points)
        except UserError as error:
            raise UserError(str(error).replace("\n", " ")) from error
    with pytest.raises(UserError, match=r"makes samples of shape \[3\], the teacher points of \[2\]"):
        factories.generator(points, network={"_target_": "torch.nn.Linear", "in_features": 2, "out_features": 3})
    with pytest.raises(UserError, match=r"Linear cannot be called with noise \(2, 2\): "):
        factories.generator(points, network={"_target_": "torch.nn.Linear", "in_features": 5, "out_features": 2})
    with pytest.raises(UserError, match=r"PointGenerator cannot be called with noise .* and labels \(2, 10\)"):
        factories.generator(digits, network=POINTS)
    with pytest.raises(UserError, match="builds a dict, not a network"):
        factories.generator(points, network={"size": 3})


# Weights to start from ----------------------------------------------------------------------------------------


@pytest.fixture
def run(points, tmp_path):
    """Writes the folder of a run with a student whose weights were moved."""

    def write(kind: str):
        student = BUILT[kind](points)
        with torch.no_grad():
            for parameter in student.parameters():
                parameter.add_(0.01)
        save_student(tmp_path / kind / "student", student, points, {})
        return str(tmp_path / kind), fingerprint(student)

    return write


def test_students_start_from_the_weights_of_another_run(points, run):
    started = {
        "one_step": lambda w: factories.one_step(points, sigma_init=2.5, weights=w),
        "few_step": lambda w: factories.few_step(points, sigmas=[80.0, 2.0], weights=w),
        "compact": lambda w: factories.compact(points, denoiser=MLP, sigma_init=2.5, weights=w),
        "generator": lambda w: factories.generator(points, network=POINTS, weights=w),
    }
    for kind, build in started.items():
        folder, expected = run(kind)
        for place in (folder, f"{folder}/student"):
            student = build(place)
            assert fingerprint(student) == expected
            assert all(parameter.requires_grad for parameter in student.parameters())


def test_weights_of_another_student_are_refused(points, run, tmp_path):
    one, compact = run("one_step")[0], run("compact")[0]
    with pytest.raises(UserError, match="is a student of kind one_step, this one is few_step; type student=one_step"):
        factories.few_step(points, sigmas=[80.0, 2.0], weights=one)
    with pytest.raises(UserError, match=r"sigma_init=2.5, .* sigma_init=1.0; type student.sigma_init=2.5"):
        factories.one_step(points, sigma_init=1.0, weights=one)
    with pytest.raises(UserError, match=r"sigmas=\[80.0, 2.0\], .*; type student.sigmas=\[80.0,2.0\]"):
        factories.few_step(points, sigmas=[80.0, 3.0], weights=run("few_step")[0])
    with pytest.raises(UserError, match="around another network than this student's: .*has shape"):
        factories.compact(points, denoiser={**MLP, "hidden": 16}, sigma_init=2.5, weights=compact)
    with pytest.raises(UserError, match="no student in"):
        factories.one_step(points, sigma_init=2.5, weights=str(tmp_path))
