"""What a teacher's file gives, whatever its format: a network's description, its weights, and facts about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class DecoderSource:
    """The part of a latent model that turns its samples into images.

    Attributes:
        spec: nested dict with ``_target_`` from which the decoder is built; names only trusted classes.
        weights: its state dict.
    """

    spec: dict[str, Any]
    weights: Mapping[str, Tensor]


@dataclass(frozen=True)
class NetworkSource:
    """A denoiser as it was found on disk; nothing has been built yet.

    Attributes:
        format: ``edm-pickle``, ``edm2-pickle``, ``diffusers``, ``model-folder``.
        spec: nested dict with ``_target_`` from which the denoiser is built; names only trusted classes.
        weights: its state dict, under the names of the built denoiser, in the dtype of the file.
        facts: what else is known, plain JSON values: ``network`` (class in words), ``arguments`` (of its constructor,
            as the file has them), ``licence`` (or None), ``notes`` (list of sentences a user should read).
        decoder: of a latent model, else None.
    """

    format: str
    spec: dict[str, Any]
    weights: Mapping[str, Tensor]
    facts: dict[str, Any] = field(default_factory=dict)
    decoder: DecoderSource | None = None
