"""Writes genuine pickles in NVIDIA's layout out of our own denoisers, for tests.

The layout needs two modules of NVIDIA's to exist while Python's pickle writes; they are made up for that long only.
"""

from __future__ import annotations

import contextlib
import io
import pickle
import sys
import threading
import types
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from disback_cli.denoisers.build import build
from disback_cli.denoisers.protocol import Denoiser

SOURCE = "raise SystemExit('the source text inside a pickle was executed')\n"
RECONSTRUCT = "_reconstruct_persistent_obj"
SONG: dict[str, Any] = {
    "img_resolution": 8, "img_channels": 3, "label_dim": 0, "use_fp16": False, "model_type": "SongUNet",
    "augment_dim": 9, "model_channels": 16, "channel_mult": [1, 2], "num_blocks": 1, "attn_resolutions": [4],
    "dropout": 0.13, "embedding_type": "positional", "encoder_type": "standard", "decoder_type": "standard",
    "channel_mult_noise": 1, "resample_filter": [1, 1],
}  # fmt: skip
NCSNPP: dict[str, Any] = SONG | {
    "embedding_type": "fourier", "encoder_type": "residual", "channel_mult_noise": 2, "resample_filter": [1, 3, 3, 1],
}  # fmt: skip
DHARIWAL: dict[str, Any] = {
    "img_resolution": 8, "img_channels": 3, "label_dim": 4, "use_fp16": True, "model_type": "DhariwalUNet",
    "model_channels": 64, "channel_mult": [1, 2], "num_blocks": 1, "attn_resolutions": [4], "dropout": 0.1,
}  # fmt: skip
EDM2: dict[str, Any] = {
    "img_resolution": 8, "img_channels": 4, "label_dim": 5, "use_fp16": True, "sigma_data": 0.5, "logvar_channels": 16,
    "model_channels": 64, "channel_mult": [1, 2], "num_blocks": 1, "attn_resolutions": [4],
}  # fmt: skip

_DENOISERS = {
    "EDMPrecond": ("edm.EDMDenoiser", {"sigma_min", "sigma_max", "sigma_data"}),
    "VPPrecond": ("score_sde.VPDenoiser", {"beta_d", "beta_min", "M", "epsilon_t"}),
    "VEPrecond": ("score_sde.VEDenoiser", {"sigma_min", "sigma_max"}),
    "iDDPMPrecond": ("iddpm.IDDPMDenoiser", {"C_1", "C_2", "M"}),
    "Precond": ("edm2.EDM2Denoiser", {"sigma_data", "logvar_channels"}),
}
_NETWORKS = {"SongUNet": "song_unet.SongUNet", "DhariwalUNet": "dhariwal_unet.DhariwalUNet"}
_NVIDIA_NAMES = {"EDM2UNet": "UNet", "MPBlock": "Block"}


def tiny_denoiser(
    arguments: Mapping[str, Any] = SONG, class_name: str = "EDMPrecond", seed: int = 0, **changes: Any
) -> Denoiser:
    """One of our denoisers from the arguments NVIDIA's constructor would get, with random weights everywhere.

    Args:
        arguments: of the preconditioning class and its network, e.g. ``SONG``, ``NCSNPP``, ``DHARIWAL``, ``EDM2``.
        class_name: NVIDIA's preconditioning class; ``Precond`` is EDM2's.
        seed: of the weights.
        **changes: replace or add arguments.

    Returns:
        The denoiser; its attribute ``nvidia_arguments`` tells ``write_nvidia_pickle`` how it was built.
    """
    arguments = {**arguments, **changes}
    target, own = _DENOISERS[class_name]
    options = {name: arguments[name] for name in arguments if name in own}
    channels, size, label_dim = (arguments[name] for name in ("img_channels", "img_resolution", "label_dim"))
    network = {
        name: value for name, value in arguments.items() if name not in own | {"img_channels", "use_fp16", "model_type"}
    }
    if class_name == "Precond":
        network |= {"_target_": "disback_cli.denoisers.edm2.EDM2UNet", "img_channels": channels}
    else:
        outputs = channels * (2 if class_name == "iDDPMPrecond" else 1)
        network |= {"in_channels": channels, "out_channels": outputs}
        network["_target_"] = f"disback_cli.denoisers.{_NETWORKS[arguments['model_type']]}"
    spec = {
        "_target_": f"disback_cli.denoisers.{target}", "network": network, "shape": [channels, size, size],
        "label_dim": label_dim, "network_dtype": "fp16" if arguments["use_fp16"] else "fp32", **options,
    }  # fmt: skip
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        denoiser = build(spec)
    with torch.no_grad():
        for name, parameter in denoiser.named_parameters():
            scale = 0.1 if parameter.ndim > 1 else 0.3
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
            if "norm" in name and name.endswith("weight"):
                parameter.add_(1)
    denoiser.nvidia_arguments = arguments
    return denoiser.eval()


