"""Low-rank adapters (LoRA, Hu et al. 2021): which layers get one, what they weigh, how they merge.

Beside a frozen layer ``W`` lies ``(alpha / rank) B A`` with ``A`` of ``rank`` rows and ``B`` of ``rank`` columns; only
those are trained. Everything here works without the library that builds such layers (peft): a recorded path of adapters
is read, merged and walked without it.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from torch import Tensor, nn

from disback_cli.configuration.complaints import did_you_mean
from disback_cli.denoisers.edm2_layers import MPConv
from disback_cli.denoisers.layers import Conv2d
from disback_cli.denoisers.protocol import Denoiser
from disback_cli.errors import UserError

KIND = "lora"
# peft's name of the one adapter that a network has
ADAPTER = "default"
DOWN, UP = f".lora_A.{ADAPTER}.weight", f".lora_B.{ADAPTER}.weight"

# What attention consists of: where a module has the first name inside it, all of them are its attention's layers.
_ATTENTION = {
    "qkv": ("qkv", "proj"),
    "to_q": ("to_q", "to_k", "to_v", "to_out.0"),
    "q_proj": ("q_proj", "k_proj", "v_proj", "out_proj", "o_proj"),
    "query": ("query", "key", "value", "proj_attn"),
}
# Modules that read the weights of the layers inside them instead of calling those.
_READS_WEIGHTS = (nn.MultiheadAttention, nn.TransformerEncoderLayer)
_NAMES_IN_A_MESSAGE = 12


@dataclass(frozen=True)
class LoraSettings:
    """What defines an adapter, besides its weights.

    Attributes:
        rank: of the difference, >= 1.
        alpha: the difference counts ``alpha / rank``, > 0.
        layers: "attention", "all", or patterns of names (``*`` stands for anything).

    Raises:
        ValueError: a number is outside its range, or there is no pattern.
    """

    rank: int
    alpha: float
    layers: str | tuple[str, ...]

    def __post_init__(self) -> None:
        """Check the numbers, and bring what stands in a file or a configuration into one form."""
        if type(self.rank) is not int or self.rank < 1 or not self.alpha > 0:
            raise ValueError(f"rank={self.rank}, alpha={self.alpha}: LoRA needs a whole rank >= 1 and alpha > 0")
        if not self.layers or (isinstance(self.layers, str) and self.layers not in ("attention", "all")):
            raise ValueError(f"layers={self.layers or '[]'}: LoRA needs attention, all, or a list of names")
        object.__setattr__(self, "alpha", float(self.alpha))
        if not isinstance(self.layers, str):
            object.__setattr__(self, "layers", tuple(str(name) for name in self.layers))

    @property
    def scale(self) -> float:
        """Factor on B A."""
        return self.alpha / self.rank

    def document(self) -> dict[str, Any]:
        """Plain JSON values."""
        layers = self.layers if isinstance(self.layers, str) else list(self.layers)
        return {"kind": KIND, "rank": self.rank, "alpha": self.alpha, "layers": layers}

    @classmethod
    def of_document(cls, document: Mapping[str, Any]) -> LoraSettings:
        """From what :meth:`document` gave.

        Raises:
            ValueError: it is something else.
        """
        if not isinstance(document, Mapping) or document.get("kind") != KIND:
            raise ValueError(f"adapter: {document!r}; known is one of kind {KIND}")
        try:
            return cls(document["rank"], document["alpha"], document["layers"])
        except (KeyError, TypeError) as error:
            raise ValueError(f"adapter: {document!r}: {error!r}") from error

    def typed(self, group: str) -> str:
        """What to type in a shell to give a group (``fake``, ``student``) these settings."""
        layers = self.layers if isinstance(self.layers, str) else f"[{','.join(self.layers)}]"
        words = (
            f"{group}=lora",
            f"{group}.rank={self.rank}",
            f"{group}.alpha={self.alpha:g}",
            f"{group}.layers={layers}",
        )
        return shlex.join(words)


@dataclass(frozen=True)
class Adaptation:
    """Found on a network with adapters: their settings, and where the names of the plain network's weights have gone.

    Attributes:
        settings: of the adapters.
        base: name in the adapted network by name in the plain one, for the whole state dict.
    """

    settings: LoraSettings
    base: dict[str, str]


def adaptation_of(network: nn.Module) -> Adaptation | None:
    """The adapters of a network, None for a plain one."""
    found = getattr(network, "adaptation", None)
    return found if isinstance(found, Adaptation) else None


def settings_of(network: nn.Module) -> LoraSettings | None:
    """Settings of a network's adapters, None for a plain one."""
    found = adaptation_of(network)
    return None if found is None else found.settings


