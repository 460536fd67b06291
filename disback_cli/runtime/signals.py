"""SIGTERM and SIGINT ask a run to save and stop; all ranks agree on the step at which they do."""

from __future__ import annotations

import signal
from types import FrameType

import torch
import torch.distributed as dist

from disback_cli.runtime.processes import rank_and_world

EXIT_CODES: dict[int, int] = {signal.SIGTERM: 143, signal.SIGINT: 130}


class StopRequest:
    """Remembers the first SIGTERM or SIGINT; a second one ends the process at once, with the signal's exit code."""

    def __init__(self) -> None:
        self.received: int = 0
        self._at_once = False
        self._previous: dict[int, object] = {}

    def install(self) -> None:
        """Take over both signals."""
        for number in EXIT_CODES:
            self._previous[number] = signal.signal(number, self._note)

    def uninstall(self) -> None:
        """Give the signals back."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._previous.clear()

    def leave_at_once(self) -> None:
        """From now on everything is saved: end the process at the next signal instead of waiting for an iteration."""
        self._at_once = True

    def agreed(self, device: torch.device) -> int:
        """The signal number that any rank has received, 0 if none; every rank gets the same answer."""
        _, world = rank_and_world()
        if world == 1:
            return self.received
        flag = torch.tensor([self.received], device=device)
        dist.all_reduce(flag, op=dist.ReduceOp.MAX)
        return int(flag.item())

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received or self._at_once:
            raise SystemExit(EXIT_CODES[number])
        self.received = number