def write_nvidia_pickle(
    path: Path,
    denoiser: Denoiser,
    *,
    class_name: str = "EDMPrecond",
    key: str | None = "ema",
    extra: Mapping[str, Any] | None = None,
    arguments: Mapping[str, Any] | None = None,
    positional: tuple[str, ...] = (),
    storage: Literal["inplace", "zip", "legacy"] = "inplace",
    protocol: int | None = None,
    dtype: torch.dtype | None = None,
) -> Path:
    """Write a network snapshot.

    Args:
        path: the file.
        denoiser: from ``tiny_denoiser``, or any other of ours together with ``arguments``.
        class_name: NVIDIA's preconditioning class.
        key: under which the network lies; None writes the bare network.
        extra: other entries of the snapshot, plain values; ``snapshot_extras()`` gives those of a training snapshot.
        arguments: of the constructor; None means those ``tiny_denoiser`` got.
        positional: names of the arguments that were given by position, in order.
        storage: numbers of the tensors in place (plain pickle), or as ``torch.save`` writes them, now or formerly.
        protocol: of the pickle; None is the writer's default.
        dtype: of the stored floating-point tensors; None keeps theirs.

    Returns:
        The path.
    """
    arguments = dict(denoiser.nvidia_arguments if arguments is None else arguments)
    # NumPy numbers are common among these arguments.
    arguments |= {name: np.float64(value) for name, value in arguments.items() if name in ("sigma_data", "dropout")}
    network = _wrap(denoiser, dtype, class_name)
    network.state["_init_args"] = tuple(arguments.pop(name) for name in positional)
    network.state["_init_kwargs"] = arguments
    content: Any = network if key is None else {key: network, **(extra or {})}
    path.write_bytes(dump(content, storage, protocol))
    return path


def snapshot_extras() -> dict[str, Any]:
    """What else lies in a training snapshot."""
    loss = PersistentObject("EDMLoss", {"P_mean": -1.2, "P_std": np.float64(1.2), "sigma_data": 0.5})
    dataset = EasyDict(class_name="training.dataset.ImageFolderDataset", path="x.zip", use_labels=True, xflip=False)
    return {"loss_fn": loss, "augment_pipe": None, "dataset_kwargs": dataset}


# the modules that stand for NVIDIA's while a file is written are the process's
_WRITING = threading.Lock()


def dump(content: Any, storage: Literal["inplace", "zip", "legacy"] = "inplace", protocol: int | None = None) -> bytes:
    """Pickle something that contains ``PersistentObject`` and ``EasyDict``."""
    buffer = io.BytesIO()
    with _WRITING, nvidia_modules():
        if storage == "inplace":
            pickle.dump(content, buffer, protocol)
        else:
            options = {} if protocol is None else {"pickle_protocol": protocol}
            torch.save(content, buffer, _use_new_zipfile_serialization=storage == "zip", **options)
    return buffer.getvalue()


class EasyDict(dict):
    """Stands for NVIDIA's class while writing."""


class PersistentObject:
    """Reduces as NVIDIA's persistent objects do."""

    def __init__(self, class_name: str, state: dict[str, Any], source: str = SOURCE) -> None:
        self.class_name, self.state, self.source = class_name, state, source

    def __reduce__(self) -> tuple[Any, ...]:
        meta = {
            "type": "class",
            "version": 6,
            "module_src": self.source,
            "class_name": self.class_name,
            "state": self.state,
        }
        return getattr(sys.modules["torch_utils.persistence"], RECONSTRUCT), (meta,)


@contextlib.contextmanager
def nvidia_modules() -> Iterator[None]:
    """Make up the modules that pickle looks the two names up in, for as long as it writes."""

    def reconstruct(meta: Any) -> Any:
        raise AssertionError("the tests only write with this")

    reconstruct.__name__ = reconstruct.__qualname__ = RECONSTRUCT
    reconstruct.__module__ = "torch_utils.persistence"
    made = {
        name: types.ModuleType(name) for name in ("torch_utils", "torch_utils.persistence", "dnnlib", "dnnlib.util")
    }
    setattr(made["torch_utils.persistence"], RECONSTRUCT, reconstruct)
    made["dnnlib.util"].EasyDict = EasyDict
    before = {name: sys.modules.get(name) for name in made}
    EasyDict.__module__, home = "dnnlib.util", EasyDict.__module__
    sys.modules.update(made)
    try:
        yield
    finally:
        EasyDict.__module__ = home
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


def _wrap(module: nn.Module, dtype: torch.dtype | None, class_name: str | None = None) -> Any:
    """The persistent object, or for a module of PyTorch's the module itself, with everything inside it wrapped."""
    state = dict(module.__dict__)
    state.pop("nvidia_arguments", None)
    state = {name: value for name, value in state.items() if name.startswith("_") or _is_plain(value)}
    state["_modules"] = OrderedDict(
        (name, child if child is None else _wrap(child, dtype)) for name, child in module._modules.items()
    )
    state["_parameters"] = OrderedDict(
        (name, None if value is None else nn.Parameter(_cast(value, dtype)))
        for name, value in module._parameters.items()
    )
    # Buffers that do not belong into the state dict are plain attributes in NVIDIA's classes.
    hidden = module._non_persistent_buffers_set
    state["_buffers"] = OrderedDict((n, _cast(b, dtype)) for n, b in module._buffers.items() if n not in hidden)
    state["_non_persistent_buffers_set"] = set()
    if type(module).__module__.startswith("torch.nn."):
        shell = type(module)()
        shell.__dict__ = state
        return shell
    name = class_name or type(module).__name__
    return PersistentObject(_NVIDIA_NAMES.get(name, name), state)


def _cast(tensor: torch.Tensor, dtype: torch.dtype | None) -> torch.Tensor:
    return tensor.detach().to(dtype) if dtype is not None and tensor.is_floating_point() else tensor.detach()


def _is_plain(value: Any) -> bool:
    return (
        value is None
        or isinstance(value, (bool, int, float, str))
        or (isinstance(value, (list, tuple)) and all(_is_plain(entry) for entry in value))
    )
