"""Randomness by counter: every draw is a pure function of (seed, purpose, iteration, global sample index).

A resumed run therefore needs no saved generator state, ranks never share a stream, and the same samples are
drawn for any number of processes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import torch
from torch import Tensor

# Samples that share one generator. A fixed block keeps the draws independent of how samples are split over
# ranks and batches, and costs far less than one generator a sample.
BLOCK = 16


def counter_seed(*parts: int | str) -> int:
    """A 63-bit seed that depends on every part and on nothing else."""
    digest = hashlib.blake2b("/".join(str(part) for part in parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


class CounterRandom:
    """Draws addressed by purpose, iteration and global sample index.

    Args:
        seed: the run's seed.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def normal(
        self, purpose: str, iteration: int, first: int, count: int, shape: tuple[int, ...], device: torch.device
    ) -> Tensor:
        """Standard normal values ``[count, *shape]`` (fp32) of the samples ``first .. first+count-1``."""
        return self._draw(
            purpose, iteration, first, count, device,
            lambda g: torch.randn((BLOCK, *shape), generator=g, device=device),
        )  # fmt: skip

    def uniform(self, purpose: str, iteration: int, first: int, count: int, device: torch.device) -> Tensor:
        """Uniform values ``[count]`` in [0, 1) (float64, so that tails of a law are resolved)."""
        return self._draw(
            purpose, iteration, first, count, device,
            lambda g: torch.rand(BLOCK, generator=g, device=device, dtype=torch.float64),
        )  # fmt: skip

    def one_hot_labels(
        self, purpose: str, iteration: int, first: int, count: int, classes: int, device: torch.device
    ) -> Tensor | None:
        """Uniform one-hot labels ``[count, classes]`` (fp32), or None where ``classes`` is 0."""
        if classes == 0:
            return None
        index = self._draw(
            purpose, iteration, first, count, device,
            lambda g: torch.randint(classes, (BLOCK,), generator=g, device=device),
        )  # fmt: skip
        return torch.nn.functional.one_hot(index, classes).float()

    def seed_global(self, iteration: int, rank: int) -> None:
        """Seed torch's global generators for what networks draw inside (dropout), each rank its own."""
        torch.manual_seed(counter_seed(self.seed, "network", iteration, rank))

    def _draw(
        self,
        purpose: str,
        iteration: int,
        first: int,
        count: int,
        device: torch.device,
        draw: Callable[[torch.Generator], Tensor],
    ) -> Tensor:
        generator = torch.Generator(device=device)
        start, stop = first // BLOCK, -(-(first + count) // BLOCK)
        blocks = []
        for block in range(start, stop):
            generator.manual_seed(counter_seed(self.seed, purpose, iteration, block))
            blocks.append(draw(generator))
        offset = first - start * BLOCK
        return torch.cat(blocks)[offset : offset + count]
