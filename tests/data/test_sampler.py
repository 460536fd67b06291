"""The endless shuffled stream: a pure function of seed and position."""

from __future__ import annotations

import pytest
import torch

from disback_cli.data.sampler import epoch_order, indices


def test_each_epoch_is_a_permutation_and_epochs_differ() -> None:
    orders = [epoch_order(3, epoch, 50) for epoch in range(4)]
    assert all(order.sort().values.tolist() == list(range(50)) for order in orders)
    assert len({tuple(order.tolist()) for order in orders}) == 4
    assert not torch.equal(epoch_order(4, 0, 50), orders[0])


def test_the_stream_is_the_epochs_end_to_end() -> None:
    stream = indices(7, 0, 35, 10)
    expected = torch.cat([epoch_order(7, epoch, 10) for epoch in range(4)])[:35]
    assert stream.dtype == torch.int64 and torch.equal(stream, expected)


def test_resume_and_ranks_see_the_same_stream() -> None:
    whole = indices(1, 0, 96, 17)
    assert torch.equal(torch.cat([indices(1, first, 8, 17) for first in range(0, 96, 8)]), whole)
    assert torch.equal(indices(1, 40, 16, 17), whole[40:56])
    far = 10**12  # resume costs the same however long the run is
    assert torch.equal(indices(1, far, 5, 17), indices(1, far - 5, 10, 17)[5:])


def test_a_caller_cannot_spoil_the_order() -> None:
    epoch_order(5, 0, 20).zero_()
    indices(5, 0, 20, 20).zero_()
    assert indices(5, 0, 20, 20).sort().values.tolist() == list(range(20))


def test_the_order_is_recorded() -> None:
    """A change of this list changes every run that is resumed across it."""
    assert indices(0, 0, 12, 8).tolist() == [3, 7, 2, 1, 4, 0, 6, 5, 1, 4, 0, 2]


@pytest.mark.parametrize(("first", "count", "n"), [(-1, 2, 3), (0, -1, 3), (0, 1, 0)])
def test_nonsense_is_refused(first: int, count: int, n: int) -> None:
    with pytest.raises(ValueError):
        indices(0, first, count, n)
    assert indices(0, 5, 0, 3).tolist() == []
