"""A few-step generator as a diffusers model: the network of an exported pipeline, beside whose classes this is put."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor

from disback_cli.publishing.one_step_network import build_network, in_precision_of


class FewStepGenerator(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """x = D(s_1 z; s_1, c), then x <- D(x + s_k n_k; s_k, c) for every further noise level, decoded if x is a latent.

    Attributes:
        denoiser: D; has ``shape`` (of one sample of z) and ``label_dim`` (number of classes, 0 = unconditional).
        decoder: from D's samples to images, or None.
        evaluations: number of noise levels.
    """

    _supports_gradient_checkpointing = False

    @register_to_config
    def __init__(
        self, denoiser_spec: dict[str, Any], sigmas: list[float], decoder_spec: dict[str, Any] | None = None
    ) -> None:
        """Build the networks.

        Args:
            denoiser_spec: nested dict with ``_target_`` (name of a class of this module) and keyword arguments.
            sigmas: the noise levels at which D is asked, falling.
            decoder_spec: such a dict, or None.
        """
        super().__init__()
        self.sigmas = [float(level) for level in sigmas]
        self.evaluations = len(self.sigmas)
        self.denoiser = build_network(denoiser_spec)
        self.decoder = build_network(decoder_spec) if decoder_spec else None

    def forward(self, z: Tensor, labels: Tensor | None, noise: Sequence[Tensor]) -> Tensor:
        """Images in [-1, 1], [B, C, H, W], from unit normal ``z`` and ``noise``, one more for every further level."""
        with in_precision_of(self, z.device):
            x = self.sigmas[0] * z
            for step, level in enumerate(self.sigmas):
                if step:
                    x = x + level * noise[step - 1]
                sigma = torch.full((z.shape[0],), level, device=z.device, dtype=torch.float32)
                x = self.denoiser(x, sigma, labels)
            return x if self.decoder is None else self.decoder(x)
