"""What an iteration costs on a convolutional network, counted by torch, in forward passes F of the teacher."""

import lightning.pytorch as pl
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from disback_cli.denoisers.edm import EDMDenoiser
from disback_cli.denoisers.song_unet import SongUNet
from disback_cli.distillation.schedules import EndpointSchedule

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
