"""The discriminator's two losses, for objectives that look at real data (Goodfellow et al. 2014; DMD2, SiDA)."""

from __future__ import annotations

from typing import Literal

from torch import Tensor
from torch.nn.functional import softplus


class Critic:
    """The non-saturating GAN loss of a head on the fake score's features, and when it acts.

    A logit is large where the head takes a noisy sample for a noisy real one; trained to its optimum, it is the log of
    the ratio of the two densities, real over student's.

    Args:
        generator_weight: of the generator's part; 0: the critic is asked for density ratios only.
        critic_weight: of the critic's own part, which trains the head and the fake score's encoder below it.
        warmup: iterations before the critic acts, counted from the start of the run.
        when: ``teacher``: once the target is the teacher, because real data contradict an intermediate target;
            ``always``: from the first iteration.
        features: module of the fake score's network whose output the head sees; null: the network's bottleneck.

    Raises:
        ValueError: a number is outside its range.
    """

    def __init__(
        self,
        *,
        generator_weight: float = 3e-3,
        critic_weight: float = 1e-2,
        warmup: int = 0,
        when: Literal["teacher", "always"] = "teacher",
        features: str | None = None,
    ) -> None:
        if generator_weight < 0:
            raise ValueError(f"objective.critic.generator_weight={generator_weight}: need 0 or more")
        if critic_weight <= 0:
            raise ValueError(
                f"objective.critic.critic_weight={critic_weight}: need a number above 0; objective.critic=null is an "
                "objective without a critic"
            )
        if warmup < 0:
            raise ValueError(f"objective.critic.warmup={warmup}: need 0 or more iterations")
        if when not in ("teacher", "always"):
            raise ValueError(f"objective.critic.when={when!r}: valid are teacher and always")
        self.generator_weight, self.critic_weight = generator_weight, critic_weight
        self.warmup, self.when, self.features = warmup, when, features

    def generator_loss(self, logits: Tensor) -> Tensor:
        """Weighted softplus(-logit) of each of the student's noisy samples, ``[B]``; ``logits`` ``[B]`` with graph."""
        return self.generator_weight * softplus(-logits)

    def loss(self, fake_logits: Tensor, real_logits: Tensor) -> Tensor:
        """Weighted mean softplus(logit) of the student's noisy samples plus mean softplus(-logit) of real ones.

        Args:
            fake_logits: ``[B]``.
            real_logits: ``[B]``.

        Returns:
            A scalar; 2 ln 2 times the weight for a head that knows nothing.
        """
        return self.critic_weight * (softplus(fake_logits).mean() + softplus(-real_logits).mean())
