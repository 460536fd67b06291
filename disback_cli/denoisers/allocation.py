"""A bound on what a network may take while it is built: its description may be a stranger's, or damaged."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.utils._python_dispatch import TorchDispatchMode

from disback_cli.errors import UserError

# Numbers and parameters that may be created for each that the weights have, and how many besides. Constructors create
# some for a while only, and constants that are in no file.
_FACTOR = 8
_NUMBERS_BESIDES = 1 << 26
_PARAMETERS_BESIDES = 1000


@contextmanager
def bounded_by(weights: Mapping[str, Tensor], what: str) -> Iterator[None]:
    """Stop the building of a network that is out of all proportion to its weights.

    Tensors on the meta device take no memory and are not counted, but the parameters' number is: each layer takes time.

    Args:
        weights: the state dict that the network is to have.
        what: the file or teacher, for messages.

    Raises:
        UserError: within the block, before the memory is taken.
    """
    left = _FACTOR * len(weights) + _PARAMETERS_BESIDES

    def count(module: nn.Module, name: str, parameter: Any) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise _too_large(what, "has far more layers than there are weights")

    handle = register_module_parameter_registration_hook(count)
    try:
        with _Bound(_FACTOR * sum(tensor.numel() for tensor in weights.values()) + _NUMBERS_BESIDES, what):
            yield
    finally:
        handle.remove()


class _Bound(TorchDispatchMode):
    """Counts the numbers in tensors of a given size, which is how parameters begin."""

    def __init__(self, numbers: int, what: str) -> None:
        super().__init__()
        self.left, self.what = numbers, what

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        options = kwargs or {}
        first = args[0] if args else None
        count, device = 0, options.get("device")
        if isinstance(first, (list, tuple)) and all(isinstance(length, int) for length in first):
            count = math.prod(first)
        elif isinstance(first, Tensor) and func.__name__.startswith("empty_like"):
            count, device = first.numel(), device or first.device
        if count and str(device) != "meta":
            self.left -= count
            if self.left < 0:
                raise _too_large(self.what, "takes far more memory than the weights")
        return func(*args, **options)


def _too_large(what: str, reason: str) -> UserError:
    return UserError(f"{what}: the network described beside it {reason}: the description is wrong or damaged")
