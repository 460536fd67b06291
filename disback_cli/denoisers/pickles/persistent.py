"""NVIDIA's "persistent" objects in pickles: their content, without the source code that travels with them being run.

Every such object is pickled as a call of one function with a dict of type, version, source text, class name and state.
The state of a network holds its constructor's arguments, parameters, buffers and submodules.
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from disback_cli.denoisers.pickles.numpy_objects import numpy_globals
from disback_cli.denoisers.pickles.objects import (
    DictHandler,
    Handler,
    Reading,
    Standin,
    describe,
    names_in_words,
    plain_globals,
    shown,
)
from disback_cli.denoisers.pickles.torch_objects import read_torch, torch_globals
from disback_cli.errors import UserError

# Where snapshots keep the averaged network, best first; "net" is the raw one.
NETWORK_KEYS = ("ema", "G_ema", "net")
# Modules of PyTorch that networks use as they are. They are stand-ins like all others: only their content is kept.
TORCH_MODULES = (
    ("torch.nn.modules.container", "ModuleDict"),
    ("torch.nn.modules.container", "ModuleList"),
    ("torch.nn.modules.container", "Sequential"),
    ("torch.nn.modules.conv", "Conv2d"),
    ("torch.nn.modules.linear", "Linear"),
    ("torch.nn.modules.linear", "Identity"),
    ("torch.nn.modules.batchnorm", "BatchNorm2d"),
)


@dataclass(frozen=True, eq=False)
class Persistent:
    """What an object of NVIDIA's, or a module of PyTorch, consisted of.

    Attributes:
        class_name: name of its class, as the file has it.
        module_source: source text of the module that defines the class; never executed. Empty for PyTorch's modules.
        init_args: positional arguments its constructor got.
        init_kwargs: keyword arguments its constructor got.
        parameters: by name, in definition order; without those that are None.
        buffers: likewise; those that do not belong into a state dict are missing.
        modules: submodules, likewise.
        attributes: its other attributes that are public.
    """

    class_name: str
    module_source: str = field(repr=False)
    init_args: tuple[Any, ...] = field(repr=False)
    init_kwargs: dict[str, Any] = field(repr=False)
    parameters: dict[str, Tensor] = field(repr=False)
    buffers: dict[str, Tensor] = field(repr=False)
    modules: dict[str, Persistent] = field(repr=False)
    attributes: dict[str, Any] = field(repr=False)


@dataclass(frozen=True)
class Snapshot:
    """A file of NVIDIA's: a network, and what else lies beside it.

    Attributes:
        network: the network.
        key: under which key it lies; None if it is the whole file.
        others: the other entries.
    """

    network: Persistent
    key: str | None
    others: dict[str, Any]


class ObjectStandin(Standin):
    """An object under construction."""

    def __init__(self, reading: Reading, class_name: str, module_source: str = "", state: Any = None) -> None:
        """Remember what is known; PyTorch's modules get their state later."""
        super().__init__(reading, shown(class_name, 60)[1:-1])
        self.class_name, self.module_source, self.state = class_name, module_source, state

    def build(self, state: Any) -> None:
        """Take the state of a module of PyTorch; persistent objects bring theirs with them."""
        if self.state is not None or type(state) is not dict:
            return super().build(state)
        self.state = state

    def children(self) -> Sequence[Any]:
        """The state."""
        return (self.state,)

    def finished(self, children: list[Any]) -> Persistent:
        """The content, sorted."""
        state = children[0] if isinstance(children[0], dict) else {}
        if any(type(name) is not str for name in state):
            raise self.reading.error(f"an attribute of a {self.name} has no name: the file is damaged")
        hidden = state.get("_non_persistent_buffers_set") or ()
        if not isinstance(hidden, (set, tuple)):
            raise self._error("_non_persistent_buffers_set", hidden)
        buffers = self._members(state, "_buffers", Tensor)
        arguments = state.get("_init_args") or ()
        if not isinstance(arguments, (tuple, list)):
            raise self._error("_init_args", arguments)
        return Persistent(
            class_name=self.class_name,
            module_source=self.module_source,
            init_args=tuple(arguments),
            init_kwargs=self._members(state, "_init_kwargs", object, keep_none=True),
            parameters=self._members(state, "_parameters", Tensor),
            buffers={name: buffer for name, buffer in buffers.items() if name not in hidden},
            modules=self._members(state, "_modules", Persistent),
            attributes={name: value for name, value in state.items() if not name.startswith("_")},
        )

    def _members(self, state: dict[str, Any], name: str, kind: type, keep_none: bool = False) -> dict[str, Any]:
        """One of the dictionaries of the state, its entries checked."""
        members = state.get(name)
        if members is None:
            return {}
        if not isinstance(members, dict):
            raise self._error(name, members)
        for key, value in members.items():
            if type(key) is not str or not (value is None or isinstance(value, kind)):
                raise self._error(f"{name}[{describe(key)}]", value)
        return {key: value for key, value in members.items() if keep_none or value is not None}

    def _error(self, name: str, value: Any) -> UserError:
        """What to say about a state of another form."""
        return self.reading.error(f"{name} of a {self.name} is {describe(value)}, which is not known: is it damaged?")


