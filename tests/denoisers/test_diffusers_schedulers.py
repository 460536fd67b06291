"""What a scheduler's configuration says about its network."""

from __future__ import annotations

import diffusers
import pytest

from disback_cli.denoisers.diffusers_schedulers import FLOW_MATCHING, VARIANCE_PRESERVING, parametrisation
from disback_cli.errors import UserError

DDPM = {
    "_class_name": "DDPMScheduler",
    "num_train_timesteps": 1000,
    "beta_start": 1e-4,
    "beta_end": 0.02,
    "beta_schedule": "linear",
}
FLOW = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": 3.0}


@pytest.mark.parametrize("name", VARIANCE_PRESERVING)
def test_every_scheduler_as_diffusers_saves_it(name):
    """Its own betas come out again; those whose class diffusers cannot build here are checked by their entries."""
    try:
        stock = getattr(diffusers, name)(beta_schedule="scaled_linear", beta_start=0.001, beta_end=0.015)
        config = dict(stock.config)
    except ImportError:
        config = DDPM | {"beta_schedule": "scaled_linear", "beta_start": 0.001, "beta_end": 0.015}
    found = parametrisation(config | {"_class_name": name}, "file")
    assert found.target == "disback_cli.denoisers.discrete.DiscreteDenoiser" and found.prediction == "epsilon"
    assert found.keywords["schedule"] == {
        "num_train_timesteps": 1000,
        "beta_start": 0.001,
        "beta_end": 0.015,
        "beta_schedule": "scaled_linear",
    }


@pytest.mark.parametrize("name", FLOW_MATCHING)
def test_flow_matching(name):
    found = parametrisation(dict(getattr(diffusers, name)().config) | {"_class_name": name}, "file")
    assert found.target == "disback_cli.denoisers.flow.FlowDenoiser"
    assert found.keywords == {"direction": "noise_at_1", "time_scale": 1000.0}


def test_flow_by_other_signs():
    assert parametrisation(FLOW | {"invert_sigmas": True}, "file").keywords["direction"] == "data_at_1"
    solver = DDPM | {"_class_name": "DPMSolverMultistepScheduler"}
    for sign in ({"use_flow_sigmas": True}, {"prediction_type": "flow_prediction"}):
        assert parametrisation(solver | sign, "file").prediction == "flow_prediction"
    with pytest.raises(UserError, match="prediction=epsilon does not go with FlowMatch"):
        parametrisation(FLOW, "file", "epsilon")


def test_predictions():
    for prediction in ("epsilon", "v_prediction", "sample"):
        assert parametrisation(DDPM | {"prediction_type": prediction}, "file").prediction == prediction
    assert parametrisation(DDPM | {"predict_epsilon": False}, "file").prediction == "sample"
    assert parametrisation(DDPM | {"predict_epsilon": True}, "file").prediction == "epsilon"
    assert parametrisation(DDPM | {"prediction_type": "sample"}, "file", "epsilon").prediction == "epsilon"


def test_trained_betas_need_nothing_else():
    found = parametrisation({"_class_name": "DDPMScheduler", "trained_betas": [0.01, 0.02, 0.03]}, "file")
    assert found.keywords["schedule"] == {"trained_betas": [0.01, 0.02, 0.03]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"_class_name": "LCMScheduler"}, "few steps already; a teacher must be a many-step"),
        ({"_class_name": "CMStochasticIterativeScheduler"}, "one step already"),
        ({"_class_name": "EDMEulerScheduler"}, "'EDMEulerScheduler' is not supported; supported schedulers are"),
        ({"_class_name": None}, "_class_name=None is not supported"),
        ({"_class_name": ["a", "b"]}, "is not supported"),
        ({"prediction_type": "score"}, "prediction_type='score': valid are"),
        ({"beta_schedule": "quadratic"}, "no schedule can be made"),
        ({"beta_start": "small"}, "no schedule can be made"),
        ({"num_train_timesteps": -1}, "no schedule can be made"),
        ({"beta_start": 0.0, "beta_end": 0.0}, "no schedule can be made"),
        ({"num_train_timesteps": None}, "lacks num_train_timesteps"),
    ],
)
def test_mistakes(change, message):
    with pytest.raises(UserError, match=message):
        parametrisation(DDPM | change, "file")


def test_mistakes_of_flow():
    for scale in (0, "many", True, float("inf")):
        with pytest.raises(UserError, match="num_train_timesteps"):
            parametrisation(FLOW | {"num_train_timesteps": scale}, "file")


@pytest.mark.parametrize("steps", [10**9, 100_001, 1, "many", 1000.0, True])
def test_a_number_of_steps_that_no_network_was_trained_with(steps):
    with pytest.raises(UserError, match="place.json.*num_train_timesteps=.*whole number from 2 to 100,000"):
        parametrisation(DDPM | {"num_train_timesteps": steps}, "place.json")


@pytest.mark.parametrize("entries", [{"trained_betas": [0.1] * 100_001}, {"trained_betas": "x"}, {"beta_start": "low"}])
def test_betas_of_which_no_schedule_can_be_made(entries):
    with pytest.raises(UserError, match="place.json: no schedule can be made of its entries"):
        parametrisation(DDPM | entries, "place.json")
