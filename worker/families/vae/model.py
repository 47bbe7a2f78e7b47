"""The variational autoencoder: encoder q(z|x, y), decoder p(x|z, y), prior N(0, 1).

Kingma and Welling 2013, arXiv:1312.6114: the loss is the negative of their eq. 10, in nats per
image.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own custom

from worker.data.dataset import LocalDataset, Shape
from worker.families.vae import Params, Sampling
from worker.families.vae.bounds import importance_bound, kl_to_prior, log_weight, with_free_bits
from worker.families.vae.likelihoods import likelihood
from worker.families.vae.modes import MODES
from worker.families.vae.networks import Decoder, Encoder
from worker.feeds.feed import Feed
from worker.feeds.images import ImageFeed
from worker.networks.images import to_pixels
from worker.networks.network import Batch, Clock, Draw, Losses, Network, Output, Row
from worker.networks.params import SamplingParams, TrainingParams

WARM_UP_STEPS = 100  # of the learning rate
FINAL_LR = 0.02  # of the peak, at the end of the cosine
MAX_GRADIENT = 200.0  # norm at which gradients are clipped
FROZEN = 1 / 3  # of a fine-tuning, in which the encoder is frozen and the decoder adapts
PIXELS, CODES = 0, 1  # streams of a batch's random numbers; the k-th code has CODES + k


class Vae(Network):
    """Encoder, decoder and likelihood."""

    params: Params

    def __init__(self, params: TrainingParams, shape: Shape) -> None:
        super().__init__(params, shape)
        self.encoder = Encoder(self.params, shape)
        self.decoder = Decoder(self.params, shape)
        self.likelihood = likelihood(self.params, shape)
        self.finetuning = False
        self.training_ended = False

    @classmethod
    def feed(cls, params: TrainingParams, dataset: LocalDataset, *, seed: int, files: Path) -> Feed:
        """Images in [-1, 1] and their labels; nothing is written to `files`."""
        labelled = not isinstance(params, Params) or params.conditional
        return ImageFeed(dataset, batch_size=params.batch_size, seed=seed, labelled=labelled)

    def begin_finetuning(self) -> None:
        """Use the full KL term from the start, and freeze the encoder at first."""
        self.finetuning = True

    def end_training(self) -> None:
        """Have the final validation compute the IWAE bound, which is slow."""
        self.training_ended = True

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Adam."""
        return {"adam": torch.optim.Adam(self.parameters(), lr=self.params.lr, fused=True)}

    def train_step(
        self, batch: Batch, optimizers: Mapping[str, torch.optim.Optimizer], clock: Clock
    ) -> Losses:
        """One update; the KL term is warmed up and the learning rate follows a cosine."""
        optimizer = optimizers["adam"]
        for group in optimizer.param_groups:
            group["lr"] = self.params.lr * clock.rate * _schedule(clock)
        self.encoder.requires_grad_(not (self.finetuning and clock.progress < FROZEN))
        images, labels = self._observe(batch), self.one_hot(batch.labels)
        mean, log_variance = self.encoder(images, labels)  # (B, latent) each
        code = mean + self._noise(batch, mean) * torch.exp(0.5 * log_variance)
        distortion = -self.likelihood.log_prob(self.decoder(code, labels), images).mean()
        kl = kl_to_prior(mean, log_variance)
        warm_up = 0.0 if self.finetuning else self.params.warm_up  # a parent is warmed up
        weight = self.params.beta * (min(1.0, clock.progress / warm_up) if warm_up else 1.0)
        optimizer.zero_grad(set_to_none=True)
        (distortion + weight * with_free_bits(kl, self.params.free_bits)).backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        nn.utils.clip_grad_norm_(self.parameters(), MAX_GRADIENT)
        optimizer.step()
        return _losses(distortion.detach(), kl.detach().sum(1).mean())

    def validate(self, batch: Batch) -> Losses:
        """`loss`: the negative evidence lower bound in nats per image; `distortion` and `rate`: its
        two terms; after training also `iwae`, the negative importance-weighted bound.
        """
        images, labels = self._observe(batch), self.one_hot(batch.labels)
        mean, log_variance = self.encoder(images, labels)
        likelihoods, weights = [], []
        count = self.params.iwae_samples if self.training_ended else 1
        for k in range(count):  # one by one, to bound the memory
            code = mean + self._noise(batch, mean, k) * torch.exp(0.5 * log_variance)
            likely = self.likelihood.log_prob(self.decoder(code, labels), images)  # (B,)
            likelihoods.append(likely)
            weights.append(log_weight(likely, code, mean, log_variance))
        distortion = -torch.stack(likelihoods).mean()
        losses = _losses(distortion, kl_to_prior(mean, log_variance).sum(1).mean())
        if self.training_ended:
            losses["iwae"] = -importance_bound(torch.stack(weights)).mean()
        return losses

    def sample(self, rows: Sequence[Row], draw: Draw, sampling: SamplingParams) -> list[Output]:
        """Expected images at the codes that the mode chooses."""
        settings = sampling if isinstance(sampling, Sampling) else Sampling()
        return [*to_pixels(MODES[settings.mode](self, rows, draw, settings))]

    def encode(self, images: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor]:
        """Mean and log variance of the codes of images in [-1, 1]."""
        return self.encoder(self._binary(images, 0.5), labels)  # type: ignore[no-any-return]

    def decode(self, code: Tensor, labels: Tensor | None) -> Tensor:
        """The expected images of codes, in [-1, 1]."""
        return self.likelihood.mean(self.decoder(code, labels))

    def draw(self, code: Tensor, labels: Tensor | None, uniform: Tensor) -> Tensor:
        """Images sampled from codes and uniform numbers in [0, 1), (B, C, H, W)."""
        return self.likelihood.draw(self.decoder(code, labels), uniform)

    def one_hot(self, labels: Tensor | None) -> Tensor | None:
        """Labels int64 (B,) as weights (B, classes); None if the network has no classes."""
        if not self.shape.labels or labels is None:
            return None
        return F.one_hot(labels, len(self.shape.labels)).float()

    def _observe(self, batch: Batch) -> Tensor:
        """The batch's images, binarised if asked."""
        if self.params.binarise != "stochastic":
            return self._binary(batch.data, 0.5)
        return self._binary(batch.data, batch.draw.uniform(*batch.data.shape, stream=PIXELS)[0])

    def _binary(self, images: Tensor, threshold: Tensor | float) -> Tensor:
        if self.params.binarise == "none":
            return images
        return torch.where((images + 1) / 2 > threshold, 1.0, -1.0)

    def _noise(self, batch: Batch, mean: Tensor, k: int = 0) -> Tensor:
        return batch.draw.normal(*mean.shape, stream=CODES + k)[0]


def _schedule(clock: Clock) -> float:
    """The learning rate relative to its peak: linear warm-up, then a cosine to `FINAL_LR`."""
    cosine = FINAL_LR + (1 - FINAL_LR) * 0.5 * (1 + math.cos(math.pi * clock.progress))
    return min(1.0, (clock.step + 1) / WARM_UP_STEPS) * cosine


def _losses(distortion: Tensor, rate: Tensor) -> Losses:
    return {"loss": distortion + rate, "distortion": distortion, "rate": rate}


NETWORK = Vae
