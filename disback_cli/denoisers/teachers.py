"""Teachers: where a many-step denoiser comes from."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from disback_cli.denoisers.folder import build, load_model, weights_hash
from disback_cli.denoisers.protocol import Denoiser
from disback_cli.errors import UserError


@dataclass(frozen=True)
class Teacher:
    """A denoiser with its origin.

    Attributes:
        name: what runs on it are filed under.
        denoiser: the network, frozen and in evaluation mode.
        spec: plain nested dict from which the same network is built (see :func:`build`).
        hash: identity of the weights; a path belongs to exactly one.
        sampler: settings of EDM's Heun sampler (steps, s_churn, ...).
    """

    name: str
    denoiser: Denoiser
    spec: dict[str, Any]
    hash: str
    sampler: dict[str, Any] = field(default_factory=dict)

    def copy(self) -> Denoiser:
        """A trainable copy of the network, the teacher's weights included."""
        return copy.deepcopy(self.denoiser).requires_grad_(True)


def _teacher(name: str, denoiser: Denoiser, spec: dict[str, Any], sampler: Mapping[str, Any] | None) -> Teacher:
    denoiser.requires_grad_(False).eval()
    return Teacher(name, denoiser, spec, weights_hash(denoiser.state_dict()), dict(sampler or {}))


def shipped(*, name: str, folder: str, denoiser: dict[str, Any], sampler: dict[str, Any] | None = None) -> Teacher:
    """A teacher whose network is described in the configuration and whose weights lie in a model folder.

    Args:
        name: name of the teacher.
        folder: a model folder; ``pkg://disback_cli/...`` is inside the installed package.
        denoiser: the network; `disback pretrain` trains it from scratch.
        sampler: settings of the Heun sampler.

    Raises:
        UserError: no such folder, damaged weights, or a network other than the one described.
    """
    loaded, config = load_model(folder)
    if config["denoiser"] != denoiser:
        raise UserError(
            f"the weights in {folder} are of another network than teacher.denoiser describes. Undo the changes "
            "to teacher.denoiser, or train weights for it with `disback pretrain` "
            "and use teacher=folder teacher.folder=RUN."
        )
    return _teacher(name, loaded, denoiser, sampler)


def folder(*, name: str, folder: str, sampler: dict[str, Any] | None = None) -> Teacher:
    """A teacher from a model folder alone, as `disback pretrain` leaves it (``<run>/teacher``).

    Args:
        name: name of the teacher.
        folder: the model folder, or the run folder that contains it as ``teacher``.
        sampler: settings of the Heun sampler.
    """
    from disback_cli.denoisers.folder import resolve_folder

    place = resolve_folder(folder)
    if not (place / "config.json").is_file() and (place / "teacher" / "config.json").is_file():
        place = place / "teacher"
    loaded, config = load_model(str(place))
    return _teacher(name, loaded, config["denoiser"], sampler)


def closed_form(*, name: str, denoiser: dict[str, Any], sampler: dict[str, Any] | None = None) -> Teacher:
    """A teacher that needs no weights: its denoiser is exact in closed form.

    Args:
        name: name of the teacher.
        denoiser: the denoiser, by ``_target_``.
        sampler: settings of the Heun sampler.
    """
    return _teacher(name, build(denoiser, allow=None), denoiser, sampler)
