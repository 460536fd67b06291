"""A flow-matching network of a user's own class, from a plain state dict to samples of its student."""

from __future__ import annotations

import torch
from disback_command import Workplace, refused, succeeded

NET = '''
import torch
from torch import nn


class Net(nn.Module):
    """A velocity for points as images 1x1x2."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)

    def forward(self, x, t, labels=None):
        return self.linear(torch.cat([x.flatten(1), t[:, None]], 1)).reshape(x.shape)
'''
SMALL = ("batch_size=8", "iterations=6", "trainer.threads=1")


def test_from_a_state_dict_to_samples(workplace: Workplace) -> None:
    (workplace.folder / "mynet.py").write_text(NET)
    weights = {"linear.weight": torch.randn(2, 3), "linear.bias": torch.zeros(2)}
    torch.save({"ema": weights, "step": 3}, workplace.folder / "net.pt")
    words = (
        "teacher=flow", "teacher.weights=net.pt", "teacher.denoiser.shape=[1,1,2]",
        "teacher.denoiser.network._target_=mynet.Net",
    )  # fmt: skip
    succeeded(workplace("record", *words, *SMALL, "nodes=2", "probe_samples=4"))
    recorded = workplace.run_of("record")
    walk = ("backtrack", f"path={recorded}", *SMALL, "schedule.interval=2")
    refused(workplace(*walk), "mynet.Net' is not taken over", "DISBACK_TRUST=mynet")
    succeeded(workplace(*walk, DISBACK_TRUST="mynet"))
    run = workplace.run_of("backtrack")
    refused(workplace("sample", f"student={run}", "n=4"), "DISBACK_TRUST=mynet")
    done = succeeded(workplace("sample", f"student={run}", "n=4", "out=drawn", DISBACK_TRUST="mynet"))
    assert "4 samples of the student" in done.stdout
    assert (workplace.folder / "drawn" / "samples.npz").is_file()
