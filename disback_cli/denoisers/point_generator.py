"""A generator of points: a network that turns noise into samples and is no denoiser."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from disback_cli.denoisers.mlp import NoiseConditionedMLP


class PointGenerator(nn.Module):
    """``G(z) = A z + b + MLP(z)``, with A = spread I, b = shift and an MLP that returns 0 when it is fresh.

    The untrained generator's distribution is N(shift, spread^2 I) exactly, so it can be put near to the data or far
    from them. A and b are trained like the rest.
    """

    def __init__(
        self, dim: int = 2, hidden: int = 128, depth: int = 3, shift: float = 0.0, spread: float = 1.0, seed: int = 0
    ) -> None:
        """Build the network.

        Args:
            dim: size of a sample and of a latent.
            hidden: width of the hidden layers.
            depth: number of hidden layers.
            shift: mean of the untrained samples, the same in every coordinate.
            spread: standard deviation of the untrained samples, >= 0.
            seed: of the hidden weights.

        Raises:
            ValueError: a number is outside its range.
        """
        super().__init__()
        if spread < 0:
            raise ValueError(f"spread={spread}: need a standard deviation, zero or more")
        self.mlp = NoiseConditionedMLP(dim, hidden, depth, seed)
        self.affine: nn.Linear = nn.utils.skip_init(nn.Linear, dim, dim)
        with torch.no_grad():
            self.affine.weight.copy_(spread * torch.eye(dim))
            self.affine.bias.fill_(shift)

    def forward(self, z: Tensor) -> Tensor:
        """Points [B, dim] from unit normal ``z`` [B, dim], fp32."""
        points: Tensor = self.affine(z) + self.mlp(z, torch.zeros(z.shape[0], device=z.device))
        return points
