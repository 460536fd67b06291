"""A probe's two numbers: closed forms for Gaussians, when they are told, and that looking changes nothing."""

import math

import pytest
import torch
from torch import nn

from disback_cli.denoisers.protocol import Denoiser, expand_sigma
from disback_cli.denoisers.sampling import heun, network_evaluations
from disback_cli.denoisers.teachers import Teacher
from disback_cli.distillation.costs import NetworkCosts
from disback_cli.distillation.diagnostics import TeacherProbe
from disback_cli.distillation.probe_set import ProbeSet
from disback_cli.distillation.recording import MismatchProbe
from disback_cli.distillation.sigma_laws import LogNormal
from disback_cli.distillation.students.base import Student
from disback_cli.runtime.callbacks import StageCallback, Telemetry
from disback_cli.runtime.randomness import CounterRandom

CPU = torch.device("cpu")
STEPS = 6
MEAN, STD = 0.3, 0.4  # of the student; the teacher's are 0 and 0.5


class Gaussian(Denoiser):
    """Posterior mean of N(mean, std^2 I) in the plane."""

    def __init__(self, mean: float = 0.0, std: float = 0.5) -> None:
        super().__init__((2,))
        self.mean, self.std = mean, std

    def forward(self, x, sigma, labels=None):
        kept = self.std**2 / (self.std**2 + expand_sigma(sigma, x).square())
        return self.mean + kept * (x - self.mean)


class Affine(Student):
    kind = "affine"

    def __init__(self, mean: float, std: float) -> None:
        super().__init__(nn.Identity(), (2,), 0)
        self.mean, self.std = mean, std

    def forward(self, z, labels=None, noise=None):
        return self.mean + self.std * z


class SamplesTheTeacher(Student):
    kind = "sampler"

    def __init__(self, teacher: Denoiser) -> None:
        super().__init__(nn.Identity(), teacher.shape, 0)
        self.teacher = (teacher,)

    def forward(self, z, labels=None, noise=None):
        return heun(self.teacher[0], z, labels, steps=STEPS).float()


def of(denoiser: Denoiser) -> Teacher:
    return Teacher("gaussian", denoiser, {}, "", {"steps": STEPS})


def expected(of_level) -> float:
    """The mean over EDM's law of lam(sigma) f(sigma), by quadrature."""
    u = (torch.arange(20000, dtype=torch.float64) + 0.5) / 20000
    sigma = LogNormal().quantile(u).double()
    return float(((sigma**2 + 0.25) / (0.5 * sigma) ** 2 * of_level(sigma)).mean())


def test_both_numbers_are_the_integrals_they_stand_for():
    teacher, fake = Gaussian(), Gaussian(MEAN, STD)
    probe = ProbeSet(CounterRandom(0), LogNormal(), teacher, 100_000, CPU, at_once=50_000)
    x = probe.of_student(Affine(MEAN, STD))
    noisy = probe.noisy(x)
    answer = probe.ask(teacher, noisy)

    def apart(s):
        a, b = STD**2 / (STD**2 + s**2), 0.25 / (0.25 + s**2)
        return (a - b) ** 2 * (STD**2 + s**2) + (1 - b) ** 2 * MEAN**2

    def loss(second_moment):
        return expected(lambda s: (s**2 / (0.25 + s**2)) ** 2 * second_moment + (0.25 / (0.25 + s**2)) ** 2 * s**2)

    assert probe.apart(probe.ask(fake, noisy), answer) == pytest.approx(math.sqrt(expected(apart)), rel=0.01)
    assert probe.apart(answer, answer) == 0.0
    assert probe.loss(answer, x) == pytest.approx(loss(MEAN**2 + STD**2), rel=0.01)
    own = probe.of_student(Affine(0.0, 0.5))
    at_own = probe.loss(probe.ask(teacher, probe.noisy(own)), own)
    assert at_own == pytest.approx(loss(0.25), rel=0.01)
    assert at_own == pytest.approx(1.0, rel=0.01)  # of a Gaussian of the data's spread; EDM's weight makes it so
    # the draws do not depend on how many samples are asked for at a time
    whole = ProbeSet(CounterRandom(0), LogNormal(), teacher, 40, CPU)
    assert torch.equal(whole.noisy(whole.of_student(Affine(MEAN, STD))), noisy[:40])


class Rows(StageCallback):
    """Keeps the rows as they would be published, by iteration."""

    def __init__(self, telemetry: Telemetry) -> None:
        self.telemetry, self.rows = telemetry, {}

    def on_train_start(self, trainer, pl_module):
        self.after_iteration(trainer, pl_module)

    def after_iteration(self, trainer, stage):
        self.rows[stage.iteration] = {k: v for k, v in self.telemetry.row.items() if "teacher" in k}
        self.telemetry.row.clear()

    def columns(self, iteration: int) -> set[str]:
        return set(self.rows.get(iteration, {}))


BOTH = {"mismatch_teacher", "teacher_loss_ratio"}


