"""Feature extractors: what an evaluation looks at, named and hashed so that numbers of two are never mixed."""

from __future__ import annotations

import hashlib
import logging
import pickle
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from disback_cli.errors import UserError
from disback_cli.evaluation import digits_classifier, inception

log = logging.getLogger(__name__)

INCEPTION_SHA256_PREFIX = "6726825d"
INCEPTION_FILE = "pt_inception-2015-12-05-6726825d.pth"


class FeatureExtractor(Protocol):
    """Samples in, features for FID and logits for IS out. No gradient flows through."""

    name: str
    """Architecture and version; two extractors of one name and one hash give the same numbers."""
    sha256: str
    """Hash of the weights, 64 hex digits."""
    feature_dim: int
    num_classes: int
    """Number of logits; 0 if the extractor has none, and then there is no IS."""
    resize: str
    """Name of the resizer on the way in, or ``none``."""
    takes_uint8: bool
    """True for images (uint8 [B, C, H, W]), False for points (float [B, d])."""

    def __call__(self, samples: Tensor) -> tuple[Tensor, Tensor | None]:
        """Samples -> features float [B, feature_dim] and logits [B, num_classes] or None, on the extractor's device."""
        ...

    def to(self, device: torch.device | str) -> None:
        """Move the weights, in place."""
        ...


class _NetworkFeatures:
    """An extractor around a network that returns (features, logits); no nn.Module, so no precision setting casts it."""

    takes_uint8 = True

    def __init__(self, network: nn.Module) -> None:
        self._network = network.eval().requires_grad_(False)
        self._device = torch.device("cpu")

    def to(self, device: torch.device | str) -> None:
        """Move the network, in place; samples are moved to it at each call."""
        self._device = torch.device(device)
        self._network.to(self._device)

    def _prepare(self, images: Tensor) -> Tensor:
        """Check the images and bring them into the form that the network takes."""
        raise NotImplementedError

    @torch.no_grad()
    def __call__(self, samples: Tensor) -> tuple[Tensor, Tensor | None]:
        if samples.dtype != torch.uint8 or samples.ndim != 4:
            raise ValueError(f"expected uint8 images [B, C, H, W], got {samples.dtype} {list(samples.shape)}")
        # An evaluation inside a mixed-precision step must not change its numbers.
        with torch.autocast(self._device.type, enabled=False):
            features, logits = self._network(self._prepare(samples.to(self._device)))
        return features, logits


class DigitsFeatures(_NetworkFeatures):
    """The classifier of 8x8 digits that comes with the package: 64 features, 10 logits, no resize."""

    name = digits_classifier.ARCHITECTURE
    feature_dim = digits_classifier.FEATURE_DIM
    num_classes = digits_classifier.NUM_CLASSES
    resize = "none"

    def __init__(self) -> None:
        network, self.sha256 = digits_classifier.load_shipped()
        super().__init__(network)

    def _prepare(self, images: Tensor) -> Tensor:
        if tuple(images.shape[1:]) != (1, 8, 8):
            raise UserError(
                f"the digits extractor takes images [1, 8, 8], these are {list(images.shape[1:])}; "
                "choose another metrics.extractor"
            )
        return images.to(torch.float32) / 127.5 - 1.0


class InceptionFeatures(_NetworkFeatures):
    """The 2015-12-05 Inception from a file that the user names: 2048 features, 1008 logits, TensorFlow 1 resize.

    `weights` is the public conversion ``pt_inception-2015-12-05-6726825d.pth`` (torch-fidelity's
    ``weights-inception-2015-12-05-6726825d.pth`` is the same file). Grey images are repeated over the three channels.
    Raises UserError for a missing or wrong file and for an unknown resizer.
    """

    name = "inception-2015-12-05"
    feature_dim = inception.FEATURE_DIM
    num_classes = inception.NUM_LOGITS

    def __init__(self, weights: str | Path | None = None, resize: str = "tf_bilinear") -> None:
        if resize != "tf_bilinear":
            raise UserError(f"unknown resizer {resize!r}: published figures use tf_bilinear, the only one here")
        self.resize = resize
        network, self.sha256 = _load_inception(weights)
        super().__init__(network)

    def _prepare(self, images: Tensor) -> Tensor:
        if images.shape[1] not in (1, 3):
            raise UserError(f"Inception takes images of 1 or 3 channels, these have {images.shape[1]}")
        return images.expand(-1, 3, -1, -1)


def _load_inception(weights: str | Path | None) -> tuple[inception.Inception2015, str]:
    """Read the file without executing it, strictly; return the network and the sha256 of the file."""
    advice = f"put {INCEPTION_FILE} on this machine and give metrics.extractor.weights=PATH (nothing is downloaded)"
    if weights is None:
        raise UserError(f"the Inception extractor needs its weights: {advice}")
    path = Path(weights).expanduser()
    if not path.is_file():
        raise UserError(f"no Inception weights at {path}: {advice}")
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise UserError(f"{path} is not a file of torch tensors ({error}); {advice}") from error
    network = inception.Inception2015()
    _load_strictly(network, state, path)
    if not sha256.startswith(INCEPTION_SHA256_PREFIX):
        log.warning("%s is not the published file (sha256 %s..., not %s...): its FID compares with no published figure",
                    path, sha256[:8], INCEPTION_SHA256_PREFIX)  # fmt: skip
    return network, sha256


def _load_strictly(network: nn.Module, state: object, path: Path) -> None:
    """Load `state` if it has exactly the network's names and shapes; UserError naming those that differ otherwise."""
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{path} holds no table of tensors; expected {INCEPTION_FILE}")
    wanted = network.state_dict()
    # The step counters of batch normalisation play no part in evaluation, and conversions differ in keeping them.
    found = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
    needed = {key for key in wanted if not key.endswith("num_batches_tracked")}
    differences = [f"missing {key}" for key in sorted(needed - found.keys())]
    differences += [f"unexpected {key}" for key in sorted(found.keys() - needed)]
    differences += [
        f"{key} is {list(found[key].shape)}, not {list(wanted[key].shape)}"
        for key in sorted(needed & found.keys())
        if found[key].shape != wanted[key].shape
    ]
    if differences:
        shown = "; ".join(differences[:6]) + (f"; and {len(differences) - 6} more" if len(differences) > 6 else "")
        raise UserError(f"{path} is not the 2015-12-05 Inception ({INCEPTION_FILE}): {shown}")
    network.load_state_dict({**wanted, **found}, strict=True)


class PointFeatures:
    """The identity on points float [B, d]: the features are the coordinates, and there are no logits."""

    name = "points"
    sha256 = hashlib.sha256(b"identity").hexdigest()
    num_classes = 0
    resize = "none"
    takes_uint8 = False

    def __init__(self, feature_dim: int = 2) -> None:
        self.feature_dim = feature_dim

    def to(self, device: torch.device | str) -> None:
        """Nothing to move."""

    def __call__(self, samples: Tensor) -> tuple[Tensor, Tensor | None]:
        if samples.ndim != 2 or samples.shape[1] != self.feature_dim or not samples.is_floating_point():
            raise ValueError(
                f"expected float points [B, {self.feature_dim}], got {samples.dtype}, {list(samples.shape)}"
            )
        return samples.detach(), None
