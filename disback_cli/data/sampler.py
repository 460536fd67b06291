"""The order of training samples as a pure function: an endless shuffled stream addressed by position.

Position p of the stream is entry ``p % n`` of the permutation of epoch ``p // n``, which depends on seed and epoch
alone. A resumed run asks for the positions that come next and gets what it would have got; a rank of a distributed
run asks for its own slice of the positions, so the images of a step do not depend on the number of ranks.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

import torch
from torch import Tensor


@lru_cache(maxsize=4)  # a batch touches one epoch, or two at the seam; drawing a permutation per step would cost O(n)
def _permutation(seed: int, epoch: int, n: int) -> Tensor:
    digest = hashlib.blake2b(f"epoch-order/{seed}/{epoch}".encode(), digest_size=8).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)
    return torch.randperm(n, generator=generator)


def epoch_order(seed: int, epoch: int, n: int) -> Tensor:
    """Permutation of 0..n-1, int64 [n], of one epoch (counted from 0)."""
    if n < 1 or epoch < 0:
        raise ValueError(f"need n >= 1 and epoch >= 0, got n={n}, epoch={epoch}")
    return _permutation(seed, epoch, n).clone()


def indices(seed: int, first: int, count: int, n: int) -> Tensor:
    """Data set indices, int64 [count], at positions first .. first+count-1 of the endless stream over n samples.

    Within an epoch every sample occurs once; a batch may run over the seam between two epochs, nothing is dropped.
    """
    if n < 1 or first < 0 or count < 0:
        raise ValueError(f"need n >= 1, first >= 0 and count >= 0, got n={n}, first={first}, count={count}")
    parts: list[Tensor] = [torch.empty(0, dtype=torch.int64)]
    position, last = first, first + count
    while position < last:
        epoch, offset = divmod(position, n)
        taken = min(n - offset, last - position)
        parts.append(_permutation(seed, epoch, n)[offset : offset + taken])
        position += taken
    return torch.cat(parts)
