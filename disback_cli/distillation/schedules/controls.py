"""The controls: the teacher is the only target, with and without stage 1's fake score."""

from __future__ import annotations

from disback_cli.distillation.schedules.base import Schedule


class WarmStartSchedule(Schedule):
    """Fake score from node N, target always the teacher: what stage 1 alone brings, without the path."""

    def first_target(self, last: int) -> float:
        """The teacher."""
        return 0.0


class EndpointSchedule(Schedule):
    """Fake score from the teacher, target the teacher: the plain loop (Diff-Instruct); needs no path."""

    needs_path = False

    def first_fake(self, last: int) -> int:
        """The teacher."""
        return 0

    def first_target(self, last: int) -> float:
        """The teacher."""
        return 0.0
