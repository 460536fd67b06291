"""The arithmetic of the Inception network on made-up weights: literals that a change of any detail would move.

The network agrees bit for bit with torch-fidelity 0.4.0's on such weights; the literals keep it there.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from disback_cli.evaluation.inception import INPUT_SIZE, Inception2015


@pytest.fixture(scope="module")
def network() -> Inception2015:
    """Weights that keep the signal alive through all layers, so that the pixels reach the features."""
    generator = torch.Generator().manual_seed(20151205)
    with torch.device("meta"):
        made = Inception2015()
    made = made.to_empty(device="cpu").eval()
    for module in made.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.data.normal_(0.0, math.sqrt(2.0 / module.weight[0].numel()), generator=generator)
        elif isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            module.weight.data.fill_(1.0)
            module.bias.data.normal_(0.0, 0.1, generator=generator)
            module.running_mean.normal_(0.0, 0.1, generator=generator)
            module.running_var.uniform_(0.8, 1.2, generator=generator)
    made.fc.weight.data.normal_(0.0, 0.05, generator=generator)
    made.fc.bias.data.normal_(0.0, 1.0, generator=generator)
    return made


@torch.no_grad()
def test_features_and_logits_are_what_they_were(network: Inception2015) -> None:
    row = torch.arange(INPUT_SIZE, dtype=torch.float32)
    planes = [row[:, None] * 3 + row * 5, row[:, None] * row, row[:, None] + 7 * row]
    features, logits = network((torch.stack(planes) % 256)[None])
    assert features.shape == (1, 2048) and logits.shape == (1, 1008)
    found = features[0, [0, 500, 1000, 1500, 1900, 2000, 2047]].tolist()
    expected = [1.6908184, 0.1802764, 0.0, 0.1498380, 0.0, 1.8774908, 0.3499703]
    assert found == pytest.approx(expected, rel=2e-4, abs=1e-5)
    assert float(features.mean()) == pytest.approx(1.0406060, rel=2e-5)
    assert float(features.std()) == pytest.approx(1.3814288, rel=2e-5)
    expected = [-2.5860233, 0.7812546, 4.9713497, -0.8566892]
    assert logits[0, [0, 1, 500, 1007]].tolist() == pytest.approx(expected, rel=2e-4), "without the classifier's bias"