# Which layers ----------------------------------------------------------------------------------------------------


def chosen_layers(network: Denoiser, layers: str | Sequence[str], group: str) -> list[str]:
    """Names of the layers that get an adapter.

    Args:
        network: a plain denoiser.
        layers: as in :class:`LoraSettings`.
        group: whose option it is, for messages: ``fake`` or ``student``.

    Raises:
        UserError: none match, or a pattern matches none.
    """
    possible = adaptable_layers(network)
    if not possible:
        raise UserError(_none_possible(network, group))
    if layers == "all":
        return possible
    patterns = _attention_layers(network) if isinstance(layers, str) else layers
    matched = {pattern: [name for name in possible if _matches(name, pattern)] for pattern in patterns}
    missed = [] if layers == "attention" else [pattern for pattern, names in matched.items() if not names]
    chosen = {name for names in matched.values() for name in names}
    if missed or not chosen:
        what = "attention finds no attention in" if layers == "attention" else f"'{missed[0]}' matches no layer of"
        near = did_you_mean(missed[0], {_tail(name) for name in possible}) if missed else ""
        raise UserError(
            f"{group}.layers: {what} this network ({type(network).__name__}){near}\nlayers that can have an adapter: "
            f"{_shortened(possible)}\nType {group}.layers=all, or {group}.layers=[{_tail(possible[0])},...]"
        )
    return [name for name in possible if name in chosen]


def adaptable_layers(network: Denoiser) -> list[str]:
    """Names of the linear layers and convolutions that LoRA can be put beside, in the network's order.

    Left out are layers that no gradient reaches, that share their weights, or whose weights something else reads or
    makes.
    """
    weights, unused = network.state_dict(), network.unused_parameters()
    shared = Counter(id(p) for _, p in network.named_parameters(remove_duplicate=False))
    readers = [f"{name}." for name, module in network.named_modules() if isinstance(module, _READS_WEIGHTS)]
    return [
        name
        for name, module in network.named_modules()
        if _is_adaptable(module)
        and f"{name}.weight" in weights
        and f"{name}.weight" not in unused
        and shared[id(module.get_parameter("weight"))] == 1
        and not name.startswith(tuple(readers))
    ]


def _is_adaptable(module: nn.Module) -> bool:
    if isinstance(module, Conv2d):
        return module.weight is not None
    if isinstance(module, nn.Conv2d):
        return module.groups == 1 and module.dilation == (1, 1) and module.padding_mode == "zeros"
    return isinstance(module, nn.Linear)


def _attention_layers(network: nn.Module) -> list[str]:
    names = []
    for place, module in network.named_modules():
        prefix = f"{place}." if place else ""
        inside = {name for name, _ in module.named_children()}
        names += [f"{prefix}{name}" for mark, parts in _ATTENTION.items() if mark in inside for name in parts]
    return names


def _matches(name: str, pattern: str) -> bool:
    """Whether a pattern fits a dotted name or an end of it that begins behind a dot."""
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"*.{pattern}")


def _none_possible(network: nn.Module, group: str) -> str:
    plain = "full" if group == "fake" else "one_step"
    if any(isinstance(module, MPConv) for module in network.modules()):
        why = (
            "this is an EDM2 network, whose layers normalise their weights whenever they are used. A low-rank "
            "difference beside such a layer would break the magnitudes that the network keeps, and could not be merged "
            "into it"
        )
    else:
        why = f"this network ({type(network).__name__}) has no linear layer or convolution that can have an adapter"
    return f"{group}=lora: {why}. Type {group}={plain}"


