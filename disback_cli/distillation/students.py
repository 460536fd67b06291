"""Students: the generators that are distilled."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from disback_cli.denoisers.protocol import Denoiser


class OneStepStudent(nn.Module):
    """x = D(sigma_init z; sigma_init, c): the teacher's own network, asked once (Luo et al. 2023).

    Args:
        denoiser: the network, a copy of the teacher's.
        sigma_init: noise level at which it is asked; Diff-Instruct uses 1.0, SiD 2.5, DMD2 80. A network of discrete
            time is asked at the nearest level it was trained at.
    """

    network_evaluations = 1

    def __init__(self, denoiser: Denoiser, *, sigma_init: float) -> None:
        super().__init__()
        if not denoiser.sigma_min <= sigma_init <= denoiser.sigma_max:
            raise ValueError(
                f"student.sigma_init={sigma_init} is outside the teacher's noise levels "
                f"[{denoiser.sigma_min}, {denoiser.sigma_max}]"
            )
        self.denoiser = denoiser
        self.sigma_init = float(denoiser.nearest_sigma(sigma_init))

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Samples ``[B, *shape]`` in the model's range from unit normal ``z`` and one-hot ``labels``."""
        sigma = torch.full((z.shape[0],), self.sigma_init, device=z.device)
        return self.denoiser(self.sigma_init * z, sigma, labels)

    def settings(self) -> dict[str, float | str]:
        """What an exported folder must say to rebuild this student around its denoiser."""
        return {"kind": "one_step", "sigma_init": self.sigma_init}
