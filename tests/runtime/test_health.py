"""Numbers that are not finite stop a run, named, before they are saved."""

import math
import os
import signal

import pytest
import torch

from disback_cli.runtime.callbacks import Saving, Stopping
from disback_cli.runtime.checkpoint import CheckpointStore
from disback_cli.runtime.health import FiniteGuard, NonFiniteError, named_gradients
from disback_cli.runtime.signals import StopRequest


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_guard_names_the_first_tensor_and_its_iteration(bad):
    guard = FiniteGuard(["loss", "gradient of student.a", "gradient of student.b"])
    guard.check(lambda: "none")
    guard.watch(torch.tensor([1.0, 1.0, 1.0]), 4)
    guard.check(lambda: "none")
    guard.watch(torch.tensor([1.0, bad, 1.0]), 5)
    guard.watch(torch.tensor([bad, bad, bad]), 6)
    guard.watch(torch.tensor([1.0, 1.0, 1.0]), 7)
    with pytest.raises(
        NonFiniteError, match=r"at iteration 5: gradient of student\.a\. .*checkpoints/x\.ckpt"
    ) as caught:
        guard.check(lambda: "checkpoints/x.ckpt")
    assert "student.b" not in str(caught.value)


def test_guard_shortens_a_long_list():
    guard = FiniteGuard([f"tensor {index}" for index in range(9)])
    guard.watch(torch.full((9,), math.nan), 0)
    with pytest.raises(NonFiniteError, match="tensor 3 and 5 more"):
        guard.check(lambda: "none")


def test_only_what_has_a_gradient_is_watched():
    first, second = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
    first(torch.ones(1)).sum().backward()
    names, parameters = named_gradients([("student", first), ("fake", second)])
    assert names == ["gradient of student.weight", "gradient of student.bias"]
    assert [id(p) for p in parameters] == [id(first.weight), id(first.bias)]


def nan_from(iteration: int):
    return lambda now, loss: loss * math.nan if now >= iteration else loss


@pytest.mark.parametrize("check_every", [1, 2, 100])
def test_nan_stops_the_run_and_no_checkpoint_after_it_is_registered(make_stage, fit, tmp_path, check_every):
    store = CheckpointStore(tmp_path, keep=100)
    stage = make_stage(spoil=nan_from(3), iterations=12)
    with pytest.raises(NonFiniteError, match=r"not finite at iteration 3: loss, gradient of line\.weight") as caught:
        fit(stage, Saving(store, every=2, check_every=check_every))
    assert [entry["iteration"] for entry in store.entries()] == [2]
    assert [file.name for file in tmp_path.glob("*.ckpt")] == ["iteration_00000002.ckpt"]
    assert "iteration_00000002.ckpt" in str(caught.value)


def test_nan_in_the_very_last_iteration_is_found(make_stage, fit, tmp_path):
    store = CheckpointStore(tmp_path)
    with pytest.raises(NonFiniteError, match="at iteration 5"):
        fit(make_stage(spoil=nan_from(5)), Saving(store, every=100, check_every=100))
    assert store.entries() == []


@pytest.mark.parametrize(("check_every", "noticed_after"), [(1, 4), (3, 6), (5, 5)])
def test_nan_is_noticed_at_the_next_look(make_stage, fit, tmp_path, check_every, noticed_after):
    stage = make_stage(spoil=nan_from(3), iterations=12)
    with pytest.raises(NonFiniteError, match="at iteration 3"):
        fit(stage, Saving(CheckpointStore(tmp_path), every=100, check_every=check_every))
    assert stage.iteration == noticed_after


def test_stop_by_a_signal_does_not_save_nan_either(make_stage, fit, tmp_path):
    store, request = CheckpointStore(tmp_path), StopRequest()
    saving = Saving(store, every=100, check_every=100)

    def spoil(iteration, loss):
        if iteration == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return loss * math.nan if iteration == 2 else loss

    with pytest.raises(NonFiniteError, match="at iteration 2"):
        fit(make_stage(spoil=spoil), saving, Stopping(request, saving))
    assert request.received == signal.SIGTERM
    assert store.entries() == []


def test_gradient_alone_can_be_the_culprit(make_stage, fit, tmp_path):
    """sqrt has an infinite slope at 0: the loss is finite, its gradient is not."""
    stage = make_stage(spoil=lambda now, loss: loss + (loss - loss).sqrt() if now == 1 else loss)
    with pytest.raises(NonFiniteError, match=r"at iteration 1: gradient of line\.weight, gradient of line\.bias\."):
        fit(stage, Saving(CheckpointStore(tmp_path), every=100))


def test_healthy_run_ends_without_complaint(make_stage, fit, tmp_path):
    stage = make_stage()
    fit(stage, Saving(CheckpointStore(tmp_path), every=2))
    assert stage.iteration == 6
    stage.check_health()
