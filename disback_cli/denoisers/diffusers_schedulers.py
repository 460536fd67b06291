"""What a diffusers scheduler says about the network it belongs to: what it predicts, and at which noise levels."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from disback_cli.denoisers.discrete import LARGEST_USEFUL_SIGMA, PREDICTIONS, SCHEDULE_KEYS, noise_levels
from disback_cli.errors import UserError

FLOW = "flow_prediction"
# These differ in how they sample; the betas in their configuration are those of the training.
VARIANCE_PRESERVING = (
    "DDPMScheduler", "DDIMScheduler", "PNDMScheduler", "LMSDiscreteScheduler", "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler", "HeunDiscreteScheduler", "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler", "DPMSolverSDEScheduler", "KDPM2DiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler", "DEISMultistepScheduler", "UniPCMultistepScheduler",
    "DDPMParallelScheduler", "DDIMParallelScheduler",
)  # fmt: skip
FLOW_MATCHING = ("FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler")
_FEW_STEPS = {
    "CMStochasticIterativeScheduler": "a consistency model, which samples in one step already",
    "LCMScheduler": "a latent consistency model, which samples in a few steps already",
    "TCDScheduler": "a consistency model, which samples in a few steps already",
    "FlowMatchLCMScheduler": "a consistency model, which samples in a few steps already",
}


@dataclass(frozen=True)
class Parametrisation:
    """How a network is wrapped.

    Attributes:
        target: dotted path of the denoiser class.
        keywords: its keyword arguments, without those about the network.
        prediction: what the network predicts.
        notes: sentences a user should read.
    """

    target: str
    keywords: dict[str, Any]
    prediction: str
    notes: list[str]


def parametrisation(config: Mapping[str, Any], where: str, prediction: str | None = None) -> Parametrisation:
    """Read a scheduler's configuration.

    Args:
        config: content of a scheduler_config.json.
        where: its path, for messages.
        prediction: what the network predicts, against what the configuration says: "epsilon", "v_prediction",
            "sample" or "flow_prediction"; None believes the configuration.

    Raises:
        UserError: the scheduler cannot belong to a teacher, is unknown, or lacks an entry.
    """
    name = str(config.get("_class_name"))
    if name in _FEW_STEPS:
        raise UserError(f"{where}: {name} belongs to {_FEW_STEPS[name]}; a teacher must be a many-step diffusion model")
    if name not in VARIANCE_PRESERVING + FLOW_MATCHING:
        raise UserError(
            f"{where}: _class_name={config.get('_class_name')!r} is not supported; supported schedulers are "
            f"{', '.join(VARIANCE_PRESERVING + FLOW_MATCHING)}. If the network was trained with one of these, save its "
            "configuration and give it as teacher.scheduler=FILE"
        )
    found = FLOW if name in FLOW_MATCHING or config.get("use_flow_sigmas") else _prediction(config)
    wanted = found if prediction is None else prediction
    if wanted not in (*PREDICTIONS, FLOW):
        raise UserError(f"{where}: prediction_type={wanted!r}: valid are {', '.join((*PREDICTIONS, FLOW))}")
    if wanted == FLOW:
        return _flow(config, where)
    if found == FLOW:
        raise UserError(
            f"{where}: prediction={wanted} does not go with {name}, whose networks predict a velocity of flow"
        )
    return _discrete(config, where, wanted)


def _prediction(config: Mapping[str, Any]) -> str:
    # Before diffusers 0.10 a switch said the same.
    if "prediction_type" not in config and config.get("predict_epsilon") is False:
        return "sample"
    return str(config.get("prediction_type", "epsilon"))


def _flow(config: Mapping[str, Any], where: str) -> Parametrisation:
    """Time runs from 0 to num_train_timesteps; ``invert_sigmas`` puts the data at its end."""
    scale = config.get("num_train_timesteps", 1000)
    if not isinstance(scale, (int, float)) or isinstance(scale, bool) or not 0 < scale < math.inf:
        raise UserError(f"{where}: num_train_timesteps={scale!r}: need a number above 0")
    keywords = {
        "direction": "data_at_1" if config.get("invert_sigmas") else "noise_at_1",
        "time_scale": float(scale),
    }
    note = "flow matching reaches pure noise at an infinite noise level; noise levels up to 80 are used"
    return Parametrisation("disback_cli.denoisers.flow.FlowDenoiser", keywords, FLOW, [note])


def _discrete(config: Mapping[str, Any], where: str, prediction: str) -> Parametrisation:
    """The betas must be written out: the classes differ in their defaults."""
    schedule = {key: config[key] for key in SCHEDULE_KEYS if config.get(key) is not None}
    needed = () if "trained_betas" in schedule else SCHEDULE_KEYS[:4]
    missing = [key for key in needed if key not in schedule]
    if missing:
        raise UserError(f"{where} lacks {', '.join(missing)}: add what the network was trained with")
    if not schedule.get("rescale_betas_zero_snr"):
        schedule.pop("rescale_betas_zero_snr", None)
    try:
        levels = noise_levels(schedule)
    except (ValueError, TypeError, RuntimeError, ArithmeticError) as error:
        raise UserError(f"{where}: no schedule can be made of its entries: {error}") from error
    useful = [level for level in levels if level <= LARGEST_USEFUL_SIGMA]
    notes = []
    if len(useful) < len(levels):
        unused = "infinite (zero terminal SNR)" if math.isinf(levels[-1]) else f"{levels[-1]:.4g}"
        notes.append(f"the noise level of the last trained step is {unused}; levels up to {useful[-1]:.4g} are used")
    keywords = {"schedule": schedule, "prediction": prediction}
    return Parametrisation("disback_cli.denoisers.discrete.DiscreteDenoiser", keywords, prediction, notes)
