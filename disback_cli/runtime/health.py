"""Numerical health: non-finite values stop a run, a collapsing student is named."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from disback_cli.errors import UserError


class NonFiniteError(UserError):
    """A loss or a gradient became NaN or infinite."""


class FiniteGuard:
    """Remembers, on the device, at which iteration each watched tensor first stopped being finite.

    Watching costs no host synchronisation; :meth:`check` does, and is called where the run reads its
    numbers anyway: at log points and before every save.

    Args:
        names: what is watched, in the order in which :meth:`watch` gets the values.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = list(names)
        self._first: Tensor | None = None

    @torch.no_grad()
    def watch(self, values: Tensor, iteration: int) -> None:
        """Note the scalars ``values [len(names)]`` (losses, norms of gradients) of this iteration."""
        if self._first is None:
            self._first = torch.full((len(self.names),), -1, dtype=torch.int64, device=values.device)
        newly = ~torch.isfinite(values) & (self._first < 0)
        self._first = torch.where(newly, iteration, self._first)

    def check(self, last_good: Callable[[], str]) -> None:
        """Raise :class:`NonFiniteError` naming the tensors that were first to go.

        Args:
            last_good: says where the last good checkpoint is, for the message.
        """
        if self._first is None:
            return
        first = self._first.tolist()
        bad = [(at, name) for at, name in zip(first, self.names, strict=True) if at >= 0]
        if not bad:
            return
        iteration = min(at for at, _ in bad)
        names = [name for at, name in bad if at == iteration]
        shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
        raise NonFiniteError(
            f"not finite at iteration {iteration}: {shown}. Nothing was saved after it; last good checkpoint: "
            f"{last_good()}. Lower the learning rates (lr.*), or clip gradients (optimizer.clip=1), and go on with "
            "resume=auto."
        )


def named_gradients(networks: Iterable[tuple[str, nn.Module]]) -> tuple[list[str], list[nn.Parameter]]:
    """Names and parameters of everything that has a gradient now, prefixed by the network's name."""
    names, parameters = [], []
    for prefix, network in networks:
        for name, parameter in network.named_parameters():
            if parameter.grad is not None:
                names.append(f"gradient of {prefix}.{name}")
                parameters.append(parameter)
    return names, parameters
