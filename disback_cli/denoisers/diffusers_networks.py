"""diffusers' own networks behind the calling convention of this package.

Only the classes named here are ever built, by constructor; nothing is imported because a file names it.
"""

from __future__ import annotations

import copy
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from disback_cli.denoisers.protocol import Denoiser


def _in_activations_of(x: Tensor) -> AbstractContextManager[Any]:
    """Compute in the dtype of ``x`` with fp32 weights, which diffusers' layers do not do by themselves.

    The cache of cast weights stays off: one filled without gradients would cut those of a later call off.
    """
    if x.dtype == torch.float32:
        return nullcontext()
    return torch.autocast(x.device.type, dtype=x.dtype, cache_enabled=False)


def _class_indices(labels: Tensor, null_class: int | None) -> Tensor:
    """Indices [B] of one-hot rows [B, classes]; rows of zeros become ``null_class``.

    Raises:
        ValueError: a row of zeros without a null class.
    """
    classes = labels.shape[1]
    missing = labels.amax(dim=1) <= 0
    if null_class is None:
        # Off the CPU, looking would make the host wait for every batch; there the index below fails in the embedding.
        if labels.device.type == "cpu" and bool(missing.any()):
            raise ValueError(
                f"a row of labels is all zeros, which means 'no class', but this network knows its {classes} classes "
                "only: pass a class for every sample; guidance needs a network trained with a null class"
            )
        null_class = classes
    return torch.where(missing, null_class, labels.argmax(dim=1))


def _sample_channels(config: Any) -> int:
    """Channels of a sample, given that a network with twice as many at its output also learnt a variance.

    Raises:
        ValueError: any other number of channels at the output.
    """
    inputs, outputs = config.in_channels, config.out_channels or config.in_channels
    if outputs not in (inputs, 2 * inputs):
        raise ValueError(
            f"in_channels={inputs}, out_channels={outputs}: need as many, or twice as many where a variance was "
            "learnt; networks with further inputs (super-resolution, inpainting) are not supported"
        )
    return int(inputs)


class UNet2D(nn.Module):
    """diffusers' UNet2DModel; its parameters are named ``unet.*``.

    Attributes:
        label_dim: number of classes, 0 = unconditional.
        in_channels: channels of a sample.
        out_channels: channels that are returned: a learnt variance is left out.
        null_class: None: these networks have no class for "no class".
    """

    def __init__(self, config: dict[str, Any]) -> None:
        """Build the network with random weights.

        Args:
            config: keyword arguments of ``diffusers.UNet2DModel``, as in its config.json without the entries that begin
                with an underscore.

        Raises:
            ValueError: a variant that is not supported, or numbers that do not fit.
            TypeError: an unknown argument.
        """
        super().__init__()
        from diffusers import UNet2DModel

        if config.get("class_embed_type") is not None:
            raise ValueError(
                f"class_embed_type={config['class_embed_type']!r}: only None (num_class_embeds) is supported"
            )
        if config.get("time_embedding_type") == "fourier":
            raise ValueError(
                "time_embedding_type='fourier': networks of score-SDE in diffusers' format are not supported; "
                "positional and learned are"
            )
        unet: Any = UNet2DModel(**config)
        self.unet = unet
        self.label_dim = int(config.get("num_class_embeds") or 0)
        self.in_channels = self.out_channels = _sample_channels(unet.config)
        self.null_class: int | None = None
        self._whole_steps = config.get("time_embedding_type") == "learned"

    def bottleneck_name(self) -> str | None:
        """Name of the block between encoder and decoder; None for a network without one."""
        return None if self.unet.mid_block is None else "unet.mid_block"

    def forward(self, x: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        """Evaluate the network.

        Args:
            x: scaled noisy samples, [B, in_channels, H, W]; its dtype is that of the activations.
            t: step, [B], may be fractional (a learned time embedding takes the nearest whole one).
            labels: one-hot, [B, label_dim]; None if unconditional.

        Returns:
            The prediction, [B, in_channels, H, W].

        Raises:
            ValueError: a row of zeros among the labels (on the CPU; elsewhere the device reports an index error).
        """
        steps = t.round().long() if self._whole_steps else t
        classes = None if labels is None else _class_indices(labels, self.null_class)
        with _in_activations_of(x):
            raw: Tensor = self.unet(x, steps, class_labels=classes, return_dict=False)[0]
        return raw[:, : self.in_channels]


class DiT(nn.Module):
    """diffusers' DiTTransformer2DModel (Peebles & Xie 2023); its parameters are named ``transformer.*``.

    Attributes:
        label_dim: number of classes.
        in_channels: channels of a sample.
        out_channels: channels that are returned: a learnt variance is left out.
        null_class: index of the embedding for "no class".
    """

    def __init__(self, config: dict[str, Any]) -> None:
        """Build the network with random weights.

        Args:
            config: keyword arguments of ``diffusers.DiTTransformer2DModel``, as in its config.json without the entries
                that begin with an underscore.

        Raises:
            ValueError: numbers that do not fit.
            TypeError: an unknown argument.
        """
        super().__init__()
        from diffusers import DiTTransformer2DModel

        transformer: Any = DiTTransformer2DModel(**config)
        self.transformer = transformer
        # Training dropped labels at random, so the embedding has one row more than there are classes.
        self.label_dim = self.null_class = int(transformer.config["num_embeds_ada_norm"])
        self.in_channels = self.out_channels = _sample_channels(transformer.config)

    def bottleneck_name(self) -> str:
        """Name of the block in the middle."""
        return f"transformer.transformer_blocks.{len(self.transformer.transformer_blocks) // 2}"

    def forward(self, x: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        """Evaluate the network.

        Args:
            x: scaled noisy samples, [B, in_channels, H, W]; its dtype is that of the activations.
            t: step, [B], may be fractional.
            labels: one-hot, [B, label_dim]; rows of zeros, or None, mean "no class".

        Returns:
            The prediction, [B, in_channels, H, W].
        """
        if labels is None:
            labels = x.new_zeros(x.shape[0], self.label_dim)
        classes = _class_indices(labels, self.null_class)
        with _in_activations_of(x):
            raw: Tensor = self.transformer(x, timestep=t, class_labels=classes, return_dict=False)[0]
        return raw[:, : self.in_channels]


def to_diffusers(denoiser: Denoiser) -> Any:
    """The network of a denoiser as the stock diffusers model that it is.

    Args:
        denoiser: one around a :class:`UNet2D` or :class:`DiT`.

    Returns:
        An own copy, a ``diffusers.UNet2DModel`` or ``diffusers.DiTTransformer2DModel`` with ``save_pretrained``; fp32,
        on the CPU, in evaluation mode.

    Raises:
        ValueError: the denoiser's network is another.
    """
    network = getattr(denoiser, "model", None)
    if isinstance(network, UNet2D):
        stock: nn.Module = network.unet
    elif isinstance(network, DiT):
        stock = network.transformer
    else:
        raise ValueError(
            f"the network of this denoiser is a {type(network).__name__}, which diffusers has no class for"
        )
    return copy.deepcopy(stock).to("cpu", torch.float32).eval()
