"""Layers with a low-rank adapter beside them, built by peft; imported only where LoRA is asked for."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from torch.nn import functional as F

from disback_cli.denoisers.layers import Conv2d
from disback_cli.distillation.adapters import ADAPTER, LoraSettings
from disback_cli.runtime.randomness import counter_seed


class ConvAdapter(nn.Module, LoraLayer):
    """LoRA beside the U-Nets' own convolution, which peft does not know.

    A is a convolution that resamples as its layer does, B a pointwise one. Resampling and pointwise convolutions
    commute, so both together are the layer with the weight B A.
    """

    def __init__(self, base_layer: Conv2d, adapter_name: str, config: Any, r: int, lora_alpha: Any, **_: Any) -> None:
        super().__init__()
        LoraLayer.__init__(self, base_layer)
        self._active_adapter = adapter_name
        self.update_layer(adapter_name, r, lora_alpha=lora_alpha, config=config)

    def _get_in_out_features(self, module: nn.Module) -> tuple[int, int]:
        """The weight as a matrix: peft makes A [rank, in * kernel^2] and B [out, rank]."""
        weight = module.get_parameter("weight")
        return weight[0].numel(), weight.shape[0]

    def forward(self, x: Tensor) -> Tensor:
        """As the layer, in the dtype of ``x``."""
        layer: Any = self.base_layer
        down, up = _factors(self)
        low = layer.with_weight(x, down.view(-1, *layer.weight.shape[1:]))
        full: Tensor = layer(x) + F.conv2d(low, (up * self.scaling[ADAPTER])[:, :, None, None].to(low.dtype))
        return full


def _factors(layer: Any) -> tuple[Tensor, Tensor]:
    """A and B of an adapted layer."""
    return layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight


def inject(network: nn.Module, names: Sequence[str], settings: LoraSettings, seed: int) -> None:
    """Put an adapter beside each named layer, in place, and freeze all else.

    A is drawn as peft does, uniform within 1 / sqrt(fan in), but from a generator of its own for each layer, and B is
    zero: the network computes the same as before, bit for bit. torch's global generators are not touched.

    Args:
        network: with these layers.
        names: of the layers.
        settings: rank and alpha.
        seed: of A.
    """
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,  # type: ignore[arg-type]  # peft computes with any number
        lora_dropout=0.0,
        target_modules="|".join(re.escape(name) for name in names),
    )
    config._register_custom_module({Conv2d: ConvAdapter})
    network.requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        inject_adapter_in_model(config, network, ADAPTER)
    for name in names:
        down, up = _factors(network.get_submodule(name))
        generator = torch.Generator().manual_seed(counter_seed(seed, "lora", name))
        bound = 1 / math.sqrt(down[0].numel())
        with torch.no_grad():
            down.copy_(torch.empty(down.shape).uniform_(-bound, bound, generator=generator))
            up.zero_()
        down.requires_grad_(True), up.requires_grad_(True)
