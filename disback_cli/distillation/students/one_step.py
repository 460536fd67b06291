"""The student of one evaluation: the network is asked once, at one noise level."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from disback_cli.denoisers.protocol import Denoiser
from disback_cli.distillation.students.base import StepNoise, Student


class OneStepStudent(Student):
    """x = D(sigma_init z; sigma_init, c): a denoiser, asked once (Luo et al. 2023).

    Args:
        denoiser: the network, a copy of the teacher's.
        sigma_init: noise level at which it is asked; Diff-Instruct uses 1.0, SiD 2.5, DMD2 80. A network of discrete
            time is asked at the nearest level it was trained at.
        spec: the network's description where it is not the teacher's.

    Raises:
        ValueError: the network has no such noise level.
    """

    kind: ClassVar[str] = "one_step"
    denoiser: Denoiser

    def __init__(self, denoiser: Denoiser, *, sigma_init: float, spec: Mapping[str, Any] | None = None) -> None:
        if not denoiser.sigma_min <= sigma_init <= denoiser.sigma_max:
            raise ValueError(
                f"student.sigma_init={sigma_init} is outside the network's noise levels "
                f"[{denoiser.sigma_min}, {denoiser.sigma_max}]"
            )
        super().__init__(denoiser, denoiser.shape, denoiser.label_dim, spec)
        self.sigma_init = float(denoiser.nearest_sigma(sigma_init))

    def forward(self, z: Tensor, labels: Tensor | None = None, noise: StepNoise | None = None) -> Tensor:
        """Samples ``[B, *shape]`` in the model's range from unit normal ``z`` and one-hot ``labels``."""
        sigma = torch.full((z.shape[0],), self.sigma_init, device=z.device)
        return self.denoiser(self.sigma_init * z, sigma, labels)

    def settings(self) -> dict[str, Any]:
        """The kind and the noise level."""
        return {"kind": self.kind, "sigma_init": self.sigma_init}
