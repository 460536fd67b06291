"""LoRA on a copy of the teacher: adapted networks, and the student made of one."""

from __future__ import annotations

import copy
from typing import Literal

from torch import Tensor

from disback_cli.denoisers.protocol import Denoiser
from disback_cli.denoisers.teachers import Teacher
from disback_cli.distillation.adapters import LoraSettings, chosen_layers, keep_base_out_of_state, plain_weights
from disback_cli.distillation.student_folder import started_from
from disback_cli.distillation.students import OneStepStudent
from disback_cli.errors import UserError


def adapted(denoiser: Denoiser, settings: LoraSettings, *, seed: int, group: str) -> Denoiser:
    """A frozen copy of a denoiser with trainable adapters that change nothing yet; in evaluation mode.

    Its ``state_dict`` holds the adapters alone; :func:`plain_weights` gives the whole network's.

    Args:
        denoiser: a plain one.
        settings: of the adapters.
        seed: of the first factor A; the second is zero.
        group: whose options they are, for messages: ``fake`` or ``student``.

    Raises:
        UserError: no layer matches, the network does not allow LoRA, or peft is not installed.
    """
    network = copy.deepcopy(denoiser).eval()
    names, plain = chosen_layers(network, settings.layers, group), list(network.state_dict())
    try:
        from disback_cli.distillation.lora_layers import inject
    except ModuleNotFoundError as error:
        if str(error.name).startswith("disback_cli"):
            raise
        raise UserError(
            f"{group}=lora needs the package peft ({error}); type pip install 'disback-cli[lora]'"
        ) from error
    inject(network, names, settings, seed)
    keep_base_out_of_state(network, settings, names, plain)
    return network


class LoraStudent(OneStepStudent):
    """A one-step student that trains adapters only; exported, it is an ordinary one-step student."""

    def export_weights(self) -> dict[str, Tensor]:
        """Adapters merged, under the teacher's names."""
        return plain_weights(self.denoiser)


def lora(
    teacher: Teacher,
    *,
    sigma_init: float,
    rank: int,
    alpha: float,
    layers: Literal["attention", "all"] | list[str],
    seed: int = 0,
    weights: str | None = None,
) -> LoraStudent:
    """The teacher's network, asked once, with trainable adapters on frozen weights.

    Args:
        teacher: whose network it is.
        sigma_init: noise level at which the network is asked.
        rank: of the adapters.
        alpha: the adapters count ``alpha / rank``.
        layers: "attention", "all", or patterns of layers' names.
        seed: of the adapters' first factor.
        weights: run or student folder of a one-step student whose weights take the place of the teacher's.

    Raises:
        UserError: no layer matches, the network does not allow LoRA, peft is not installed, or the weights are of
            another student.
        ValueError: a number is outside its range, or the network has no such noise level.
    """
    settings = LoraSettings(rank, alpha, layers if isinstance(layers, str) else tuple(layers))
    plain = started_from(OneStepStudent(teacher.copy(), sigma_init=sigma_init), weights)
    denoiser = adapted(plain.denoiser, settings, seed=seed, group="student")
    return LoraStudent(denoiser, sigma_init=sigma_init)