def probed(stage, teacher: Denoiser, **settings) -> tuple[TeacherProbe, Rows, list[StageCallback]]:
    telemetry = Telemetry(settings.pop("log_every", 100))
    options = {"law": LogNormal(), "samples": 40, "telemetry": telemetry, "at_once": 16} | settings
    probe, rows = TeacherProbe(of(teacher), **options), Rows(telemetry)
    return probe, rows, [telemetry, probe, rows]


def test_backtracking_is_probed_at_evaluation_points_and_not_changed(make_backtracking, fit, teacher):
    plain, stage = make_backtracking(), make_backtracking()
    fit(plain)
    probe, rows, callbacks = probed(stage, teacher, every=3 * stage.batch_size)
    fit(stage, *callbacks)
    for name, tensor in plain.state_dict().items():
        assert torch.equal(tensor, stage.state_dict()[name]), name
    assert [at for at in range(8) if rows.columns(at)] == [0, 3, 6, 7]
    assert all(rows.columns(at) == BOTH for at in (0, 3, 6, 7))
    last, points = rows.rows[7], 4
    again = MismatchProbe(_subject(stage), teacher, 40, 16)
    assert last["mismatch_teacher"] == again.measure(stage.fake)
    assert probe.ratio == last["teacher_loss_ratio"] != rows.rows[0]["teacher_loss_ratio"]
    assert probe.passes == 40 * (network_evaluations(STEPS) + 1) + points * 40 * 3


def _subject(stage):
    from disback_cli.distillation.recording import Subject

    return Subject(stage.student, stage.fake_law, stage.random, CPU)


def test_resumed_rows_are_the_uninterrupted_ones_and_the_teacher_samples_once(
    make_backtracking, fit, teacher, save_at, tmp_path
):
    whole, first, second = (make_backtracking() for _ in range(3))
    _, rows, callbacks = probed(whole, teacher, every=3 * whole.batch_size)
    fit(whole, *callbacks)
    store = save_at(tmp_path, [4])
    fit(first, *probed(first, teacher, every=3 * whole.batch_size)[2], store)
    probe, resumed, callbacks = probed(second, teacher, every=3 * whole.batch_size)
    fit(second, *callbacks, checkpoint=store.store.newest_whole())
    assert resumed.rows[6] == rows.rows[6] and resumed.rows[7] == rows.rows[7]
    assert probe.passes == 40 * (network_evaluations(STEPS) + 1) + 4 * 40 * 3


def test_recording_tells_the_ratio_of_its_frozen_student_once(make_recording, fit, teacher):
    stage = make_recording(iterations=5)
    probe, rows, callbacks = probed(stage, teacher, at_log_points=True, log_every=2)
    reference = MismatchProbe(stage, teacher, 40, 16)
    fit(stage, *callbacks)
    assert [rows.columns(at) for at in (0, 2, 4, 5)] == [BOTH, *[{"mismatch_teacher"}] * 3]
    assert not rows.columns(1) and not rows.columns(3)
    assert rows.rows[0]["mismatch_teacher"] == 0.0, "the copy is the teacher still"
    assert rows.rows[5]["mismatch_teacher"] == reference.measure(stage.fake) > 0
    assert probe.ratio == rows.rows[0]["teacher_loss_ratio"] != 1
    assert probe.passes == 40 * (network_evaluations(STEPS) + 1) + 2 * 40 + 4 * 40


def test_a_resumed_recording_has_the_rows_and_the_cost_of_an_uninterrupted_one(
    make_recording, fit, teacher, save_at, tmp_path
):
    def settled(stage) -> tuple[TeacherProbe, Rows, list[StageCallback]]:
        return probed(stage, teacher, at_log_points=True, log_every=2)

    whole, first, second = (make_recording() for _ in range(3))
    reference, rows, callbacks = settled(whole)
    fit(whole, *callbacks)
    store = save_at(tmp_path, [3])
    fit(first, *settled(first)[2], store)
    probe, resumed, callbacks = settled(second)
    fit(second, *callbacks, checkpoint=store.store.newest_whole())
    assert (resumed.rows[4], resumed.rows[5]) == (rows.rows[4], rows.rows[5])
    assert (probe.passes, probe.ratio) == (reference.passes, reference.ratio)


def test_the_ratio_of_the_teachers_own_samples_is_one(make_recording, fit, teacher):
    stage = make_recording(iterations=1)
    stage.student, stage.costs = SamplesTheTeacher(teacher), NetworkCosts()
    probe, _, callbacks = probed(stage, teacher)
    fit(stage, *callbacks)
    assert probe.ratio == 1.0


def test_no_samples_no_probe(make_recording, fit, teacher):
    stage = make_recording(iterations=2)
    probe, rows, callbacks = probed(stage, teacher, samples=0, at_log_points=True, log_every=1)
    fit(stage, *callbacks)
    assert not any(rows.rows.values()) and probe.passes == 0 and probe.ratio is None