def _tail(name: str) -> str:
    """The last part of a dotted name, two where that is a number."""
    parts = name.split(".")
    return ".".join(parts[-2:]) if parts[-1].isdigit() and len(parts) > 1 else parts[-1]


def _shortened(names: Sequence[str]) -> str:
    counted = Counter(_tail(name) for name in names)
    shown = [name if count == 1 else f"{name} ({count})" for name, count in counted.items()]
    more = f" and {len(shown) - _NAMES_IN_A_MESSAGE} more" if len(shown) > _NAMES_IN_A_MESSAGE else ""
    return ", ".join(shown[:_NAMES_IN_A_MESSAGE]) + more


# Weights ---------------------------------------------------------------------------------------------------------


def merged(weights: Mapping[str, Tensor], adapter: Mapping[str, Tensor], scale: float) -> dict[str, Tensor]:
    """Full weights ``W + scale B A`` under the plain network's names.

    Args:
        weights: the plain network's state dict; not changed.
        adapter: A ``[rank, in, ...]`` and B ``[out, rank, ...]`` of each adapted layer.
        scale: ``alpha / rank``.

    Returns:
        New tensors for the layers whose B is not zero, the given ones for all others: a fresh adapter changes no bit.

    Raises:
        UserError: the adapter is another network's.
    """
    full = dict(weights)
    for name, up in adapter.items():
        if not name.endswith(UP):
            continue
        layer = name.removesuffix(UP)
        weight, down = full.get(f"{layer}.weight"), adapter.get(layer + DOWN)
        if weight is None or down is None or (up.shape[0], down[0].numel()) != (weight.shape[0], weight[0].numel()):
            raise UserError(f"an adapter for the layer {layer} does not fit this teacher: it was made for another one")
        if bool(up.any()):
            full[f"{layer}.weight"] = weight + (scale * (up.flatten(1) @ down.flatten(1)).view_as(weight)).to(weight)
    return full


def plain_weights(network: nn.Module) -> dict[str, Tensor]:
    """State dict of the plain network that computes the same: adapters merged, under the plain names."""
    found = adaptation_of(network)
    if found is None:
        return network.state_dict()
    own = _tensors(network)
    base = {plain: own[name].detach() for plain, name in found.base.items()}
    return merged(base, network.state_dict(), found.settings.scale)


def keep_base_out_of_state(network: nn.Module, settings: LoraSettings, names: Sequence[str], plain: list[str]) -> None:
    """Make the state dict of an adapted network hold its adapters alone; loading it stays strict about those.

    The frozen weights are the teacher's: nodes of a path and checkpoints need not repeat them.

    Args:
        network: with its adapters.
        settings: of the adapters.
        names: the adapted layers.
        plain: names of the plain network's state dict.
    """
    adapted = {f"{name}.": f"{name}.base_layer." for name in names}
    base = {}
    for name in plain:
        layer = name.rpartition(".")[0] + "."
        base[name] = adapted[layer] + name.removeprefix(layer) if layer in adapted else name
    network.adaptation = Adaptation(settings, base)  # type: ignore[assignment]  # a plain attribute
    network.register_state_dict_post_hook(_leave_base_out)
    network.register_load_state_dict_pre_hook(_put_base_in)


def _leave_base_out(module: nn.Module, state_dict: dict[str, Tensor], prefix: str, *_: Any) -> None:
    found = adaptation_of(module)
    assert found is not None
    for name in found.base.values():
        state_dict.pop(prefix + name, None)


def _put_base_in(module: nn.Module, state_dict: dict[str, Tensor], prefix: str, *_: Any) -> None:
    found = adaptation_of(module)
    assert found is not None
    own = _tensors(module)
    for name in found.base.values():
        state_dict.setdefault(prefix + name, own[name])


def _tensors(network: nn.Module) -> dict[str, Tensor]:
    """All parameters and buffers by name."""
    return dict(network.named_parameters(remove_duplicate=False)) | dict(network.named_buffers(remove_duplicate=False))