class PersistentHandler(Handler):
    """``torch_utils.persistence._reconstruct_persistent_obj(meta)``; NVIDIA's function executes ``module_src``."""

    def call(self, arguments: tuple[Any, ...]) -> Any:
        """The object under construction."""
        if len(arguments) != 1 or not isinstance(arguments[0], dict):
            return super().call(arguments)
        meta = arguments[0]
        if type(meta.get("type")) is not str or meta["type"] != "class":
            raise self.reading.error(f"it holds a persistent object of kind {describe(meta.get('type'))}, not a class")
        class_name, source, state = meta.get("class_name"), meta.get("module_src"), meta.get("state")
        if type(class_name) is not str or type(source) is not str or not (state is None or isinstance(state, dict)):
            raise self.reading.error("it holds a persistent object without class name, source or state: is it damaged?")
        return ObjectStandin(self.reading, class_name, source, {} if state is None else state)


class ModuleHandler(Handler):
    """A module class of PyTorch."""

    def call(self, arguments: tuple[Any, ...]) -> Any:
        """A module under construction; its state follows."""
        if arguments:
            return super().call(arguments)
        return ObjectStandin(self.reading, self.name.rpartition(".")[2])


def persistent_globals(reading: Reading) -> dict[tuple[str, str], Handler]:
    """Handlers of everything that occurs in NVIDIA's files."""
    modules = {(module, name): ModuleHandler(reading, f"{module}.{name}") for module, name in TORCH_MODULES}
    return (
        plain_globals(reading)
        | numpy_globals(reading)
        | torch_globals(reading)
        | modules
        | {
            ("torch_utils.persistence", "_reconstruct_persistent_obj"): PersistentHandler(
                reading, "torch_utils.persistence._reconstruct_persistent_obj"
            ),
            ("dnnlib.util", "EasyDict"): DictHandler(reading, "dnnlib.util.EasyDict"),
        }
    )


def open_view(path: Path) -> memoryview:
    """A file's content, mapped rather than read.

    Raises:
        UserError: it cannot be opened, or is empty.
    """
    try:
        with open(path, "rb") as file:
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise UserError(f"{path} is empty: copy or download it again") from error


def read_snapshot(path: Path) -> Snapshot:
    """Read a file with a persistent network: a pickle of NVIDIA's, or the same objects written by ``torch.save``.

    Args:
        path: the file.

    Returns:
        The network under the first of ``NETWORK_KEYS`` that is there, or the whole file if that is a network.

    Raises:
        UserError: the file is damaged, holds no network, or names something that does not belong into such a file.
    """
    view = open_view(path)
    reading = Reading(str(path), len(view))
    root = read_torch(view, reading, persistent_globals(reading))
    if isinstance(root, Persistent):
        return Snapshot(root, None, {})
    if not isinstance(root, dict):
        raise UserError(f"{path} holds {describe(root)}, no network: give a snapshot of EDM or EDM2, or of a student")
    for key in NETWORK_KEYS:
        if isinstance(root.get(key), Persistent):
            others = {shown(str(name), 60)[1:-1]: value for name, value in root.items() if name != key}
            return Snapshot(root[key], key, others)
    contents = names_in_words(f"{name} ({kind_of(value)})" for name, value in root.items())
    raise UserError(
        f"{path} holds no network under {', '.join(NETWORK_KEYS)}, but {contents or 'nothing'}: give a snapshot of EDM "
        "or EDM2 (network-snapshot-*.pkl, edm-*.pkl), or a student of one"
    )


def read_object(path: Path) -> Persistent:
    """The network object of a file, whatever its class: the root, or the entry ``ema``, ``G_ema`` or ``net``.

    Raises:
        UserError: see :func:`read_snapshot`.
    """
    return read_snapshot(path).network


def flat_tensors(network: Persistent) -> dict[str, Tensor]:
    """The state dict of a network.

    Args:
        network: what was read.

    Returns:
        Parameters and persistent buffers by their dotted names, in definition order, in the dtypes of the file.

    Raises:
        UserError: two of them have the same name.
    """
    flat: dict[str, Tensor] = {}

    def collect(module: Persistent, prefix: str) -> None:
        for name, tensor in (*module.parameters.items(), *module.buffers.items()):
            if prefix + name in flat:
                raise UserError(f"the network has two tensors named {shown(prefix + name)}: its file is damaged")
            flat[prefix + name] = tensor
        for name, child in module.modules.items():
            collect(child, f"{prefix}{name}.")

    collect(network, "")
    return flat


def kind_of(value: Any) -> str:
    """What an entry of a snapshot is, in a few words."""
    return shown(value.class_name, 60)[1:-1] if isinstance(value, Persistent) else describe(value)
