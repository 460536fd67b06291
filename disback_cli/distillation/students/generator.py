"""The student that is no denoiser: any network from latents to samples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from disback_cli.distillation.students.base import StepNoise, Student


class GeneratorStudent(Student):
    """x = G(z, c) with any network G.

    Args:
        network: called as ``network(z [B, *shape])``, or ``network(z, labels [B, label_dim])`` where there are
            classes; returns [B, *shape].
        shape: shape of one sample and of one latent.
        label_dim: number of classes, 0 = unconditional.
        spec: the network's description.
    """

    kind: ClassVar[str] = "generator"

    def __init__(self, network: nn.Module, *, shape: tuple[int, ...], label_dim: int, spec: Mapping[str, Any]) -> None:
        super().__init__(network, shape, label_dim, spec)

    def forward(self, z: Tensor, labels: Tensor | None = None, noise: StepNoise | None = None) -> Tensor:
        """Samples ``[B, *shape]`` from unit normal ``z`` and one-hot ``labels``."""
        samples: Tensor = self.denoiser(z, labels) if self.label_dim else self.denoiser(z)
        return samples

    def settings(self) -> dict[str, Any]:
        """The kind, and the samples that a plain network does not tell of itself."""
        return {"kind": self.kind, "shape": list(self.shape), "label_dim": self.label_dim}
