"""What can be launched here, and what is refused with a way out."""

import os
import warnings

import pytest
import torch
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy

from disback_cli.errors import UserError
from disback_cli.runtime.checkpoint import AtomicCheckpointIO
from disback_cli.runtime.launch import Launch


@pytest.fixture(autouse=True)
def keep_filters():
    with warnings.catch_warnings():
        yield


def test_more_devices_than_the_machine_has_are_refused():
    cores = os.cpu_count() or 1
    with pytest.raises(UserError, match=rf"trainer\.devices={cores + 1} is more than the {cores} CPU cores"):
        Launch(accelerator="cpu", devices=cores + 1, strategy="ddp")


@pytest.mark.parametrize("settings", [{"devices": 2}, {"num_nodes": 2}])
def test_several_processes_need_ddp(settings):
    with pytest.raises(UserError, match="trainer=ddp"):
        Launch(accelerator="cpu", strategy="single", **settings)


@pytest.mark.parametrize("settings", [{"devices": 0}, {"num_nodes": 0}, {"devices": -1}])
def test_no_devices_are_refused(settings):
    with pytest.raises(UserError, match="must be at least 1"):
        Launch(accelerator="cpu", **settings)


def test_gpu_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=r"trainer\.accelerator=cpu"):
        Launch(accelerator="gpu")
    assert Launch(accelerator="auto").device == torch.device("cpu")


def test_gpus_are_counted_and_taken_by_local_rank(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert Launch(devices=2, strategy="ddp").device == torch.device("cuda", 1)
    assert Launch(accelerator="cpu").device == torch.device("cpu")
    with pytest.raises(UserError, match="more than the 2 GPUs"):
        Launch(devices=3, strategy="ddp")


def test_batch_must_be_shared_evenly_and_the_next_possible_one_is_named(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    launch = Launch(accelerator="cpu", devices=4, num_nodes=2, strategy="ddp")
    assert launch.processes == 8
    launch.require_divisible(64)
    with pytest.raises(UserError, match="batch_size=61 cannot be shared evenly by 8 processes; try batch_size=64"):
        launch.require_divisible(61)


def test_cores_are_shared_out_unless_threads_are_given(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert Launch(accelerator="cpu", devices=4, strategy="ddp").threads == 2
    assert Launch(accelerator="cpu").threads == 8
    assert Launch(accelerator="cpu", threads=3).threads == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert Launch(accelerator="cpu").threads == 5


@pytest.mark.parametrize(("started", "devices"), [("2", 1), ("1", 2), ("4", 2)])
def test_another_number_of_processes_than_the_trainers_is_refused(monkeypatch, started, devices):
    monkeypatch.setenv("WORLD_SIZE", started)
    with pytest.raises(UserError, match=f"{started} processes were started"):
        Launch(accelerator="cpu", devices=devices, strategy="ddp")


def test_trainer_of_one_process_saves_atomically_and_reports_nothing_itself():
    trainer = Launch(accelerator="cpu", threads=1).trainer([], [])
    assert isinstance(trainer.strategy, SingleDeviceStrategy)
    assert isinstance(trainer.strategy.checkpoint_io, AtomicCheckpointIO)
    assert trainer.loggers == []
    assert trainer.checkpoint_callback is None
    assert trainer.progress_bar_callback is None
    assert torch.get_num_threads() == 1


def test_ddp_trainer_uses_gloo_on_the_cpu_and_does_not_send_buffers(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    trainer = Launch(accelerator="cpu", devices=2, strategy="ddp", threads=1).trainer([], [])
    assert isinstance(trainer.strategy, DDPStrategy)
    assert trainer.strategy.process_group_backend == "gloo"
    assert False in trainer.strategy._ddp_kwargs.values()
    assert trainer.world_size == 2


@pytest.mark.parametrize(
    ("batch", "most", "passes"), [(32, None, 1), (32, 32, 1), (32, 9, 4), (30, 8, 5), (7, 3, 7), (4, 100, 1)]
)
def test_a_share_is_gone_through_in_the_fewest_passes_of_one_size(batch, most, passes):
    assert Launch(accelerator="cpu", max_batch=most).passes(batch) == passes


def test_a_device_that_handles_no_sample_is_refused():
    with pytest.raises(UserError, match="trainer.max_batch=0 must be at least 1"):
        Launch(accelerator="cpu", max_batch=0)


def test_an_odd_share_is_warned_of_with_a_batch_that_fits(messages):
    assert Launch(accelerator="cpu", max_batch=64).passes(254) == 127
    assert "batch_size=256 would need fewer passes" in messages()
    assert Launch(accelerator="cpu", max_batch=64).passes(256) == 4
    assert messages().count("would need fewer passes") == 1
