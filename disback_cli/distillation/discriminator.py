"""The critic's network: features taken out of the fake score's network, and a head on them (DMD2, SiDA)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from disback_cli.denoisers.protocol import Denoiser
from disback_cli.errors import UserError

_WIDEST = 256  # channels inside the head
_POSITIONS = 4  # height and width at which the head stops halving
_MOST_GROUPS, _LEAST_IN_GROUP = 32, 8
_CANDIDATES = 8  # modules that a message names


class _Reached(Exception):
    """The features are there, and the rest of the network need not run."""


class BottleneckTap:
    """Takes the output of one module out of a denoiser's forward pass.

    Where the module runs more than once in a pass the first output counts; of a tuple the first tensor. Hooks live as
    long as a call, ``requires_grad`` and the training mode stay as they are, and parameters that adapters (peft) add
    inside the modules are the network's like any other.

    Args:
        denoiser: the network, usually the fake score.
        place: dotted name of the module; None asks :meth:`Denoiser.bottleneck_name`.

    Raises:
        UserError: there is no such module, or the network does not know its bottleneck.
    """

    def __init__(self, denoiser: Denoiser, place: str | None = None) -> None:
        self.denoiser = denoiser
        self.place = place if place is not None else denoiser.bottleneck_name()
        modules = dict(denoiser.named_modules())
        if self.place is None:
            raise UserError(
                f"the critic looks at features of the fake score's network, and {type(denoiser).__name__} does not say "
                f"where its bottleneck is: give objective.critic.features=NAME, such as {_candidates(modules)}; or "
                "objective.critic=null where the objective can do without"
            )
        if self.place not in modules or self.place == "":
            near = get_close_matches(self.place, modules, n=2)
            raise UserError(
                f"objective.critic.features={self.place}: the fake score's network has no such module"
                f"{'; did you mean ' + ' or '.join(near) + '?' if near else ''}\n"
                f"some of its modules: {_candidates(modules)}"
            )

    def run(self, x: Tensor, sigma: Tensor, labels: Tensor | None, *, frozen: bool) -> tuple[Tensor, Tensor]:
        """One full pass.

        Args:
            x: noisy samples, [B, *shape].
            sigma: noise levels, [B].
            labels: one-hot, [B, label_dim], or None.
            frozen: the parameters get no gradient, the samples do.

        Returns:
            D(x; sigma) [B, *shape], and the features [B, ...] in the module's dtype.

        Raises:
            UserError: the module did not run, or its output is no batch of features.
        """
        with self._collected() as found:
            denoised = (
                without_parameters(self.denoiser, x, sigma, labels) if frozen else self.denoiser(x, sigma, labels)
            )
        return denoised, self._checked(found, x)

    def encode(self, x: Tensor, sigma: Tensor, labels: Tensor | None) -> Tensor:
        """The features alone; the network stops behind the module. Arguments and errors as for :meth:`run`."""
        with self._collected(stop=True) as found:
            self.denoiser(x, sigma, labels)
        return self._checked(found, x)

    def feature_shape(self) -> tuple[int, ...]:
        """Shape of one sample's features: (C, H, W), (T, d) or (d,); costs a pass over one sample."""
        with in_evaluation(self.denoiser), torch.no_grad():
            return tuple(self.encode(*one_sample(self.denoiser)).shape[1:])

    @contextmanager
    def _collected(self, stop: bool = False) -> Iterator[list[Any]]:
        found: list[Any] = []

        def take(module: nn.Module, inputs: Any, output: Any) -> None:
            if not found:
                found.append(output)
            if stop:
                raise _Reached

        handle = self.denoiser.get_submodule(str(self.place)).register_forward_hook(take)
        try:
            yield found
        except _Reached:
            pass
        finally:
            handle.remove()

    def _checked(self, found: list[Any], x: Tensor) -> Tensor:
        if not found:
            raise UserError(
                f"objective.critic.features={self.place}: this module does not run in a pass of the fake score's "
                f"network; some that may: {_candidates(dict(self.denoiser.named_modules()))}"
            )
        output = found[0]
        features = output[0] if isinstance(output, (tuple, list)) and output else output
        if not isinstance(features, Tensor) or features.ndim not in (2, 3, 4) or features.shape[0] != x.shape[0]:
            shape = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
            raise UserError(
                f"objective.critic.features={self.place}: its output for {x.shape[0]} samples is {shape}; the critic "
                "needs [B, C, H, W], [B, T, d] or [B, d]"
            )
        return features


