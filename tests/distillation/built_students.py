"""A student of every kind, for points in the plane."""

from __future__ import annotations

from collections.abc import Callable

from disback_cli.denoisers.teachers import Teacher
from disback_cli.distillation.students import Student, factories

MIXTURE = {"_target_": "disback_cli.denoisers.gaussian_mixture.MixtureDenoiser", "hidden": 8, "depth": 1}
MLP = {"_target_": "disback_cli.denoisers.mlp_denoiser.MLPDenoiser", "dim": 2, "hidden": 8, "depth": 1}
POINTS = {"_target_": "disback_cli.denoisers.point_generator.PointGenerator", "dim": 2, "hidden": 8, "depth": 1}

BUILT: dict[str, Callable[[Teacher], Student]] = {
    "one_step": lambda teacher: factories.one_step(teacher, sigma_init=2.5),
    "few_step": lambda teacher: factories.few_step(teacher, sigmas=[80.0, 2.0]),
    "compact": lambda teacher: factories.compact(teacher, denoiser=MLP, sigma_init=2.5),
    "generator": lambda teacher: factories.generator(teacher, network=POINTS),
}
