"""The paper's walk, on paths that are recorded afresh on the way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from disback_cli.distillation.schedules.base import Progress, Schedule, require_interval
from disback_cli.distillation.spacing import candidate_steps


class RerecordSchedule(Schedule):
    """Walks the path as :class:`PathSchedule` does, and now and then a new one towards the student as it is then.

    The path of stage 1 leads to the untrained student; after some iterations the student is elsewhere. At each
    iteration of ``at`` a copy of the teacher is trained on the present student's samples (see
    :class:`disback_cli.distillation.rerecording.Rerecorder`), and the targets walk the path that it leaves from its
    node N-1 to the teacher. The fake score follows the student anyway and is not touched; only where a path is
    recorded before the first iteration (``at`` begins with 0, and no recorded path is needed) it starts from the new
    node N.

    Args:
        interval: iterations on each node before the next one; the teacher gets all that remain.
        at: finished iterations of this stage after which a path is recorded, ascending.
        nodes: nodes recorded each time besides the teacher.
        steps: iterations of each recording.
        lr: learning rate of a recording, constant; None takes the fake score's.
        batch_size: samples an iteration of a recording, over all processes; None takes the stage's.
        probe_samples: samples on which the mismatch to the teacher is measured.
    """

    def __init__(
        self,
        *,
        interval: int,
        at: Sequence[int],
        nodes: int = 4,
        steps: int = 60,
        lr: float | None = None,
        batch_size: int | None = None,
        probe_samples: int = 256,
    ) -> None:
        self.interval = require_interval(interval)
        if not at or any(iteration < 0 for iteration in at) or list(at) != sorted(set(at)):
            raise ValueError(f"schedule.at takes iterations in ascending order, 0 or more each, got {list(at)}")
        counts = {"nodes": nodes, "steps": steps, "batch_size": batch_size, "probe_samples": probe_samples}
        for name, count in counts.items():
            if count is not None and count < 1:
                raise ValueError(f"schedule.{name} must be at least 1, got {count}")
        if nodes > len(candidate_steps(steps)):
            raise ValueError(
                f"schedule.nodes={nodes} do not fit into schedule.steps={steps}, which give "
                f"{len(candidate_steps(steps))} candidates: raise schedule.steps, or lower schedule.nodes"
            )
        if lr is not None and lr <= 0:
            raise ValueError(f"schedule.lr must be positive, got {lr}")
        self.at = tuple(at)
        self.nodes, self.steps, self.lr = nodes, steps, lr
        self.batch_size, self.probe_samples = batch_size, probe_samples
        self.needs_path = self.at[0] > 0
        self._since = 0

    def first_target(self, last: int) -> float:
        """Node N-1; the teacher where there is no path yet."""
        return float(max(last - 1, 0))

    def next_target(self, progress: Progress) -> float:
        """One node on after every ``interval`` iterations on this path."""
        spent = progress.iteration - self._since
        if progress.target > 0 and spent > 0 and spent % self.interval == 0:
            return progress.target - 1
        return progress.target

    def records_at(self, iteration: int) -> bool:
        """Whether a new path is to be recorded now."""
        return iteration in self.at

    def on_new_path(self, iteration: int, last: int) -> float:
        """Begin to walk a path of nodes 0 .. ``last``; returns the position to begin with."""
        self._since = iteration
        return float(last - 1)

    def teacher_from(self, last: int) -> int:
        """When the last path has been walked."""
        return self.at[-1] + self.interval * (self.nodes - 1)

    def state(self) -> dict[str, Any]:
        """Where the walk along the present path began."""
        return {"since": self._since}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on with the walk."""
        self._since = state["since"]
