"""Students as the configuration names them: each is built around a teacher, the same one every time.

Recording and distillation build the untrained student independently, so its weights may depend on the options alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from disback_cli.denoisers.build import build
from disback_cli.denoisers.protocol import Denoiser
from disback_cli.denoisers.teachers import Teacher
from disback_cli.distillation.student_folder import started_from
from disback_cli.distillation.students.compact import CompactStudent
from disback_cli.distillation.students.few_step import FewStepStudent
from disback_cli.distillation.students.generator import GeneratorStudent
from disback_cli.distillation.students.one_step import OneStepStudent
from disback_cli.errors import UserError


def one_step(teacher: Teacher, *, sigma_init: float, weights: str | None = None) -> OneStepStudent:
    """The teacher's network, asked once.

    Args:
        teacher: whose network and weights it starts with.
        sigma_init: noise level at which the network is asked.
        weights: run or student folder to start from instead of the teacher's weights.

    Raises:
        UserError: the weights are of another kind of student.
        ValueError: the network has no such noise level.
    """
    return started_from(OneStepStudent(teacher.copy(), sigma_init=sigma_init), weights)


def few_step(teacher: Teacher, *, sigmas: list[float], weights: str | None = None) -> FewStepStudent:
    """The teacher's network, asked at a few falling noise levels.

    Args:
        teacher: whose network and weights it starts with.
        sigmas: the noise levels, 2 to 4, strictly falling.
        weights: run or student folder to start from instead of the teacher's weights.

    Raises:
        UserError: the weights are of another kind of student.
        ValueError: the levels are not 2 to 4, do not fall, or are none of the network's.
    """
    return started_from(FewStepStudent(teacher.copy(), sigmas=sigmas), weights)


def compact(
    teacher: Teacher,
    *,
    denoiser: dict[str, Any] | None = None,
    sigma_init: float,
    seed: int = 0,
    weights: str | None = None,
) -> CompactStudent:
    """Another denoiser than the teacher's, asked once, from random weights.

    Args:
        teacher: whose samples it makes.
        denoiser: the network, by ``_target_``.
        sigma_init: noise level at which the network is asked.
        seed: of the random weights.
        weights: run or student folder to start from instead of random weights.

    Raises:
        UserError: there is no network, it is no denoiser, its samples or classes are not the teacher's, or the weights
            are of another student.
        ValueError: the network has no such noise level.
    """
    if denoiser is None:
        raise UserError(
            f"student=compact: no network is known for teacher={teacher.name}; give one, such as\n"
            f"  'student.denoiser={_example(teacher.denoiser)}'"
        )
    network = _seeded(denoiser, seed, "student.denoiser")
    if not isinstance(network, Denoiser):
        raise UserError(
            f"student.denoiser builds a {type(network).__name__}, which is no denoiser; for a network that turns noise "
            "into samples take student=generator student.network=..."
        )
    _require_fitting(teacher, network.shape, network.label_dim, "student.denoiser")
    _require_built_for(network)
    return started_from(CompactStudent(network.trainable_(), sigma_init=sigma_init, spec=denoiser), weights)


def generator(
    teacher: Teacher, *, network: dict[str, Any] | None = None, seed: int = 0, weights: str | None = None
) -> GeneratorStudent:
    """Any network that turns unit normal noise into samples, from random weights.

    Args:
        teacher: whose samples it makes.
        network: the network, by ``_target_``; called as ``network(z)``, or ``network(z, labels)`` with classes.
        seed: of the random weights.
        weights: run or student folder to start from instead of random weights.

    Raises:
        UserError: there is no network, it makes other samples than the teacher, or the weights are of another student.
    """
    shape, classes = teacher.denoiser.shape, teacher.denoiser.label_dim
    if network is None:
        points = "{_target_: disback_cli.denoisers.point_generator.PointGenerator, dim: %d}"
        example = points % shape[0] if len(shape) == 1 and not classes else "{_target_: my_module.MyGenerator}"
        raise UserError(
            f"student=generator: no network is known for teacher={teacher.name}; give one from noise of shape {shape} "
            f"to samples of that shape, such as\n  'student.network={example}'"
        )
    built = _seeded(network, seed, "student.network").requires_grad_(True)
    student = GeneratorStudent(built, shape=shape, label_dim=classes, spec=network)
    made = _shape_made(student)
    _require_fitting(teacher, made, classes, "student.network")
    return started_from(student, weights)


def _seeded(spec: Mapping[str, Any], seed: int, key: str) -> nn.Module:
    """The network of a description, its random weights drawn from a seed of their own; in evaluation mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build(spec)
    if not isinstance(network, nn.Module):
        raise UserError(f"{key} builds a {type(network).__name__}, not a network; name one by _target_")
    return network.float().eval()


@torch.no_grad()
def _shape_made(student: GeneratorStudent) -> tuple[int, ...]:
    """Shape of what a generator makes of two latents of the teacher's shape."""
    labels = torch.eye(student.label_dim)[[0, -1]] if student.label_dim else None
    given = f"noise {(2, *student.shape)}" + (f" and labels {(2, student.label_dim)}" if student.label_dim else "")
    try:
        made = student(torch.zeros(2, *student.shape), labels)
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        name = type(student.denoiser).__name__
        raise UserError(f"student.network: {name} cannot be called with {given}: {error}") from error
    if not isinstance(made, torch.Tensor) or made.shape[:1] != (2,):
        raise UserError(f"student.network: {type(student.denoiser).__name__} does not return one sample a latent")
    return tuple(made.shape[1:])


def _require_fitting(teacher: Teacher, shape: tuple[int, ...], classes: int, key: str) -> None:
    """Refuse a network of other samples than the teacher's."""
    wanted, known = teacher.denoiser.shape, teacher.denoiser.label_dim
    if shape != wanted:
        what = "image size" if len(shape) == len(wanted) == 3 and shape[0] == wanted[0] else "shape"
        raise UserError(
            f"{key} makes samples of shape {list(shape)}, the teacher {teacher.name} of {list(wanted)}: a student of "
            f"another {what} cannot follow it. Give a network that makes samples of shape {list(wanted)}"
        )
    if classes != known:
        raise UserError(
            f"{key} has label_dim={classes}, the teacher {teacher.name} has {known}: they must agree. "
            f"Type {key}.label_dim={known}, and the same for the network inside"
        )


def _require_built_for(network: Denoiser) -> None:
    """Refuse a network inside that was built for another image size: it runs, but its levels are of other sizes."""
    for height in network.shape[1:2]:  # points have none
        found = (getattr(inner, "img_resolution", height) for inner in network.children())
        if other := next((size for size in found if size != height), None):
            key = "student.denoiser.network.img_resolution"
            raise UserError(
                f"{key}={other}: the network is built for another image size than that of the samples, "
                f"{list(network.shape)}. Type {key}={height}"
            )


def _example(denoiser: Denoiser) -> str:
    """A description of a small network for samples like this denoiser's, as it is typed."""
    shape, classes = denoiser.shape, denoiser.label_dim
    if len(shape) == 1:
        return f"{{_target_: disback_cli.denoisers.mlp_denoiser.MLPDenoiser, dim: {shape[0]}}}"
    network = (
        f"{{_target_: disback_cli.denoisers.song_unet.SongUNet, img_resolution: {shape[1]}, in_channels: {shape[0]}, "
        f"out_channels: {shape[0]}, label_dim: {classes}, model_channels: 64}}"
    )
    return (
        f"{{_target_: disback_cli.denoisers.edm.EDMDenoiser, shape: {list(shape)}, label_dim: {classes}, "
        f"network: {network}}}"
    )
