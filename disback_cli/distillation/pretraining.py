"""Training a teacher on real data with EDM's loss (Karras et al. 2022)."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from disback_cli.data.dataset import Dataset
from disback_cli.denoisers.protocol import Denoiser, expand_sigma
from disback_cli.distillation.losses import denoising_loss
from disback_cli.distillation.real_data import RealSamples
from disback_cli.distillation.sigma_laws import SigmaLaw
from disback_cli.distillation.weightings import Weighting
from disback_cli.runtime.ema import Ema
from disback_cli.runtime.stage import Stage


class Pretraining(Stage):
    """Denoising score matching of a fresh denoiser on a data set; the average is the teacher.

    Args:
        denoiser: the network to train.
        dataset: in-memory data; an iteration's samples are a pure function of seed and iteration. A conditional
            network takes its labels.
        law: noise levels of the loss.
        ema_halflife: half-life of the average, in images.
        ema_rampup: see :class:`disback_cli.runtime.ema.Ema`.
        weighting: factor of the loss at each noise level; None is EDM's.
        settings: see :class:`Stage`; ``lr`` has the key ``denoiser``.
    """

    passes_per_sample = 3

    def __init__(
        self,
        *,
        denoiser: Denoiser,
        dataset: Dataset,
        law: SigmaLaw,
        ema_halflife: float,
        ema_rampup: float,
        weighting: Weighting | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        self.denoiser = denoiser
        self.ema = Ema(denoiser, halflife=ema_halflife, rampup=ema_rampup)
        self.real, self.law = RealSamples(dataset, denoiser.label_dim), law
        self.weighting = weighting

    def trained(self) -> dict[str, nn.Module]:
        """The denoiser."""
        return {"denoiser": self.denoiser}

    def losses(self, iteration: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The denoising loss on this iteration's samples."""
        first, count = self.share
        x, labels = self.real.batch(self.random.seed, iteration * self.batch_size + first, count, self.device)
        sigma = self.law.quantile(self.uniform("sigma"))
        noisy = x + expand_sigma(sigma, x) * self.normal("noise", self.denoiser.shape)
        denoised = self.denoiser(noisy, sigma, labels)
        loss = denoising_loss(denoised, x, sigma, self.denoiser.sigma_data, weighting=self.weighting)
        return {"loss": loss}, {}

    def after_step(self) -> None:
        """Average the weights."""
        self.ema.update(self.denoiser, self.batch_size, self.images_seen)
