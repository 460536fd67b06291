"""Training a teacher on real data with EDM's loss (Karras et al. 2022)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from disback_cli.data.dataset import Dataset, HasPixels
from disback_cli.data.pixels import to_float
from disback_cli.data.sampler import indices
from disback_cli.denoisers.protocol import Denoiser, expand_sigma
from disback_cli.distillation.losses import denoising_loss
from disback_cli.distillation.sigma_laws import SigmaLaw
from disback_cli.runtime.ema import Ema
from disback_cli.runtime.stage import Stage


class Pretraining(Stage):
    """Denoising score matching of a fresh denoiser on a data set; the average is the teacher.

    Args:
        denoiser: the network to train.
        dataset: in-memory data; an iteration's samples are a pure function of seed and iteration.
        law: noise levels of the loss.
        ema_halflife: half-life of the average, in images.
        ema_rampup: see :class:`disback_cli.runtime.ema.Ema`.
        settings: see :class:`Stage`; ``lr`` has the key ``denoiser``.
    """

    loss_names: Sequence[str] = ("loss",)
    passes_per_sample = 3

    def __init__(
        self,
        *,
        denoiser: Denoiser,
        dataset: Dataset,
        law: SigmaLaw,
        ema_halflife: float,
        ema_rampup: float,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        self.denoiser = denoiser
        self.ema = Ema(denoiser, halflife=ema_halflife, rampup=ema_rampup)
        self.dataset, self.law = dataset, law

    def trained(self) -> dict[str, nn.Module]:
        """The denoiser."""
        return {"denoiser": self.denoiser}

    def losses(self, iteration: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """EDM's loss on this iteration's samples."""
        first, count = self.share
        chosen = indices(self.random.seed, iteration * self.batch_size + first, count, len(self.dataset))
        x, labels = self._samples(chosen)
        labels = labels.to(self.device) if self.denoiser.label_dim and labels is not None else None
        sigma = self.law.quantile(self.uniform("sigma"))
        noisy = x + expand_sigma(sigma, x) * self.normal("noise", self.denoiser.shape)
        loss = denoising_loss(self.denoiser(noisy, sigma, labels), x, sigma, self.denoiser.sigma_data)
        return {"loss": loss}, {}

    def _samples(self, chosen: Tensor) -> tuple[Tensor, Tensor | None]:
        """Samples [B, ...] on the device; images travel there as uint8. Labels are where the data set has them."""
        if isinstance(self.dataset, HasPixels):
            pixels, labels = self.dataset.pixels(chosen)
            return to_float(pixels.to(self.device)), labels
        x, labels = self.dataset.batch(chosen)
        return x.to(self.device), labels

    def after_step(self) -> None:
        """Average the weights."""
        self.ema.update(self.denoiser, self.batch_size, self.images_seen)
