"""The network of the fake score: a copy of the teacher trained whole, or adapters on a frozen one.

Both stages train one: recording degrades it, distillation follows the student with it. What a node of a path holds
are the tensors that its kind trains.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import Tensor

from disback_cli.denoisers.protocol import Denoiser
from disback_cli.denoisers.teachers import Teacher
from disback_cli.distillation.adapters import LoraSettings, settings_of
from disback_cli.distillation.path import DegradationPath
from disback_cli.errors import UserError


def full(teacher: Teacher) -> Denoiser:
    """A copy of the teacher, every used weight of which is trained."""
    return teacher.copy()


def lora(
    teacher: Teacher,
    *,
    rank: int,
    alpha: float,
    layers: Literal["attention", "all"] | list[str],
    seed: int = 0,
) -> Denoiser:
    """A frozen copy of the teacher with trainable low-rank adapters; see docs/lora.md.

    Args:
        teacher: whose network it is.
        rank: of the adapters.
        alpha: the adapters count ``alpha / rank``.
        layers: "attention", "all", or patterns of layers' names.
        seed: of the adapters' first factor; the second is zero, so that a fresh one equals the teacher.

    Raises:
        UserError: no layer matches, the network does not allow LoRA, or peft is not installed.
        ValueError: a number is outside its range.
    """
    from disback_cli.distillation.lora import adapted

    settings = LoraSettings(rank, alpha, layers if isinstance(layers, str) else tuple(layers))
    return adapted(teacher.denoiser, settings, seed=seed, group="fake")


def node_weights(fake: Denoiser) -> dict[str, Tensor]:
    """What a node of a path holds of a fake score: its state dict, which is the adapters alone where it has some."""
    return fake.state_dict()


def start_from(
    fake: Denoiser, path: DegradationPath, node: int, full_weights: Callable[[int], dict[str, Tensor]]
) -> None:
    """Give a fresh fake score the weights of a node of a path, strictly.

    A path of adapters also serves a fake score that is trained whole: it starts from the merged node.

    Args:
        fake: as a factory here made it.
        path: of the same teacher.
        node: number of the node.
        full_weights: full weights of a node under the teacher's names.

    Raises:
        UserError: the fake score has adapters, and the path has none or others.
    """
    wanted = settings_of(fake)
    if wanted is None:
        fake.load_state_dict(full_weights(node), strict=True)
        return
    if path.adapter is None:
        raise UserError(
            f"fake=lora trains adapters, but the nodes of {path.folder} are whole networks. Type fake=full, or record "
            f"a path of adapters: disback record {wanted.typed('fake')}"
        )
    if path.adapter != wanted:
        raise UserError(
            f"the nodes of {path.folder} are other adapters than this run's. Type {path.adapter.typed('fake')}; or "
            f"fake=full, which starts from the merged node; or record another path: disback record "
            f"{wanted.typed('fake')}"
        )
    fake.load_state_dict(path.weights(node), strict=True)
