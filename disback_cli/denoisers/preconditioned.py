"""What all preconditioned networks share: ``D(x; sigma, c) = c_skip x + c_out F(c_in x; c_noise, c)``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from disback_cli.denoisers.preconditioning import Coefficients
from disback_cli.denoisers.protocol import Denoiser, expand_sigma

NETWORK_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def activation_dtype(network_dtype: str, device: torch.device) -> torch.dtype:
    """The dtype in which a network's activations are computed on a device.

    Args:
        network_dtype: "fp32", "fp16" or "bf16".
        device: where the network runs. fp16 acts on CUDA devices only and means fp32 elsewhere, as in the public
            networks.

    Raises:
        ValueError: another word.
    """
    if network_dtype not in NETWORK_DTYPES:
        raise ValueError(f"network_dtype={network_dtype!r}: valid are {', '.join(NETWORK_DTYPES)}")
    dtype = NETWORK_DTYPES[network_dtype]
    return torch.float32 if dtype == torch.float16 and device.type != "cuda" else dtype


class PreconditionedDenoiser(Denoiser, ABC):
    """A raw network with coefficients around it.

    The coefficients and the sum are fp32. The network's weights are fp32 too, and get fp32 gradients; its activations
    have the dtype ``network_dtype``. In fp16 the gradients of activations may underflow, as nothing scales the loss:
    bf16 is the narrow type to train in.

    Attributes:
        network_dtype: "fp32", "fp16" (acts on CUDA only) or "bf16"; may be changed at any time.
    """

    # The network is registered under this name, which begins the names in public state dicts.
    NETWORK_NAME = "model"
    # A network that also learnt its variance has twice the channels at its output; the first half counts.
    OUTPUTS_PER_CHANNEL = 1

    def __init__(
        self,
        network: nn.Module,
        shape: Sequence[int],
        label_dim: int,
        sigma_min: float,
        sigma_max: float,
        sigma_data: float,
        network_dtype: Literal["fp32", "fp16", "bf16"],
    ) -> None:
        """Wrap a network.

        Args:
            network: called as ``network(x [B, *shape], c_noise [B], labels [B, label_dim] or None) -> [B, *shape]``.
            shape: shape of one sample, (C, H, W) or (d,).
            label_dim: width of the one-hot labels, 0 = unconditional.
            sigma_min: smallest noise level, > 0.
            sigma_max: largest noise level.
            sigma_data: standard deviation of the data, > 0.
            network_dtype: dtype of the activations inside the network.

        Raises:
            ValueError: a number is outside its range, or network and wrapper disagree about labels or channels.
        """
        super().__init__(tuple(shape), label_dim, sigma_min, sigma_max, sigma_data)
        activation_dtype(network_dtype, torch.device("cpu"))
        self.network_dtype = network_dtype
        expected = {
            "label_dim": self.label_dim,
            "in_channels": self.shape[0],
            "out_channels": self.shape[0] * self.OUTPUTS_PER_CHANNEL,
        }
        for name, value in expected.items():
            found = getattr(network, name, value)
            if found != value:
                raise ValueError(
                    f"the network was built with {name}={found}, but {type(self).__name__} with label_dim="
                    f"{self.label_dim} and shape={self.shape} needs {name}={value}"
                )
        self.add_module(self.NETWORK_NAME, network)

    @abstractmethod
    def coefficients(self, sigma: Tensor) -> Coefficients:
        """The coefficients (c_skip, c_out, c_in, c_noise) at noise levels ``sigma``, each of its shape."""

    def bottleneck_name(self) -> str | None:
        """Where the network says its bottleneck is, by a method ``bottleneck_name() -> str``; else None."""
        name = getattr(getattr(self, self.NETWORK_NAME), "bottleneck_name", None)
        inner = name() if callable(name) else None
        return None if inner is None else f"{self.NETWORK_NAME}.{inner}"

    def unused_parameters(self) -> frozenset[str]:
        """Names of the parameters that get no gradient, because no augmentation labels are ever passed."""
        prefix = f"{self.NETWORK_NAME}.map_augment."
        return frozenset(name for name, _ in self.named_parameters() if name.startswith(prefix))

    def forward(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        """Estimate the clean samples.

        Args:
            x: noisy samples, [B, *shape].
            sigma: noise levels, [B], 0-d or [B, 1, ..., 1]; > 0.
            labels: one-hot float labels, [B, label_dim]; rows of zeros mean "no class"; None if unconditional.

        Returns:
            Estimate of x0, [B, *shape], fp32.

        Raises:
            ValueError: samples, noise levels or labels have the wrong shape, or labels are missing.
        """
        if x.shape[1:] != self.shape:
            raise ValueError(f"samples have shape {tuple(x.shape[1:])}: this denoiser is made for {self.shape}")
        labels = self.check_labels(labels, x.shape[0])
        x = x.to(torch.float32)
        c_skip, c_out, c_in, c_noise = self.coefficients(expand_sigma(sigma, x))
        dtype = activation_dtype(self.network_dtype, x.device)
        raw: Tensor = getattr(self, self.NETWORK_NAME)((c_in * x).to(dtype), c_noise.flatten(), labels)
        if self.OUTPUTS_PER_CHANNEL > 1:
            raw = raw[:, : self.shape[0]]
        return c_skip * x + c_out * raw.to(torch.float32)
