"""Untrained students of several kinds."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "denoisers"))

import nvidia_files  # noqa: E402
import tiny_pipelines  # noqa: E402
from untrained_students import COMPACT, GENERATOR, saved, untrained  # noqa: E402

from disback_cli.denoisers import teachers  # noqa: E402
from disback_cli.distillation.students import factories  # noqa: E402


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def students(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Run folders by the kind of network: the digits', ADM with classes, a UNet2DModel, a latent DiT, a mixture.

    And of other students: one of three evaluations, a compact one, a generator of points.
    """
    root = tmp_path_factory.mktemp("students")
    adm = nvidia_files.tiny_denoiser(nvidia_files.DHARIWAL)
    nvidia_files.write_nvidia_pickle(root / "adm.pkl", adm)
    tiny_pipelines.class_conditional(root / "unet")
    tiny_pipelines.latent(root / "dit")
    mixture = {"_target_": "disback_cli.denoisers.gaussian_mixture.MixtureDenoiser", "hidden": 8}
    made = {
        "song": (teachers.folder(name="edm_digits", folder="pkg://disback_cli/assets/edm_digits"), 2.5),
        "adm": (teachers.edm(name="adm", path=str(root / "adm.pkl")), 80.0),
        "unet": (teachers.diffusers(name="unet", path=str(root / "unet")), 5.0),
        "dit": (teachers.diffusers(name="dit", path=str(root / "dit")), 20.0),
        "points": (teachers.closed_form(name="points", denoiser=mixture), 1.0),
    }
    runs = {name: untrained(root / f"run_{name}", teacher, sigma) for name, (teacher, sigma) in made.items()}
    digits, points = made["song"][0], made["points"][0]
    others = {
        "few": (digits, factories.few_step(digits, sigmas=[80.0, 6.0, 1.0])),
        "compact": (digits, factories.compact(digits, denoiser=COMPACT, sigma_init=2.5)),
        "generator": (points, factories.generator(points, network=GENERATOR)),
    }
    return runs | {name: saved(root / f"run_{name}", student, teacher) for name, (teacher, student) in others.items()}
