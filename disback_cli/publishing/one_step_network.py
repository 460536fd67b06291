"""A one-step generator as a diffusers model: the network of an exported pipeline, beside whose classes this is put."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn


class OneStepGenerator(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """x = D(sigma_init z; sigma_init, c), decoded to an image if D works on latents.

    Attributes:
        denoiser: D; has ``shape`` (of one sample of z) and ``label_dim`` (number of classes, 0 = unconditional).
        decoder: from D's samples to images, or None.
    """

    _supports_gradient_checkpointing = False

    @register_to_config
    def __init__(
        self, denoiser_spec: dict[str, Any], sigma_init: float, decoder_spec: dict[str, Any] | None = None
    ) -> None:
        """Build the networks.

        Args:
            denoiser_spec: nested dict with ``_target_`` (name of a class of this module) and keyword arguments.
            sigma_init: the noise level at which D is asked.
            decoder_spec: such a dict, or None.
        """
        super().__init__()
        self.sigma_init = float(sigma_init)
        self.denoiser = build_network(denoiser_spec)
        self.decoder = build_network(decoder_spec) if decoder_spec else None

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Images in [-1, 1], [B, C, H, W], from unit normal ``z`` [B, *denoiser.shape] and one-hot ``labels``."""
        sigma = torch.full((z.shape[0],), self.sigma_init, device=z.device, dtype=torch.float32)
        with in_precision_of(self, z.device):
            samples: Tensor = self.denoiser(self.sigma_init * z, sigma, labels)
            return samples if self.decoder is None else self.decoder(samples)


def in_precision_of(network: ModelMixin, device: torch.device) -> AbstractContextManager[Any]:
    """Where weights that were loaded in a narrow type may meet fp32 samples."""
    narrow = network.dtype in (torch.float16, torch.bfloat16)
    return torch.autocast(device.type, network.dtype, cache_enabled=False) if narrow else nullcontext()


def build_network(spec: Any) -> Any:
    """Build a specification; only network classes of this very module can be named.

    Raises:
        ValueError: another class is named.
    """
    if isinstance(spec, dict) and "_target_" in spec:
        found = globals().get(str(spec["_target_"]))
        if not (isinstance(found, type) and issubclass(found, nn.Module) and found.__module__ == __name__):
            raise ValueError(f"there is no network class {spec['_target_']!r} in this file")
        return found(**{key: build_network(value) for key, value in spec.items() if key != "_target_"})
    if isinstance(spec, dict):
        return {key: build_network(value) for key, value in spec.items()}
    if isinstance(spec, (list, tuple)):
        return [build_network(value) for value in spec]
    return spec
