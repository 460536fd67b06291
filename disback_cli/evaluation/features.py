"""Feature extractors: what an evaluation looks at, named and hashed so that numbers of two are never mixed."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from disback_cli.errors import UserError
from disback_cli.evaluation import digits_classifier, inception
from disback_cli.evaluation.inception_weights import load_inception
from disback_cli.evaluation.resizing import RESIZERS, ResizerName


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


def require_fitting(extractor: FeatureExtractor, shape: tuple[int, ...], whose: str) -> None:
    """Raise UserError unless the extractor looks at samples of this shape; `whose`: who has them, for the message."""
    shown = f"{whose} samples of shape {tuple(shape)}"
    if extractor.takes_uint8 and len(shape) != 3:
        raise UserError(f"{extractor.name} looks at images, {shown}; choose metrics=points")
    if not extractor.takes_uint8 and len(shape) == 3:
        raise UserError(f"{extractor.name} looks at points, {shown}; choose metrics=inception, or digits for 1x8x8")
    # an extractor of the user's own may leave it out
    why_not: Callable[[tuple[int, ...]], str | None] | None = getattr(extractor, "why_not", None)
    reason = None if why_not is None else why_not(tuple(shape))
    if reason is not None:
        raise UserError(f"{shown}, but {reason}")


@contextlib.contextmanager
def full_float32() -> Iterator[None]:
    """Convolutions and products of GPUs in float32 proper; TF32, torch's default for convolutions, has 10 bits."""
    places: tuple[Any, ...] = (torch.backends.cudnn, torch.backends.cuda.matmul)
    before = [place.allow_tf32 for place in places]
    try:
        for place in places:
            place.allow_tf32 = False
        yield
    finally:
        for place, value in zip(places, before, strict=True):
            place.allow_tf32 = value


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
        with torch.autocast(self._device.type, enabled=False), full_float32():
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

    def why_not(self, shape: tuple[int, ...]) -> str | None:
        """Why images of this shape cannot be looked at; None if they can."""
        return None if shape == (1, 8, 8) else f"{self.name} takes images [1, 8, 8]; choose metrics=inception"

    def _prepare(self, images: Tensor) -> Tensor:
        require_fitting(self, tuple(images.shape[1:]), "these are")
        return images.to(torch.float32) / 127.5 - 1.0


class InceptionFeatures(_NetworkFeatures):
    """The 2015-12-05 Inception from a file that the user names: 2048 features, 1008 logits.

    `weights` is ``pt_inception-2015-12-05-6726825d.pth`` or NVIDIA's ``inception-v3-2015-12-05.pkl``, see
    `inception_weights`; `resize` names one of `resizing.RESIZERS`. Grey images are repeated over the three channels.
    Raises UserError for a missing or wrong file and for an unknown resizer.
    """

    name = "inception-2015-12-05"
    feature_dim = inception.FEATURE_DIM
    num_classes = inception.NUM_LOGITS

    def __init__(self, *, weights: str | Path | None = None, resize: ResizerName = "tf_bilinear") -> None:
        if resize not in RESIZERS:
            raise UserError(f"there is no resizer {resize!r}; metrics.extractor.resize can be {', '.join(RESIZERS)}")
        self.resize: str = resize
        network, self.sha256 = load_inception(weights)
        super().__init__(network)

    def why_not(self, shape: tuple[int, ...]) -> str | None:
        """Why images of this shape cannot be looked at; None if they can."""
        return None if shape[0] in (1, 3) else f"{self.name} takes images of 1 or 3 channels"

    def _prepare(self, images: Tensor) -> Tensor:
        require_fitting(self, tuple(images.shape[1:]), "these are")
        resized = RESIZERS[self.resize](images.to(torch.float32), inception.INPUT_SIZE)
        return resized.expand(-1, 3, -1, -1)


class PointFeatures:
    """The identity on points float [B, d]: the features are the coordinates, and there are no logits."""

    name = "points"
    sha256 = hashlib.sha256(b"identity").hexdigest()
    num_classes = 0
    resize = "none"
    takes_uint8 = False

    def __init__(self, *, feature_dim: int = 2) -> None:
        self.feature_dim = feature_dim

    def why_not(self, shape: tuple[int, ...]) -> str | None:
        """Why points of this shape cannot be looked at; None if they can."""
        known = f"metrics.extractor.feature_dim={self.feature_dim} takes points of {self.feature_dim} numbers"
        return None if shape == (self.feature_dim,) else f"{known}; give the number that they have"

    def to(self, device: torch.device | str) -> None:
        """Nothing to move."""

    def __call__(self, samples: Tensor) -> tuple[Tensor, Tensor | None]:
        if samples.ndim != 2 or samples.shape[1] != self.feature_dim or not samples.is_floating_point():
            raise ValueError(
                f"expected float points [B, {self.feature_dim}], got {samples.dtype}, {list(samples.shape)}"
            )
        return samples.detach(), None
