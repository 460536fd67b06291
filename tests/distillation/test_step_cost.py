"""What an iteration costs on a convolutional network, counted by torch, in forward passes F of the teacher."""

import copy
from functools import partial

import lightning.pytorch as pl
import pytest
import torch
from objective_stages import OBJECTIVES, WITH_CRITIC, backtracking
from torch.utils.flop_counter import FlopCounterMode

from disback_cli.data.digits import digits
from disback_cli.denoisers.edm import EDMDenoiser
from disback_cli.denoisers.gaussian_mixture import MixtureDenoiser
from disback_cli.denoisers.protocol import Denoiser
from disback_cli.denoisers.song_unet import SongUNet
from disback_cli.distillation.adapters import LoraSettings
from disback_cli.distillation.costs import NetworkCosts, measure_costs, passes_of_iteration
from disback_cli.distillation.discriminator import BottleneckTap
from disback_cli.distillation.objectives.critic import Critic
from disback_cli.distillation.objectives.diff_instruct import DiffInstruct
from disback_cli.distillation.objectives.dmd2 import ImprovedDistributionMatching
from disback_cli.distillation.objectives.sid import ScoreIdentity
from disback_cli.distillation.schedules import EndpointSchedule
from disback_cli.distillation.students import FewStepStudent, OneStepStudent

BATCH = 4


@pytest.fixture
def network() -> EDMDenoiser:
    torch.manual_seed(0)
    unet = SongUNet(
        8, 1, 1, label_dim=10, model_channels=16, channel_mult=(1, 2), num_blocks=1, attn_resolutions=(4,), dropout=0.0
    )
    return EDMDenoiser(unet, (1, 8, 8), label_dim=10).eval()


class CountOneIteration(pl.Callback):
    """Counts everything between the beginning and the end of an iteration."""

    def __init__(self) -> None:
        self.counter = FlopCounterMode(display=False)

    def on_train_batch_start(self, *_) -> None:
        self.counter.__enter__()

    def on_train_batch_end(self, *_) -> None:
        self.counter.__exit__(None, None, None)


@torch.no_grad()
def forward_pass(network: EDMDenoiser) -> int:
    with FlopCounterMode(display=False) as counter:
        network(torch.zeros(BATCH, 1, 8, 8), torch.ones(BATCH), torch.eye(10)[:BATCH])
    return counter.get_total_flops()


def passes(network, stage, fit) -> float:
    """Cost of an iteration of four samples, in passes of the network over four samples."""
    count = CountOneIteration()
    fit(stage, count)
    return count.counter.get_total_flops() / forward_pass(network)


def test_recording_costs_four_passes(network, make_recording, fit):
    stage = make_recording(network, batch_size=BATCH, iterations=1)
    assert 3.4 <= passes(network, stage, fit) <= 4.05
    assert stage.passes_per_sample == 4


@pytest.mark.parametrize(("share_draw", "expected"), [(False, 8), (True, 7)], ids=["apart", "shared"])
def test_backtracking_costs_eight_passes_or_seven(network, make_backtracking, fit, share_draw, expected):
    weights = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    stage = make_backtracking(
        network, batch_size=BATCH, iterations=1, share_draw=share_draw,
        schedule=EndpointSchedule(), node_weights=lambda _: weights, last=0,
    )  # fmt: skip
    assert expected - 0.6 <= passes(network, stage, fit) <= expected + 0.05
    assert stage.passes_per_sample == expected


# Objectives, updates, students and fake scores --------------------------------------------------------------------


def wide(channel_mult: tuple[int, ...] = (2, 1)) -> EDMDenoiser:
    """A network beside which the head of a critic, which is not counted, costs little, as beside a real one."""
    torch.manual_seed(0)
    unet = SongUNet(
        8, 1, 1, label_dim=10, augment_dim=9, model_channels=16, channel_mult=channel_mult, num_blocks=1,
        attn_resolutions=(4,), dropout=0.0,
    )  # fmt: skip
    return EDMDenoiser(unet, (1, 8, 8), label_dim=10).eval()


def stage_on(network: Denoiser, objective, **settings):
    weights = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    return backtracking(
        objective, teacher=network, node_weights=lambda _: weights, dataset=digits(), batch_size=BATCH, iterations=1,
        **settings,
    )  # fmt: skip


FRESH = {"fake_updates": 3, "fake_samples": "fresh"}
RENOISED = {"fake_updates": 3, "fake_samples": "renoised"}


@pytest.mark.parametrize(
    ("name", "updates"),
    [*((name, FRESH) for name in OBJECTIVES), ("dmd2", {"fake_updates": 1}), ("dmd2", RENOISED)],
    ids=lambda value: value if isinstance(value, str) else "-".join(map(str, value.values())),
)
def test_what_an_iteration_is_said_to_cost_is_what_it_costs(name, updates, fit):
    network = wide()
    stage = stage_on(network, OBJECTIVES[name](), **updates)
    said = stage.passes_per_sample
    assert stage.critic_acts == (name in WITH_CRITIC)
    assert passes(network, stage, fit) == pytest.approx(said, rel=0.03)
    assert stage.network_passes == said * BATCH


def test_waiting_critic_costs_nothing(fit):
    network = wide()
    stage = stage_on(network, OBJECTIVES["dmd2"](warmup=1), fake_updates=1)
    assert stage.passes_per_sample == 8
    assert passes(network, stage, fit) == pytest.approx(8, rel=0.01)