class Discriminator(nn.Module):
    """Head on a denoiser's features: one logit a sample, large for samples that look real.

    Maps are convolved and halved down to 4 x 4, tokens and vectors pass two layers of their own; then a mean over the
    positions and a linear layer, which starts at zero: a head that has learnt nothing gives every sample a ratio of
    one. It computes in fp32, whatever the features' dtype is; noise level and class are in the features already.

    Args:
        shape: of one sample's features: (C, H, W), (T, d) or (d,).
        seed: of the generator that draws the weights.

    Raises:
        ValueError: another number of dimensions.
    """

    def __init__(self, shape: tuple[int, ...], seed: int) -> None:
        super().__init__()
        if len(shape) not in (1, 2, 3):
            raise ValueError(f"features of shape {tuple(shape)}: need (C, H, W), (T, d) or (d,)")
        self.tokens = len(shape) == 2
        channels = shape[1] if self.tokens else shape[0]
        width = max(_LEAST_IN_GROUP, min(channels, _WIDEST))
        generator = torch.Generator().manual_seed(seed)
        if len(shape) == 3:
            first: nn.Module = _drawn(nn.Conv2d, generator, channels, width, 3, padding=1)
            halvings = max(0, math.ceil(math.log2(max(shape[1:]) / _POSITIONS)))
            further = [
                _drawn(nn.Conv2d, generator, width, width, 3, padding=1, stride=2) for _ in range(max(halvings, 1))
            ]
        else:
            first = _drawn(nn.Conv1d, generator, channels, width, 1)
            further = [_drawn(nn.Conv1d, generator, width, width, 1)]
        self.layers = nn.ModuleList([first, *further])
        groups = _groups(width)
        self.norms = nn.ModuleList(nn.GroupNorm(groups, width) for _ in self.layers)
        self.logit = nn.utils.skip_init(nn.Linear, width, 1)
        nn.init.zeros_(self.logit.weight)
        nn.init.zeros_(self.logit.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Logits [B], fp32, of features [B, C, H, W], [B, T, d] or [B, d]."""
        with torch.autocast(features.device.type, enabled=False):
            h = features.float()
            if self.tokens:
                h = h.transpose(1, 2)
            elif h.ndim == 2:
                h = h[:, :, None]
            for layer, norm in zip(self.layers, self.norms, strict=True):
                h = F.silu(norm(layer(h)))
            logits: Tensor = self.logit(h.flatten(2).mean(2)).squeeze(1)
            return logits


class Shaped(Protocol):
    """What says how a sample and its labels look."""

    shape: tuple[int, ...]
    label_dim: int

    def parameters(self) -> Iterator[nn.Parameter]:
        """Parameters, whose device is the samples'."""


def one_sample(network: Shaped) -> tuple[Tensor, Tensor, Tensor | None]:
    """A sample of zeros [1, *shape], a noise level [1] and the first class's label, where ``network`` is."""
    device = next((p.device for p in network.parameters()), torch.device("cpu"))
    labels = None
    if network.label_dim:
        labels = F.one_hot(torch.zeros(1, dtype=torch.long, device=device), network.label_dim).float()
    return torch.zeros(1, *network.shape, device=device), torch.ones(1, device=device), labels


@contextmanager
def in_evaluation(network: nn.Module) -> Iterator[None]:
    """All modules in evaluation mode for a while, and no trace of it in them or in torch's global generator."""
    modes = [(module, module.training) for module in network.modules()]
    with torch.random.fork_rng(devices=[]):
        network.eval()
        try:
            yield
        finally:
            for module, training in modes:
                module.training = training


def without_parameters(network: nn.Module, *inputs: Any) -> Any:
    """The network's answer with a gradient towards its inputs and none towards its parameters."""
    return functional_call(network, {name: p.detach() for name, p in network.named_parameters()}, inputs)


def _drawn(
    kind: Callable[..., nn.Module], generator: torch.Generator, inputs: int, outputs: int, *sizes: int, **settings: int
) -> nn.Module:
    """A layer with He-normal weights and zero biases, without touching torch's global generator."""
    layer: nn.Module = nn.utils.skip_init(kind, inputs, outputs, *sizes, **settings)
    with torch.no_grad():
        weight, bias = layer.get_parameter("weight"), layer.get_parameter("bias")
        weight.normal_(std=math.sqrt(2 / weight[0].numel()), generator=generator)
        bias.zero_()
    return layer


def _groups(channels: int) -> int:
    """Most groups of equal size with at least eight channels each: fewer values have no deviation to speak of."""
    most = min(_MOST_GROUPS, channels // _LEAST_IN_GROUP)
    return next(count for count in range(most, 0, -1) if channels % count == 0)


def _candidates(modules: dict[str, nn.Module]) -> str:
    """A few names from all over the upper levels of a network, of modules that run and have parameters."""
    names = [
        name
        for name, module in modules.items()
        if name and not isinstance(module, (nn.ModuleDict, nn.ModuleList)) and any(True for _ in module.parameters())
    ]
    upper = [name for name in names if name.count(".") <= 2] or names
    return ", ".join(upper[:: max(1, len(upper) // _CANDIDATES)][:_CANDIDATES])
