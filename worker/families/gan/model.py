"""The GAN: training step, validation, sampling.

Goodfellow et al. 2014, arXiv:1406.2661, algorithm 1, with one discriminator step per generator
step. Samples come from a moving average of the generator's weights (Yazici et al. 2018,
arXiv:1806.04498). Gradient penalties are lazy, every few steps at as many times the weight (Karras
et al. 2020, arXiv:1912.04958, appendix B): without one, each class collapses to a few images.
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path

import torch
from torch import Tensor

from worker.data.dataset import LocalDataset, Shape
from worker.families.gan import Params, Sampling
from worker.families.gan.augment import augment
from worker.families.gan.diversity import diversity, energy_distance, find_collapse
from worker.families.gan.losses import LOSSES, slope_penalty, unit_slope_penalty
from worker.families.gan.networks import Discriminator, Generator
from worker.feeds.feed import Feed
from worker.feeds.images import ImageFeed
from worker.networks.images import to_pixels
from worker.networks.network import Batch, Clock, Draw, Losses, Network, Output, Row
from worker.networks.params import SamplingParams, TrainingParams


class Gan(Network):
    """Generator, its moving average, and discriminator."""

    keeps_best = False  # the average of the last steps beats that of any single validation
    rolls_back = True
    validation_batches = 8

    params: Params
    averaged: Tensor

    def __init__(self, params: TrainingParams, shape: Shape) -> None:
        super().__init__(params, shape)
        self.generator = Generator(self.params, shape)
        self.discriminator = Discriminator(self.params, shape)
        self.average = deepcopy(self.generator).requires_grad_(requires_grad=False)
        # steps averaged; saved, so that fine-tuning continues the average
        self.register_buffer("averaged", torch.zeros((), dtype=torch.int64))
        self.begun = 0  # `averaged` when this run started
        self._steps: int | None = None  # `averaged`, if it was read since weights were loaded
        self.register_load_state_dict_post_hook(Gan._forget_steps)  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self.loss = LOSSES[self.params.loss]

    @classmethod
    def feed(cls, params: TrainingParams, dataset: LocalDataset, *, seed: int, files: Path) -> Feed:
        """Images in [-1, 1] and their labels; nothing is written to `files`."""
        return ImageFeed(dataset, batch_size=params.batch_size, seed=seed)

    def begin_finetuning(self) -> None:
        """Freeze the discriminator's lowest layers."""
        self.discriminator.freeze(self.params.freeze_discriminator)
        self.begun = int(self.averaged)

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Adam for each of the two networks."""
        return {
            "generator": self._adam(self.generator),
            "discriminator": self._adam(self.discriminator),
        }

    def train_step(
        self, batch: Batch, optimizers: Mapping[str, torch.optim.Optimizer], clock: Clock
    ) -> Losses:
        """One step of the discriminator, of the generator and of the average."""
        self._set_rates(optimizers, clock)
        noise = batch.draw.normal(len(batch.data), self.params.latent)[0]  # (B, latent)
        fake = self.generator(noise, batch.labels).float()  # (B, C, H, W)
        real_scores, loss, accuracy = self._discriminate(batch, fake.detach(), clock.step)
        _update(optimizers["discriminator"], loss)
        trained = [weight for weight in self.discriminator.parameters() if weight.requires_grad]
        for weight in trained:  # saves their gradients in the generator's step
            weight.requires_grad = False
        # the real images' scores are those before the update, which saves a forward pass
        generator_loss = self.loss.generator(real_scores, self._score(fake, batch.labels))
        _update(optimizers["generator"], generator_loss)
        for weight in trained:
            weight.requires_grad = True
        self._update_average()
        return {
            "discriminator": loss.detach(),
            "generator": generator_loss.detach(),
            "accuracy": accuracy,
        }

    def validate(self, batch: Batch) -> Losses:
        """Compare held-out images with as many samples of the same labels.

        `loss`: their energy distance; `diversity`: that of the samples relative to the images;
        `accuracy`: the share of pairs in which the discriminator scores the real image higher.
        """
        real, labels = batch.data, batch.labels
        fake = self.average(batch.draw.normal(len(real), self.params.latent)[0], labels).float()
        scores = self.discriminator(real, labels), self.discriminator(fake, labels)
        return {
            "loss": energy_distance(real.flatten(1), fake.flatten(1)),
            "diversity": diversity(real.flatten(1), fake.flatten(1), labels),
            "accuracy": _accuracy(*scores),
        }

    def judge(self, losses: Mapping[str, float]) -> str | None:
        """Describe a mode collapse, if there is one."""
        return find_collapse(losses, int(self.averaged) - self.begun, self.params.lr)

    def roll_back(self) -> None:
        """Restart the generator from its average, which is steadier."""
        self.generator.load_state_dict(self.average.state_dict())

    def sample(self, rows: Sequence[Row], draw: Draw, sampling: SamplingParams) -> list[Output]:
        """Images of the averaged generator."""
        truncation = sampling.truncation if isinstance(sampling, Sampling) else 1.0
        noise = truncation * draw.normal(self.params.latent)  # (B, latent)
        labels = None
        if self.shape.labels:
            labels = torch.tensor([row.label or 0 for row in rows], device=noise.device)
        return [*to_pixels(self.average(noise, labels))]

    def _discriminate(self, batch: Batch, fake: Tensor, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Scores of the real images (detached), the discriminator's loss and its accuracy."""
        penalised = step % self.params.penalty_every == 0
        real = batch.data.requires_grad_(penalised)
        fake = fake.requires_grad_(penalised)
        real_scores, fake_scores = (self._score(images, batch.labels) for images in (real, fake))
        loss = self.loss.discriminator(real_scores, fake_scores)
        if penalised:
            penalty = self._penalty((real, real_scores), (fake, fake_scores), batch.labels)
            loss = loss + self.params.penalty_every * penalty
        return real_scores.detach(), loss, _accuracy(real_scores, fake_scores)

    def _penalty(
        self, real: tuple[Tensor, Tensor], fake: tuple[Tensor, Tensor], labels: Tensor | None
    ) -> Tensor:
        """The weighted gradient penalties, a scalar, of (images, scores) pairs."""
        penalty = torch.zeros((), device=real[0].device)
        if self.params.loss == "wgan-gp":
            slopes = unit_slope_penalty(lambda x: self._score(x, labels), real[0], fake[0])
            return penalty + self.params.gradient_penalty * slopes
        for weight, (images, scores) in ((self.params.r1, real), (self.params.r2, fake)):
            if weight:
                penalty = penalty + weight * slope_penalty(scores, images)
        return penalty

    def _score(self, images: Tensor, labels: Tensor | None) -> Tensor:
        """The discriminator's scores of augmented images, float32 (B,)."""
        scores: Tensor = self.discriminator(augment(images, self.params.augment), labels)
        return scores.float()

    def _set_rates(self, optimizers: Mapping[str, torch.optim.Optimizer], clock: Clock) -> None:
        decay = min(1.0, 1.9 - 1.8 * clock.progress)  # constant to the half, then linear to 0.1
        for name, optimizer in optimizers.items():
            own = self.params.discriminator_lr if name == "discriminator" else 0.0
            for group in optimizer.param_groups:
                group["lr"] = (own or self.params.lr) * clock.rate * decay

    @torch.no_grad()
    def _update_average(self) -> None:
        """Move the average's weights and batch statistics towards the generator's."""
        if self._steps is None:
            self._steps = int(self.averaged)  # waits for a GPU
        self._steps += 1
        self.averaged.add_(1)
        decay = min(self.params.ema, self._steps / (9 + self._steps))
        means, now = (
            [*network.parameters(), *network.buffers()]
            for network in (self.average, self.generator)
        )
        numbers = [place for place, mean in enumerate(means) if mean.is_floating_point()]
        torch._foreach_lerp_([means[i] for i in numbers], [now[i] for i in numbers], 1 - decay)
        for mean, value in zip(means, now, strict=True):
            if not mean.is_floating_point():
                mean.copy_(value)  # BatchNorm's count of batches

    def _forget_steps(self, _: object) -> None:
        self._steps = None

    def _adam(self, network: torch.nn.Module) -> torch.optim.Optimizer:
        betas = (self.params.beta1, self.params.beta2)
        weights = [weight for weight in network.parameters() if weight.requires_grad]
        return torch.optim.Adam(weights, lr=self.params.lr, betas=betas, fused=True)


def _update(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    optimizer.step()


def _accuracy(real: Tensor, fake: Tensor) -> Tensor:
    """The share of pairs with the real image scored higher; near 1 for long means imbalance."""
    return (real > fake).float().mean().detach()


NETWORK = Gan
