"""The small classifier of 8x8 digits whose hidden layer is the feature space of the shipped FID."""

from __future__ import annotations

import hashlib
import json
from importlib.resources import files

import torch
from safetensors.torch import load
from torch import Tensor, nn

ARCHITECTURE = "digits-classifier-1"
"""Name of the layout below; another layout or scaling takes another name, so that its numbers are never mixed."""

FEATURE_DIM = 64
NUM_CLASSES = 10
ASSET = ("assets", "digits_classifier")


class DigitsClassifier(nn.Module):
    """Two convolutions, one pooling, one hidden layer of 64 smooth units, ten logits: 85,066 parameters.

    The hidden units use SiLU, not ReLU: a dead unit would leave the feature covariance singular.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, 3, padding=1)
        self.conv2 = nn.Conv2d(32, 64, 3, padding=1)
        self.hidden = nn.Linear(64 * 4 * 4, FEATURE_DIM)
        self.head = nn.Linear(FEATURE_DIM, NUM_CLASSES)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Digits float [B, 1, 8, 8] in [-1, 1] -> features [B, 64] and logits [B, 10]."""
        h = nn.functional.silu(self.conv1(x))
        h = nn.functional.max_pool2d(nn.functional.silu(self.conv2(h)), 2)
        features = nn.functional.silu(self.hidden(h.flatten(1)))
        return features, self.head(features)


def load_shipped() -> tuple[DigitsClassifier, str]:
    """The classifier that comes with the package, in evaluation mode without gradients, and the sha256 of its weights.

    Raises RuntimeError if the installed weights differ from what their config.json states (a damaged installation).
    """
    folder = files("disback_cli").joinpath(*ASSET)
    config = json.loads(folder.joinpath("config.json").read_text(encoding="utf-8"))
    blob = folder.joinpath("model.safetensors").read_bytes()
    found = hashlib.sha256(blob).hexdigest()
    if config["architecture"] != ARCHITECTURE or config["sha256"] != found:
        raise RuntimeError(
            f"the shipped digits classifier is damaged: expected {ARCHITECTURE} {config['sha256'][:12]}, "
            f"found {config['architecture']} {found[:12]}; reinstall the package"
        )
    model = DigitsClassifier()
    model.load_state_dict(load(blob), strict=True)
    return model.eval().requires_grad_(False).to(torch.float32), found
