"""The term of DMD that ties the student to its teacher's own samples of the same latents."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import Tensor


class Regression:
    """A weighted distance between the student's sample of a latent and the teacher's.

    Args:
        weight: of the term, >= 0; 0 is no term. DMD's is 0.25, with LPIPS as the distance (METHOD, objectives).
        distance: ``distance(made, wanted) -> [B]``, see :mod:`disback_cli.distillation.distances`.
        when: ``teacher``: once the target is the teacher, because its samples contradict an intermediate target;
            ``always``: from the first iteration.

    Raises:
        ValueError: a value is outside its range.
    """

    def __init__(
        self,
        *,
        weight: float,
        distance: Callable[[Tensor, Tensor], Tensor],
        when: Literal["teacher", "always"] = "teacher",
    ) -> None:
        if not weight >= 0:
            raise ValueError(f"objective.regression.weight={weight}: need 0 (no term on pairs) or more")
        if when not in ("teacher", "always"):
            raise ValueError(f"objective.regression.when={when!r}: valid are teacher and always")
        self.weight, self.distance, self.when = weight, distance, when

    def loss(self, made: Tensor, wanted: Tensor) -> Tensor:
        """Weighted distance of each sample, [B].

        Args:
            made: the student's samples, [B, *shape], with their graph.
            wanted: the teacher's of the same latents and labels, [B, *shape].

        Raises:
            ValueError: the distance does not give one number a sample.
        """
        return self.weight * per_sample(self.distance, made, wanted)


def per_sample(distance: Callable[[Tensor, Tensor], Tensor], made: Tensor, wanted: Tensor) -> Tensor:
    """The distance of each sample, [B]; trailing dimensions of size one, as LPIPS has them, are dropped.

    Raises:
        ValueError: there is not one number a sample: a mean over the batch would hide how it was weighted.
    """
    found = distance(made, wanted)
    if found.numel() != len(made):
        raise ValueError(
            f"{type(distance).__name__} gives shape {tuple(found.shape)} for {len(made)} samples; a distance gives one "
            "number a sample, [B]"
        )
    return found.reshape(len(made))
