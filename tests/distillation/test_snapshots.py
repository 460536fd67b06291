"""Snapshots of a training: the average at the iterations asked for, readable as teachers."""

import copy

import pytest
import torch

from disback_cli.data.points import ring
from disback_cli.denoisers.folder import load_model
from disback_cli.denoisers.kinds import TEACHER
from disback_cli.distillation.pretraining import Pretraining
from disback_cli.distillation.sigma_laws import LogNormal
from disback_cli.distillation.snapshots import Snapshots
from disback_cli.errors import UserError
from disback_cli.runtime.optimizers import AdamSettings

SPEC = {
    "_target_": "disback_cli.denoisers.gaussian_mixture.MixtureDenoiser", "layout": "ring", "hidden": 16, "depth": 2,
}  # fmt: skip


@pytest.fixture
def make_pretraining(teacher):
    def make() -> Pretraining:
        return Pretraining(
            denoiser=copy.deepcopy(teacher).requires_grad_(True), dataset=ring(), law=LogNormal(), ema_halflife=40.0,
            ema_rampup=0.0, batch_size=16, iterations=6, seed=0, optimizer=AdamSettings(), lr={"denoiser": 1e-2},
        )  # fmt: skip

    return make


def snapshots(folder, **settings) -> Snapshots:
    defaults = {"at": [], "every": 0, "iterations": 6, "spec": SPEC, "facts": {"kind": TEACHER}, "dtype": None}
    return Snapshots(folder, **(defaults | settings))


def test_the_average_is_kept_at_the_iterations_asked_for(tmp_path, make_pretraining, fit, watch):
    averages = {}
    look = watch(
        lambda s: averages.update({s.iteration: {k: v.clone() for k, v in s.ema.network.state_dict().items()}})
    )
    fit(make_pretraining(), look, snapshots(tmp_path, at=[1, 3], every=4))
    assert sorted(place.name for place in tmp_path.iterdir()) == [f"iteration_{i:08d}" for i in (1, 3, 4)]
    for iteration in (1, 3, 4):
        network, config = load_model(tmp_path / f"iteration_{iteration:08d}")
        assert all(torch.equal(network.state_dict()[name], tensor) for name, tensor in averages[iteration].items())
        assert (config["kind"], config["iterations"], config["images"]) == (TEACHER, iteration, 16 * iteration)


def test_a_resumed_training_keeps_the_same(tmp_path, make_pretraining, fit, save_at):
    fit(make_pretraining(), snapshots(tmp_path / "whole", at=[2, 5]))
    saver = save_at(tmp_path / "checkpoints", [3])
    fit(make_pretraining(), snapshots(tmp_path / "parts", at=[2]), saver)
    fit(make_pretraining(), snapshots(tmp_path / "parts", at=[2, 5]), checkpoint=saver.store.newest_whole())
    for place in ("iteration_00000002", "iteration_00000005"):
        name = f"{place}/model.safetensors"
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_none_are_kept_unless_asked_for(tmp_path, make_pretraining, fit):
    fit(make_pretraining(), snapshots(tmp_path / "none"))
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("at", [[0], [3, 7]])
def test_iterations_that_the_training_does_not_have_are_refused(tmp_path, at):
    with pytest.raises(UserError, match=f"names {at[-1]}, which is none of iterations 1 to 6"):
        snapshots(tmp_path, at=at)
