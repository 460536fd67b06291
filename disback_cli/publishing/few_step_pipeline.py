"""The pipeline of an exported generator that evaluates its network a few times."""

from __future__ import annotations

from typing import Any

import torch
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from disback_cli.publishing.one_step_pipeline import OneStepPipeline


class FewStepPipeline(OneStepPipeline):
    """Draws images from a few-step generator; the noise between its evaluations comes from ``generator``, too."""

    def _steps(self) -> int:
        """Evaluations of the network that an image takes."""
        steps: int = self.network.evaluations
        return steps

    def _samples(self, latents: Tensor, labels: Tensor | None, generator: Any) -> Tensor:
        """Images in [-1, 1] from unit normal latents."""
        noise = [
            randn_tensor(latents.shape, generator=generator, device=latents.device, dtype=torch.float32)
            for _ in range(1, self._steps())
        ]
        samples: Tensor = self.network(latents, labels, noise)
        return samples
