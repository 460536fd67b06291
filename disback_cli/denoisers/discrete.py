"""Networks of discrete time with a variance-preserving schedule (DDPM, Ho et al. 2020) as denoisers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from disback_cli.denoisers.preconditioned import PreconditionedDenoiser
from disback_cli.denoisers.preconditioning import Coefficients

PREDICTIONS = ("epsilon", "v_prediction", "sample")
# The entries of a scheduler's configuration that decide at which noise levels the network was trained.
SCHEDULE_KEYS = (
    "num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "rescale_betas_zero_snr",
)  # fmt: skip
# Above this level data of unit size are lost in the noise (signal to noise 1e-6). The cosine schedule ends at 2e4 after
# a step of a factor 32, because its last beta is clipped, and schedules of zero terminal SNR end at infinity.
LARGEST_USEFUL_SIGMA = 1000.0
# A hundred times as many as any network was trained with; the file that says so may be a stranger's.
MOST_STEPS = 100_000
# In steps. Noise levels are fp32, so a trained level comes back as a step that is off by about 1e-4.
_ROUNDING = 1e-3


def noise_levels(schedule: Mapping[str, Any]) -> list[float]:
    """Noise levels at which a network of this schedule was trained, sigma_t = sqrt((1 - abar_t) / abar_t).

    abar comes from diffusers' own scheduler, in the fp32 in which it also noised the training samples.

    Args:
        schedule: entries ``SCHEDULE_KEYS`` of a diffusers scheduler's configuration; those left out have the defaults
            of diffusers' DDPMScheduler.

    Returns:
        A level per step, strictly increasing; infinite at a step of zero signal (Lin et al. 2024), if there is one.

    Raises:
        ValueError: an unknown entry or schedule, or levels that do not increase from above zero.
    """
    from diffusers import DDPMScheduler

    unknown = sorted(schedule.keys() - set(SCHEDULE_KEYS))
    if unknown:
        raise ValueError(f"schedule has unknown entries {', '.join(unknown)}: valid are {', '.join(SCHEDULE_KEYS)}")
    _check_steps(schedule)
    try:
        with torch.device("cpu"):  # numbers, even while a network is built without memory
            scheduler: Any = DDPMScheduler(**schedule)
            alphas_cumprod = scheduler.alphas_cumprod.double()
            levels: list[float] = ((1 - alphas_cumprod) / alphas_cumprod).sqrt().tolist()
    except NotImplementedError as error:
        raise ValueError(f"beta_schedule={schedule.get('beta_schedule')!r}: {error}") from error
    except (TypeError, RuntimeError, ArithmeticError, AttributeError) as error:
        raise ValueError(f"no schedule can be made of {dict(schedule)}"[:300] + f": {error}") from error
    finite = [level for level in levels if math.isfinite(level)]
    increasing = all(low < high for low, high in zip(levels[:-1], levels[1:], strict=True))
    if len(finite) < 2 or finite[0] <= 0 or not increasing:
        raise ValueError("the schedule's noise levels must increase from step to step and start above zero")
    return levels


def _check_steps(schedule: Mapping[str, Any]) -> None:
    steps, betas = schedule.get("num_train_timesteps", 1000), schedule.get("trained_betas")
    if type(steps) is not int or not 1 < steps <= MOST_STEPS:
        raise ValueError(f"num_train_timesteps={steps!r}: need a whole number from 2 to {MOST_STEPS:,}")
    if isinstance(betas, Sequence) and len(betas) > MOST_STEPS:
        raise ValueError(f"trained_betas holds {len(betas):,} numbers: need at most {MOST_STEPS:,}")


class DiscreteDenoiser(PreconditionedDenoiser):
    """A network that predicts noise, velocity or the sample from x_t = sqrt(abar) x0 + sqrt(1 - abar) n at a step t.

    With abar = 1 / (1 + sigma^2), x_t is x / sqrt(1 + sigma^2). Between two trained noise levels the network is told a
    fractional step, interpolated in log sigma; outside them the first or last step. Everything around the network is
    computed with the true sigma. The network's parameters are named ``model.*``.

    Attributes:
        levels: the finite noise levels of the training, one per step, increasing.
    """

    def __init__(
        self,
        network: nn.Module,
        shape: Sequence[int],
        schedule: Mapping[str, Any],
        prediction: Literal["epsilon", "v_prediction", "sample"] = "epsilon",
        label_dim: int = 0,
        sigma_data: float = 0.5,
        network_dtype: Literal["fp32", "fp16", "bf16"] = "fp32",
    ) -> None:
        """Wrap a network; its noise levels reach from the first step's to the last below 1000.

        Args:
            network: called as ``network(x_t [B, *shape], step [B] float, labels [B, label_dim] or None)``,
                returns [B, *shape].
            shape: shape of one sample, (C, H, W).
            schedule: as for :func:`noise_levels`.
            prediction: what the network returns: "epsilon" (n), "v_prediction" (sqrt(abar) n - sqrt(1 - abar) x0,
                Salimans & Ho 2022) or "sample" (x0).
            label_dim: width of the one-hot labels, 0 = unconditional.
            sigma_data: standard deviation of the data, > 0; weighs losses, the network does not depend on it.
            network_dtype: dtype of the activations inside the network; fp16 acts on CUDA only.

        Raises:
            ValueError: an argument is outside its range, or network and wrapper disagree about labels or channels.
        """
        if prediction not in PREDICTIONS:
            raise ValueError(f"prediction={prediction!r}: valid are {', '.join(PREDICTIONS)}")
        trained = [level for level in noise_levels(schedule) if math.isfinite(level)]
        useful = [level for level in trained if level <= LARGEST_USEFUL_SIGMA]
        if len(useful) < 2:
            raise ValueError(f"the schedule has fewer than two noise levels up to {LARGEST_USEFUL_SIGMA:g}")
        super().__init__(network, shape, label_dim, useful[0], useful[-1], sigma_data, network_dtype)
        self.prediction = prediction
        self.levels = tuple(trained)
        self.register_buffer("log_levels", torch.tensor(trained, dtype=torch.float64).log().float(), persistent=False)
        self.log_levels: Tensor

    def step(self, sigma: Tensor) -> Tensor:
        """The step that the network is told at noise levels ``sigma``, of its shape, fp32; 0 is the least noise.

        A trained level gives its whole step exactly.
        """
        asked = sigma.to(torch.float32).log()
        upper = torch.searchsorted(self.log_levels, asked.contiguous()).clamp(1, len(self.levels) - 1)
        low, high = self.log_levels[upper - 1], self.log_levels[upper]
        step = (upper - 1 + (asked - low) / (high - low)).clamp(0, len(self.levels) - 1)
        whole = step.round()
        return torch.where((step - whole).abs() < _ROUNDING, whole, step)

    def nearest_sigma(self, sigma: float) -> float:
        """The trained noise level closest to ``sigma`` in log sigma, between ``sigma_min`` and ``sigma_max``.

        Raises:
            ValueError: ``sigma`` is not positive.
        """
        if not sigma > 0:
            raise ValueError(f"sigma={sigma}: need a noise level above zero")
        useful = (level for level in self.levels if level <= self.sigma_max)
        return min(useful, key=lambda level: abs(math.log(level / sigma)))

    def coefficients(self, sigma: Tensor) -> Coefficients:
        """(c_skip, c_out, c_in, c_noise) that turn the prediction into x0, with c_in = 1 / sqrt(1 + s^2).

        epsilon: x0 = x - s n. v_prediction: x0 = sqrt(abar) x_t - sqrt(1 - abar) v = x / (1 + s^2) - s c_in v.
        sample: x0 itself.
        """
        c_in = (sigma.square() + 1).rsqrt()
        step = self.step(sigma)
        if self.prediction == "epsilon":
            return torch.ones_like(sigma), -sigma, c_in, step
        if self.prediction == "v_prediction":
            return c_in.square(), -sigma * c_in, c_in, step
        return torch.zeros_like(sigma), torch.ones_like(sigma), c_in, step
