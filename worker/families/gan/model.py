"""The GAN as a network of the engine's: one update of the pair, validation, sampling.

Goodfellow et al. 2014, arXiv:1406.2661, algorithm 1, one discriminator step to a generator step,
with a moving average of the generator's weights that makes the samples (Yazici et al. 2018,
arXiv:1806.04498). The loss is by default relativistic with a lazy R1 penalty (Huang et al. 2024,
arXiv:2501.05441; Karras et al. 2020, arXiv:1912.04958, appendix B): without a penalty each class
falls to a few pictures.
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path

import torch
from torch import Tensor

from worker.data.feed import Feed, LocalDataset, Shape
from worker.data.images import ImageFeed
from worker.families import SamplingParams, TrainingParams
from worker.families.gan import Params, Sampling
from worker.families.gan.losses import LOSSES, energy_distance, r1_penalty
from worker.families.gan.networks import Discriminator, Generator
from worker.families.images import to_pixels
from worker.families.network import Batch, Clock, Draw, Losses, Network, Output, Row


class Gan(Network):
    """Generator, its moving average, and discriminator."""

    keeps_best = False  # the average of the last steps beats any single validation
    validation_batches = 8

    params: Params
    averaged: Tensor

    def __init__(self, params: TrainingParams, shape: Shape) -> None:
        super().__init__(params, shape)
        self.generator = Generator(self.params, shape)
        self.discriminator = Discriminator(self.params, shape)
        self.average = deepcopy(self.generator).requires_grad_(requires_grad=False)
        # kept with the weights, so that a fine-tuning does not begin its average anew
        self.register_buffer("averaged", torch.zeros((), dtype=torch.int64))
        self.loss = LOSSES[self.params.loss]

    @classmethod
    def feed(cls, params: TrainingParams, dataset: LocalDataset, *, seed: int, files: Path) -> Feed:
        """Images in [-1, 1] and their labels; nothing is kept in `files`."""
        return ImageFeed(dataset, batch_size=params.batch_size, seed=seed)

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Adam for each of the pair."""
        return {
            "generator": self._adam(self.generator),
            "discriminator": self._adam(self.discriminator),
        }

    def train_step(
        self, batch: Batch, optimizers: Mapping[str, torch.optim.Optimizer], clock: Clock
    ) -> Losses:
        """One step of the discriminator, one of the generator, one of the average."""
        self._set_rates(optimizers, clock)
        noise = batch.draw.normal(len(batch.data), self.params.latent)[0]  # (B, latent)
        fake = self.generator(noise, batch.labels)  # (B, C, H, W)
        real_scores, loss, accuracy = self._discriminate(batch, fake.detach(), clock.step)
        _update(optimizers["discriminator"], loss)
        self.discriminator.requires_grad_(requires_grad=False)  # spares its weights' gradients
        # the real images' scores are those before the update, which saves a forward
        fake_scores = self.discriminator(fake, batch.labels)
        generator_loss = self.loss.generator(real_scores, fake_scores)
        _update(optimizers["generator"], generator_loss)
        self.discriminator.requires_grad_(requires_grad=True)
        self._average()
        return {
            "discriminator": loss.detach(),
            "generator": generator_loss.detach(),
            "accuracy": accuracy,
        }

    def validate(self, batch: Batch) -> Losses:
        """`loss`: energy distance of held-out images and as many samples with the same labels."""
        real, labels = batch.data, batch.labels
        fake = self.average(batch.draw.normal(len(real), self.params.latent)[0], labels)
        scores = self._score_both(real, fake, labels)
        return {
            "loss": energy_distance(real.flatten(1), fake.flatten(1)),
            "accuracy": _accuracy(*scores),
        }

    def sample(self, rows: Sequence[Row], draw: Draw, sampling: SamplingParams) -> list[Output]:
        """Images of the averaged generator."""
        truncation = sampling.truncation if isinstance(sampling, Sampling) else 1.0
        noise = truncation * draw.normal(self.params.latent)  # (B, latent)
        labels = None
        if self.shape.labels:
            labels = torch.tensor([row.label or 0 for row in rows], device=noise.device)
        return [*to_pixels(self.average(noise, labels))]

    def _discriminate(self, batch: Batch, fake: Tensor, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Scores of the real images (detached), the discriminator's loss, and its accuracy."""
        penalised = self.params.r1 > 0 and step % self.params.r1_every == 0
        real = batch.data.requires_grad_(penalised)
        real_scores, fake_scores = self._score_both(real, fake, batch.labels)
        loss = self.loss.discriminator(real_scores, fake_scores)
        if penalised:
            loss = loss + self.params.r1_every * self.params.r1 * r1_penalty(real_scores, real)
        return real_scores.detach(), loss, _accuracy(real_scores, fake_scores)

    def _score_both(
        self, real: Tensor, fake: Tensor, labels: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Scores of real and fake images, in one forward of both."""
        both = None if labels is None else torch.cat([labels, labels])
        real_scores, fake_scores = self.discriminator(torch.cat([real, fake]), both).chunk(2)
        return real_scores, fake_scores

    def _set_rates(self, optimizers: Mapping[str, torch.optim.Optimizer], clock: Clock) -> None:
        for optimizer in optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = self.params.lr * clock.rate * _decay(clock.progress)

    @torch.no_grad()
    def _average(self) -> None:
        """Move the average's weights and batch statistics towards the generator's."""
        count = int(self.averaged.add_(1))
        decay = min(self.params.ema, count / (9 + count))
        for mean, now in zip(
            self.average.state_dict().values(), self.generator.state_dict().values(), strict=True
        ):
            if mean.is_floating_point():
                mean.lerp_(now, 1 - decay)
            else:
                mean.copy_(now)  # the count of batches

    def _adam(self, network: torch.nn.Module) -> torch.optim.Optimizer:
        betas = (self.params.beta1, self.params.beta2)
        return torch.optim.Adam(network.parameters(), lr=self.params.lr, betas=betas, fused=True)


def _decay(progress: float) -> float:
    """The rate as a part of its peak: all of it in the first half, then a line down to a tenth."""
    return min(1.0, 1.9 - 1.8 * progress)


def _update(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    optimizer.step()


def _accuracy(real: Tensor, fake: Tensor) -> Tensor:
    """The share of pairs told apart: near 1 for long, the pair is out of balance."""
    return (real > fake).float().mean().detach()


NETWORK = Gan
