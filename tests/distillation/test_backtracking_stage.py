"""Stage 2 through a real Trainer: the order of targets, the order of steps, and resuming."""

import copy

import pytest
import torch

from disback_cli.denoisers.protocol import expand_sigma
from disback_cli.distillation.losses import denoising_loss
from disback_cli.distillation.objectives.diff_instruct import DiffInstruct
from disback_cli.distillation.objectives.dmd import DistributionMatching
from disback_cli.distillation.objectives.vsd import VariationalScoreDistillation
from disback_cli.distillation.schedules import AdaptiveSchedule, EndpointSchedule, PathSchedule, WarmStartSchedule
from disback_cli.distillation.sigma_laws import LogNormal
from disback_cli.errors import UserError
from disback_cli.runtime.optimizers import AdamSettings
from disback_cli.runtime.randomness import CounterRandom

CPU = torch.device("cpu")


def bits(module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def same(first, second) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def adaptive() -> AdaptiveSchedule:
    return AdaptiveSchedule(ratio=0.97, settle=1, smoothing=0.5, max_interval=3)


# Targets ----------------------------------------------------------------------------------------------------------


def test_nodes_of_the_path_under_test_are_all_different(node_weights):
    for first in range(4):
        for second in range(first):
            assert not same(node_weights(first), node_weights(second))


@pytest.mark.parametrize("schedule", [PathSchedule(interval=2), adaptive()], ids=lambda s: type(s).__name__)
def test_fake_score_starts_from_node_n_and_every_target_is_its_node_to_the_bit(
    make_backtracking, node_weights, fit, watch, schedule
):
    stage = make_backtracking(schedule=schedule, iterations=12)
    assert same(bits(stage.fake), node_weights(3))
    assert same(bits(stage.target), node_weights(2))
    seen = []

    def look(stage):
        assert same(bits(stage.target), node_weights(int(stage.target_node)))
        assert stage.target is not stage.fake
        seen.append(stage.target_node)

    fit(stage, watch(look))
    assert sorted(set(seen), reverse=True) == [2, 1, 0]
    assert seen == sorted(seen, reverse=True)
    assert seen[-1] == 0
    assert same(bits(stage.target), node_weights(0))
    assert [node for _, node in stage.switches] == [2, 1, 0]


def test_switches_come_after_the_interval_and_are_noted(make_backtracking, fit):
    stage = make_backtracking(schedule=PathSchedule(interval=2), iterations=7)
    fit(stage)
    assert stage.switches == [(0, 2), (2, 1), (4, 0)]


@pytest.mark.parametrize(
    ("schedule", "fake_node"), [(WarmStartSchedule(), 3), (EndpointSchedule(), 0)], ids=["warm_start", "endpoint"]
)
def test_controls_follow_the_teacher_from_the_first_iteration(
    make_backtracking, node_weights, fit, watch, schedule, fake_node
):
    stage = make_backtracking(schedule=schedule, iterations=5)
    assert same(bits(stage.fake), node_weights(fake_node))
    targets = {stage.target_node}
    fit(stage, watch(lambda s: targets.add(s.target_node)))
    assert targets == {0}
    assert same(bits(stage.target), node_weights(0))


def test_a_switch_leaves_fake_score_student_and_average_alone(make_backtracking):
    stage = make_backtracking()
    before, target = bits(stage), bits(stage.target)
    stage.set_target(0)
    assert same(bits(stage), before)
    assert not same(bits(stage.target), target)


def test_fake_score_is_not_reset_at_a_switch(make_backtracking, fit, watch):
    """One more step of Adam is all that may lie between two iterations, also where the target changes."""
    stage = make_backtracking(schedule=PathSchedule(interval=2), iterations=6, lr={"student": 1e-3, "fake": 1e-3})
    states = [(stage.target_node, bits(stage.fake))]
    fit(stage, watch(lambda s: states.append((s.target_node, bits(s.fake)))))
    switched = 0
    for (node, before), (next_node, after) in zip(states, states[1:], strict=False):
        change = max(float((after[name] - before[name]).abs().max()) for name in after)
        assert 0 < change < 0.04  # Adam's steps are at most lr / sqrt(1 - beta2) = 0.032
        switched += node != next_node
    assert switched == 2


def test_target_is_neither_saved_nor_optimised_nor_trainable(make_backtracking, fit):
    stage = make_backtracking(iterations=1)
    assert {name.split(".")[0] for name in stage.state_dict()} == {"student", "fake", "ema"}
    assert all(module is not stage.target for module in stage.modules())
    fit(stage)
    optimised = [p for optimizer in stage.trainer.optimizers for g in optimizer.param_groups for p in g["params"]]
    assert {id(p) for p in optimised} == {id(p) for net in (stage.student, stage.fake) for p in net.parameters()}
    assert not any(p.requires_grad or p.grad is not None for p in stage.target.parameters())
    assert not any(p.requires_grad for p in stage.ema.parameters())


# Steps ------------------------------------------------------------------------------------------------------------


def by_hand(stage, node_weights, iterations: int, interval: int, fake_first: bool = False):
    """The published alternation, written out: two backwards, two optimisers, generator first."""
    student, fake, target = (copy.deepcopy(net) for net in (stage.student, stage.fake, stage.target))
    random, law, batch = CounterRandom(0), LogNormal(), stage.batch_size
    betas = (0.0, 0.999)
    student_optimizer = torch.optim.Adam(student.parameters(), lr=3e-3, betas=betas)
    fake_optimizer = torch.optim.Adam(fake.parameters(), lr=1e-2, betas=betas)
    node = 2
    for iteration in range(iterations):
        if iteration and iteration % interval == 0 and node:
            node -= 1
        target.load_state_dict(node_weights(node))
        x = student(random.normal("z", iteration, 0, batch, (2,), CPU))
        clean = x.detach()

        def generator_step(x=x, clean=clean, iteration=iteration):
            sigma = law.quantile(random.uniform("sigma_generator", iteration, 0, batch, CPU))
            noise = random.normal("noise_generator", iteration, 0, batch, (2,), CPU)
            noisy = clean + expand_sigma(sigma, clean) * noise
            with torch.no_grad():
                direction = fake(noisy, sigma) - target(noisy, sigma)
            student_optimizer.zero_grad()
            (x * direction).sum().div(batch).backward()
            student_optimizer.step()

        def fake_step(clean=clean, iteration=iteration):
            sigma = law.quantile(random.uniform("sigma_fake", iteration, 0, batch, CPU))
            noisy = clean + expand_sigma(sigma, clean) * random.normal("noise_fake", iteration, 0, batch, (2,), CPU)
            fake_optimizer.zero_grad()
            denoising_loss(fake(noisy, sigma), clean, sigma, 0.5).backward()
            fake_optimizer.step()

        for step in (fake_step, generator_step) if fake_first else (generator_step, fake_step):
            step()
    return student, fake


@torch.no_grad()
def distance(first, second) -> float:
    return max(float((a - b).abs().max()) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_three_iterations_equal_the_alternation_written_by_hand(make_backtracking, node_weights, fit):
    stage = make_backtracking(schedule=PathSchedule(interval=2), iterations=3)
    student, fake = by_hand(stage, node_weights, 3, interval=2)
    fit(stage)
    assert distance(stage.student, student) < 1e-6
    assert distance(stage.fake, fake) < 1e-6
    other_order, _ = by_hand(make_backtracking(), node_weights, 3, interval=2, fake_first=True)
    assert distance(other_order, student) > 1e-4
    other_interval, _ = by_hand(make_backtracking(), node_weights, 3, interval=3)
    assert distance(other_interval, student) > 1e-4


def test_generator_follows_the_fake_score_as_it_was_before_its_update(make_backtracking, fit):
    """The other order gives another student, already in the first iteration."""
    # With an eps this large the first step of Adam shows the gradient and not only its sign.
    eps = 0.01
    stage = make_backtracking(iterations=1, lr={"student": 3e-3, "fake": 0.1}, optimizer=AdamSettings(eps=eps))
    reference = copy.deepcopy(stage)
    fit(stage)
    x = reference.student(reference.normal("z", (2,)))
    sigma = LogNormal().quantile(reference.uniform("sigma_generator"))
    noisy = (x + expand_sigma(sigma, x) * reference.normal("noise_generator", (2,))).detach()

    def gradient(fake):
        with torch.no_grad():
            direction = fake(noisy, sigma) - reference.target(noisy, sigma)
        surrogate = (x * direction).sum() / len(x)
        return torch.autograd.grad(surrogate, list(reference.student.parameters()), retain_graph=True)

    def stepped(gradients):
        # Adam's first step with beta1 = 0: lr g / (|g| + eps)
        return [p - 3e-3 * g / (g.abs() + eps) for p, g in zip(reference.student.parameters(), gradients, strict=True)]

    def gap(weights):
        return max(
            float((a - b).detach().abs().max()) for a, b in zip(stage.student.parameters(), weights, strict=True)
        )

    assert gap(stepped(gradient(reference.fake))) < 1e-6
    assert gap(stepped(gradient(stage.fake))) > 1e-4


@pytest.mark.parametrize(
    ("share_draw", "fake_calls"), [(False, [False, True]), (True, [True])], ids=["apart", "shared"]
)
def test_networks_keep_a_graph_only_where_a_gradient_is_taken(make_backtracking, share_draw, fake_calls):
    stage = make_backtracking(share_draw=share_draw)
    calls = {"student": [], "target": [], "fake": []}
    for name, network in (("student", stage.student), ("target", stage.target), ("fake", stage.fake)):
        network.register_forward_pre_hook(lambda *_, name=name: calls[name].append(torch.is_grad_enabled()))
    stage.losses(0)
    assert calls == {"student": [True], "target": [False], "fake": fake_calls}


def test_losses_have_disjoint_parameters(make_backtracking):
    for share_draw in (False, True):
        stage = make_backtracking(share_draw=share_draw)
        losses, _ = stage.losses(0)
        student = torch.autograd.grad(
            losses["generator_loss"], list(stage.fake.parameters()), retain_graph=True, allow_unused=True
        )
        fake = torch.autograd.grad(
            losses["fake_loss"], list(stage.student.parameters()), retain_graph=True, allow_unused=True
        )
        assert all(gradient is None for gradient in (*student, *fake))


def test_sharing_the_draw_changes_the_fake_scores_noise_but_not_the_generators_loss(make_backtracking):
    apart, _ = make_backtracking().losses(0)
    shared, _ = make_backtracking(share_draw=True).losses(0)
    assert torch.equal(apart["generator_loss"], shared["generator_loss"])
    assert not torch.equal(apart["fake_loss"], shared["fake_loss"])


def test_mismatch_reported_is_that_of_fake_score_and_target_on_the_noisy_samples(make_backtracking):
    stage = make_backtracking()
    _, scalars = stage.losses(0)
    assert float(scalars["mismatch"]) > 0
    stage.target.load_state_dict(stage.fake.state_dict())
    losses, scalars = stage.losses(0)
    assert float(scalars["mismatch"]) == 0
    assert float(losses["generator_loss"].detach()) == 0


@pytest.mark.parametrize(
    "objective",
    [DiffInstruct(), VariationalScoreDistillation(), DistributionMatching()],
    ids=lambda o: type(o).__name__,
)
def test_every_objective_moves_both_networks(make_backtracking, fit, objective):
    stage = make_backtracking(objective=objective, iterations=2)
    student, fake = bits(stage.student), bits(stage.fake)
    fit(stage)
    assert not same(bits(stage.student), student)
    assert not same(bits(stage.fake), fake)


# Average ----------------------------------------------------------------------------------------------------------


def test_average_follows_its_recursion(make_backtracking, fit, watch):
    stage = make_backtracking(ema_halflife=40.0, ema_rampup=0.0, iterations=5)
    expected = {name: p.detach().double().clone() for name, p in stage.student.named_parameters()}
    keep = 0.5 ** (16 / 40)

    def look(stage):
        for name, parameter in stage.student.named_parameters():
            expected[name] = keep * expected[name] + (1 - keep) * parameter.detach().double()

    fit(stage, watch(look))
    for name, average in stage.ema.network.named_parameters():
        torch.testing.assert_close(average.double(), expected[name], rtol=0, atol=1e-6)
    assert distance(stage.ema.network, stage.student) > 1e-4


def test_half_life_zero_keeps_the_average_equal_to_the_student(make_backtracking, fit):
    stage = make_backtracking(ema_halflife=0.0, iterations=2)
    fit(stage)
    assert distance(stage.ema.network, stage.student) == 0


# Resuming ---------------------------------------------------------------------------------------------------------


def assert_equal(first, second, where="checkpoint"):
    """Equal to the bit, whatever is nested in it."""
    if isinstance(first, torch.Tensor):
        assert torch.equal(first, second), where
    elif isinstance(first, dict):
        assert first.keys() == second.keys(), where
        for key in first:
            assert_equal(first[key], second[key], f"{where}.{key}")
    elif isinstance(first, (list, tuple)):
        assert len(first) == len(second), where
        for index, (a, b) in enumerate(zip(first, second, strict=True)):
            assert_equal(a, b, f"{where}[{index}]")
    else:
        assert first == second, where


def content(saver, iteration: int) -> dict:
    checkpoint = torch.load(saver.store.path_for(iteration), weights_only=True)
    checkpoint["stage"].pop("seconds")
    return {key: checkpoint[key] for key in ("state_dict", "optimizer_states", "stage")}


@pytest.mark.parametrize("at", [1, 3, 4, 6])
@pytest.mark.parametrize("schedule", [lambda: PathSchedule(interval=2), adaptive], ids=["path", "adaptive"])
@pytest.mark.parametrize("share_draw", [False, True], ids=["apart", "shared"])
def test_resumed_run_is_the_uninterrupted_one_to_the_bit(
    make_backtracking, fit, save_at, tmp_path, at, schedule, share_draw
):
    settings = {"iterations": 7, "share_draw": share_draw, "lr_schedule": "cosine", "ema_rampup": 0.5}
    whole, whole_saver = make_backtracking(schedule=schedule(), **settings), save_at(tmp_path / "whole", [7])
    fit(whole, whole_saver)
    first_saver = save_at(tmp_path / "first", [at])
    fit(make_backtracking(schedule=schedule(), **settings), first_saver)
    resumed, resumed_saver = make_backtracking(schedule=schedule(), **settings), save_at(tmp_path / "resumed", [7])
    fit(resumed, resumed_saver, checkpoint=first_saver.store.newest_whole())
    assert_equal(content(whole_saver, 7), content(resumed_saver, 7))
    assert resumed.switches == whole.switches
    assert same(bits(resumed.target), bits(whole.target))
    assert resumed.read_scalars() == whole.read_scalars()


def test_checkpoint_holds_moments_and_state_worth_comparing(make_backtracking, fit, save_at, tmp_path):
    saver = save_at(tmp_path, [4, 5])
    fit(make_backtracking(schedule=adaptive()), saver)
    found = content(saver, 5)
    assert len(found["optimizer_states"]) == 2
    assert all(state["state"][0]["exp_avg_sq"].abs().sum() > 0 for state in found["optimizer_states"])
    assert {"iteration", "schedule", "target_node", "switches"} <= found["stage"].keys()
    with pytest.raises(AssertionError):
        assert_equal(found, content(saver, 4))


def test_checkpoint_of_another_batch_size_is_refused(make_backtracking, fit, save_at, tmp_path):
    saver = save_at(tmp_path, [3])
    fit(make_backtracking(), saver)
    with pytest.raises(UserError, match="batch_size=16, this run has 8"):
        fit(make_backtracking(batch_size=8), checkpoint=saver.store.newest_whole())


def test_checkpoint_of_another_network_is_refused(make_backtracking, fit, save_at, tmp_path):
    """Loading is strict: a missing weight is an error, not a silent default."""
    saver = save_at(tmp_path, [3])
    fit(make_backtracking(), saver)
    file = saver.store.newest_whole()
    checkpoint = torch.load(file, weights_only=True)
    checkpoint["state_dict"].pop(next(name for name in checkpoint["state_dict"] if name.startswith("fake.")))
    torch.save(checkpoint, file)
    with pytest.raises(RuntimeError, match="Missing key"):
        fit(make_backtracking(), checkpoint=file)


# Several processes ------------------------------------------------------------------------------------------------


class World:
    """torch.distributed as seen by one rank of a world, without the world."""

    def __init__(self, monkeypatch, size: int) -> None:
        self.rank = 0
        monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
        monkeypatch.setattr("torch.distributed.get_world_size", lambda: size)
        monkeypatch.setattr("torch.distributed.get_rank", lambda: self.rank)


@pytest.mark.parametrize("size", [2, 4])
def test_ranks_draw_the_single_processs_samples_between_them(make_backtracking, monkeypatch, size):
    stage = make_backtracking(batch_size=24)
    stage.iteration = 5

    def draws():
        return stage.normal("z", (2,)), stage.uniform("sigma_fake"), stage.one_hot_labels("labels", 10)

    alone = draws()
    world = World(monkeypatch, size)
    parts = []
    for world.rank in range(size):
        assert stage.share == (world.rank * 24 // size, 24 // size)
        parts.append(draws())
    for whole, *shares in zip(alone, *parts, strict=True):
        assert torch.equal(torch.cat(shares), whole)


@pytest.mark.parametrize(
    "objective",
    [DiffInstruct(), VariationalScoreDistillation(), DistributionMatching()],
    ids=lambda o: type(o).__name__,
)
def test_mean_of_the_ranks_gradients_is_the_single_processs_gradient(make_backtracking, monkeypatch, objective):
    stage = make_backtracking(objective=objective)
    parameters = [p for net in stage.trained().values() for p in net.parameters()]

    def gradient():
        losses, _ = stage.losses(0)
        return torch.autograd.grad(sum(losses.values()), parameters)

    alone = gradient()
    world = World(monkeypatch, 2)
    parts = []
    for world.rank in range(2):
        parts.append(gradient())
    for whole, first, second in zip(alone, *parts, strict=True):
        torch.testing.assert_close((first + second) / 2, whole, rtol=1e-4, atol=1e-6)
    assert any(not torch.allclose(first, second) for first, second in zip(*parts, strict=True))


def test_ranks_agree_on_the_mismatch_of_the_whole_batch(make_backtracking, monkeypatch):
    stage = make_backtracking(schedule=adaptive())
    _, scalars = stage.losses(0)
    alone = float(scalars["mismatch"])
    world = World(monkeypatch, 2)
    own = []
    for world.rank in range(2):
        own.append(float(stage.losses(0)[1]["mismatch"]))
    other = torch.tensor(own[0] ** 2)
    monkeypatch.setattr("torch.distributed.all_reduce", lambda value: value.add_(other))
    assert own[0] != own[1]
    assert stage._agreed_mismatch() == pytest.approx(alone, rel=1e-5)


def test_batch_that_the_ranks_cannot_share_is_refused(make_backtracking, monkeypatch):
    stage = make_backtracking(batch_size=10)
    World(monkeypatch, 4)
    with pytest.raises(UserError, match="batch_size=10 cannot be shared evenly by 4"):
        stage.normal("z", (2,))


# Passes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", [PathSchedule(interval=2), adaptive()], ids=lambda s: type(s).__name__)
def test_a_batch_in_passes_trains_like_the_whole_batch(make_backtracking, fit, schedule):
    stages, diversities = [], []
    for passes in (1, 2):
        stage = make_backtracking(schedule=copy.deepcopy(schedule), iterations=5, passes=passes)
        fit(stage)
        stages.append(stage)
        diversities.append(stage.read_scalars()["sample_diversity"])
    whole, parts = stages
    assert diversities[1] == pytest.approx(diversities[0], rel=1e-4)
    assert parts.switches == whole.switches
    for name, tensor in whole.state_dict().items():
        torch.testing.assert_close(parts.state_dict()[name], tensor, rtol=1e-3, atol=1e-5)


def test_spread_over_the_batch_is_told_where_a_pass_is_a_single_sample(make_backtracking, fit):
    readings = []
    for passes in (1, 4):
        stage = make_backtracking(iterations=1, batch_size=4, passes=passes)
        fit(stage)
        readings.append(stage.read_scalars()["sample_diversity"])
    assert readings[1] == pytest.approx(readings[0], rel=1e-4)
    alone = make_backtracking(iterations=1, batch_size=1)
    fit(alone)
    assert "sample_diversity" not in alone.read_scalars()