def adapted(network: Denoiser, layers: str = "all") -> Denoiser:
    from disback_cli.distillation.lora import adapted

    return adapted(network, LoraSettings(2, 2.0, layers), seed=0, group="fake")


@pytest.mark.parametrize(("name", "layers"), [("diff_instruct", "all"), ("sid", "attention"), ("dmd2", "all")])
def test_adapters_make_the_training_backward_pass_cheaper(name, layers, fit):
    network = wide()
    stage = stage_on(network, OBJECTIVES[name](), fake=adapted(network, layers), fake_updates=1)
    assert stage.costs.fake_backward < 1.5
    assert stage.passes_per_sample < stage_on(network, OBJECTIVES[name](), fake_updates=1).passes_per_sample
    assert passes(network, stage, fit) == pytest.approx(stage.passes_per_sample, rel=0.03)


@pytest.mark.parametrize("seed", [0, 1])
def test_few_step_student_costs_its_simulated_steps(seed, fit):
    network = wide()
    student = FewStepStudent(copy.deepcopy(network).trainable_(), sigmas=[2.5, 0.8, 0.2])
    stage = stage_on(
        network, DiffInstruct(), student=student, seed=seed, fake_updates=2, fake_samples="fresh",
    )  # fmt: skip
    assert passes(network, stage, fit) == pytest.approx(stage.network_passes / BATCH, rel=0.03)
    assert stage.network_passes / BATCH in {12 + earlier for earlier in range(5)}


def test_smaller_student_is_measured(fit):
    network = wide()
    student = OneStepStudent(wide((1, 1)).trainable_(), sigma_init=1.0)
    stage = stage_on(network, DiffInstruct(), student=student, fake_updates=1)
    assert stage.costs.student < 0.5
    assert passes(network, stage, fit) == pytest.approx(stage.passes_per_sample, rel=0.03)


def test_costs_of_copies_of_the_teacher_are_whole_numbers():
    network = wide()
    fake = copy.deepcopy(network).trainable_()
    costs = measure_costs(network, OneStepStudent(copy.deepcopy(network).trainable_(), sigma_init=1.0), fake)
    assert costs == NetworkCosts()


def test_measuring_leaves_no_trace():
    network = wide().train()
    fake, student = copy.deepcopy(network).trainable_(), OneStepStudent(adapted(network), sigma_init=1.0)
    torch.manual_seed(3)
    state, modes = torch.get_rng_state(), [module.training for module in student.modules()]
    measure_costs(network, student, fake, BottleneckTap(fake))
    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in student.modules()] == modes
    assert all(module.training for net in (network, fake) for module in net.modules())
    assert all(p.grad is None for net in (network, fake, student) for p in net.parameters())
    assert not any(module._forward_hooks for net in (network, fake, student) for module in net.modules())


def test_teacher_in_closed_form_makes_every_network_count_as_one():
    class ClosedForm(Denoiser):
        def forward(self, x, sigma, labels=None):
            return x / (1 + sigma[:, None] ** 2)

    network = MixtureDenoiser("ring", hidden=16, depth=2)
    costs = measure_costs(ClosedForm((2,)), OneStepStudent(copy.deepcopy(network), sigma_init=1.0), network)
    assert costs == NetworkCosts()


E = 0.25
COSTS = NetworkCosts(student=1.0, encoder=E)
DMD2 = ImprovedDistributionMatching(critic=Critic())
QUIET = ImprovedDistributionMatching(critic=Critic(generator_weight=0.0))


@pytest.mark.parametrize(
    ("objective", "settings", "expected"),
    [
        (DiffInstruct(), {}, 3 + 1 + 1 + 3),
        (DiffInstruct(), {"share_draw": True}, 3 + 1 + 1 + 2),
        (DiffInstruct(), {"fake_updates": 5}, 5 + 5 * 3),
        (DiffInstruct(), {"fake_updates": 3, "fresh": True, "earlier_evaluations_fresh": [0, 2]}, 5 + 9 + 1 + 3),
        (DiffInstruct(), {"earlier_evaluations": 2}, 8 + 2),
        (DiffInstruct(), {"regression_acts": True}, 8 + 3),
        (ScoreIdentity(), {}, 3 + 2 + 2 + 3),
        (DMD2, {"fake_updates": 5}, 5 + 5 * 3),
        (DMD2, {"fake_updates": 5, "critic_acts": True}, 5 + E + 5 * (3 + 3 * E)),
        (QUIET, {"fake_updates": 5, "critic_acts": True}, 5 + 5 * (3 + 3 * E)),
        (OBJECTIVES["sida"](), {"critic_acts": True}, 7 + 3 + 3 * E),
    ],
)
def test_table_of_costs(objective, settings, expected):
    assert passes_of_iteration(objective, COSTS, **settings) == pytest.approx(expected)


def test_table_of_costs_with_other_networks():
    count = partial(passes_of_iteration, DMD2, critic_acts=True, fake_updates=2)
    small = NetworkCosts(student=0.5, student_backward=1.0, encoder=E)
    assert count(small) == pytest.approx(1.5 + 1 + 1 + E + 2 * (3 + 3 * E))
    lora = NetworkCosts(encoder=E, fake=1.1, fake_backward=1.1)
    assert count(lora) == pytest.approx(3 + 1 + 1.1 + E + 2 * (2.2 + 2 * E))
