"""Real samples for the terms that need them: training a teacher, a discriminator."""

from __future__ import annotations

import torch
from torch import Tensor

from disback_cli.data.dataset import Dataset, HasPixels
from disback_cli.data.pixels import to_float
from disback_cli.data.sampler import indices
from disback_cli.errors import UserError


class RealSamples:
    """A data set as an endless shuffled stream that is addressed by position.

    What a position holds is a pure function of seed and position (see :mod:`disback_cli.data.sampler`): a resumed run
    goes on where it was, and each process takes its own positions of an iteration.

    Args:
        dataset: in-memory data.
        label_dim: width of the labels that the networks take, 0 for unconditional ones, to which the data set's labels
            are not handed on; None hands on what the data set has.

    Raises:
        UserError: the networks take labels and the data set has none, or another number of classes.
    """

    def __init__(self, dataset: Dataset, label_dim: int | None = None) -> None:
        if label_dim and label_dim != dataset.num_classes:
            has = f"{dataset.num_classes} classes" if dataset.num_classes else "no labels"
            raise UserError(
                f"the model is conditional on {label_dim} classes, the data set {dataset.name} has {has}; "
                f"choose a data set with labels of {label_dim} classes with dataset=..., or an unconditional teacher="
            )
        self.dataset = dataset
        self.label_dim = dataset.num_classes if label_dim is None else label_dim

    def __len__(self) -> int:
        return len(self.dataset)

    def batch(self, seed: int, first: int, count: int, device: torch.device) -> tuple[Tensor, Tensor | None]:
        """The samples at positions ``first .. first + count - 1`` of the stream.

        Args:
            seed: of the order.
            first: position in the stream, >= 0: samples taken so far over all processes, plus this process's offset.
            count: how many.
            device: where they are wanted; images travel there as uint8.

        Returns:
            Samples fp32 [count, *shape], images in [-1, 1]; one-hot labels fp32 [count, label_dim] or None.
        """
        chosen = indices(seed, first, count, len(self.dataset))
        if isinstance(self.dataset, HasPixels):
            pixels, labels = self.dataset.pixels(chosen)
            x = to_float(pixels.to(device))
        else:
            x, labels = self.dataset.batch(chosen)
            x = x.to(device)
        return x, labels.to(device) if self.label_dim and labels is not None else None
