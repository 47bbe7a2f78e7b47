"""The variational autoencoder: encoder q(z|x, y), decoder p(x|z, y), prior N(0, 1).

Kingma and Welling 2013, arXiv:1312.6114: the loss is the negative of their eq. 10, in nats
an image. Grey images are likely as Bernoulli means, coloured ones as a normal of one learnt
variance (Rybkin, Daniilidis, Levine 2020, arXiv:2006.13202).
"""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own custom

from worker.data.feed import Feed, LocalDataset, Shape
from worker.data.images import ImageFeed
from worker.families import SamplingParams, TrainingParams
from worker.families.images import ladder, to_pixels
from worker.families.network import Batch, Clock, Draw, Losses, Network, Output, Row
from worker.families.vae import Params, Sampling

FINAL_LR = 0.1  # of the peak, where the cosine ends
MOST_GRADIENT = 200.0  # the norm beyond which an update is scaled down


class Vae(Network):
    """Encoder, decoder, and where images have colour the decoder's log variance."""

    params: Params

    def __init__(self, params: TrainingParams, shape: Shape) -> None:
        super().__init__(params, shape)
        self.encoder = Encoder(self.params, shape)
        self.decoder = Decoder(self.params, shape)
        self.log_variance = nn.Parameter(torch.zeros(()))

    @classmethod
    def feed(cls, params: TrainingParams, dataset: LocalDataset, *, seed: int, files: Path) -> Feed:
        """Images in [-1, 1] and their labels; nothing is kept in `files`."""
        return ImageFeed(dataset, batch_size=params.batch_size, seed=seed)

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Adam."""
        return {"adam": torch.optim.Adam(self.parameters(), lr=self.params.lr, fused=True)}

    def train_step(
        self, batch: Batch, optimizers: Mapping[str, torch.optim.Optimizer], clock: Clock
    ) -> Losses:
        """One update, the KL term warming up and the rate falling as a cosine."""
        optimizer = optimizers["adam"]
        for group in optimizer.param_groups:
            group["lr"] = self.params.lr * clock.rate * _cosine(clock.progress)
        distortion, rate = self._terms(batch)
        warmth = min(1.0, clock.progress / self.params.warm_up) if self.params.warm_up else 1.0
        optimizer.zero_grad(set_to_none=True)
        (distortion + warmth * self.params.beta * rate).backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        nn.utils.clip_grad_norm_(self.parameters(), MOST_GRADIENT)
        optimizer.step()
        return _losses(distortion, rate)

    def validate(self, batch: Batch) -> Losses:
        """`loss`: the negative evidence lower bound, in nats an image."""
        return _losses(*self._terms(batch))

    def sample(self, rows: Sequence[Row], draw: Draw, sampling: SamplingParams) -> list[Output]:
        """The decoder's means at codes from the prior."""
        temperature = sampling.temperature if isinstance(sampling, Sampling) else 1.0
        code = temperature * draw.normal(self.params.latent)  # (B, latent)
        labels = None
        if self.shape.labels:
            labels = torch.tensor([row.label or 0 for row in rows], device=code.device)
        means = self.decoder(code, labels)
        return [*to_pixels(self._bernoulli_mean(means) if self.shape.channels == 1 else means)]

    def _terms(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Distortion -log p(x|z, y) and rate KL(q(z|x, y) || p(z)), means in nats an image."""
        mean, log_variance = self.encoder(batch.data, batch.labels)  # (B, latent) each
        noise = batch.draw.normal(*mean.shape)[0]
        code = mean + noise * torch.exp(0.5 * log_variance)
        distortion = self._distortion(self.decoder(code, batch.labels).float(), batch.data)
        rate = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1).mean()
        return distortion, rate

    def _distortion(self, made: Tensor, images: Tensor) -> Tensor:
        if self.shape.channels == 1:
            summed = F.binary_cross_entropy_with_logits(made, (images + 1) / 2, reduction="sum")
        else:
            square = (made - images).square() * torch.exp(-self.log_variance)
            summed = 0.5 * (square + self.log_variance + math.log(2 * math.pi)).sum()
        return summed / len(images)

    @staticmethod
    def _bernoulli_mean(logits: Tensor) -> Tensor:
        return 2 * torch.sigmoid(logits.float()) - 1


class Encoder(nn.Module):
    """Images (B, C, H, W) and labels to mean and log variance of the code, (B, latent) each."""

    def __init__(self, params: Params, shape: Shape) -> None:
        super().__init__()
        base, doublings = ladder(shape.size).base, ladder(shape.size).doublings
        wide = [shape.channels, *(params.channels * 2**i for i in range(doublings))]
        layers: list[nn.Module] = []
        for before, after in pairwise(wide):
            layers += [nn.Conv2d(before, after, 4, 2, 1), nn.SiLU()]
        self.body = nn.Sequential(*layers, nn.Flatten())
        self.hidden = nn.Linear(wide[-1] * base * base, params.hidden)
        self.embed = nn.Embedding(len(shape.labels), params.hidden) if shape.labels else None
        self.code = nn.Linear(params.hidden, 2 * params.latent)

    def forward(self, images: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor]:
        """Read images."""
        hidden = self.hidden(self.body(images))  # (B, hidden)
        if self.embed is not None and labels is not None:
            hidden = hidden + self.embed(labels)
        mean, log_variance = self.code(F.silu(hidden)).float().chunk(2, dim=1)
        return mean, log_variance.clamp(-12, 6)


class Decoder(nn.Module):
    """Codes (B, latent) and labels to images (B, C, H, W): logits if grey, else means."""

    def __init__(self, params: Params, shape: Shape) -> None:
        super().__init__()
        base, doublings = ladder(shape.size).base, ladder(shape.size).doublings
        wide = [params.channels * 2**i for i in reversed(range(doublings))]
        self.embed = nn.Embedding(len(shape.labels), params.hidden) if shape.labels else None
        self.code = nn.Linear(params.latent, params.hidden)
        layers: list[nn.Module] = [
            nn.SiLU(),
            nn.Linear(params.hidden, wide[0] * base * base),
            nn.SiLU(),
            nn.Unflatten(1, (wide[0], base, base)),
        ]
        for before, after in pairwise(wide):
            layers += [nn.ConvTranspose2d(before, after, 4, 2, 1), nn.SiLU()]
        self.body = nn.Sequential(*layers, nn.ConvTranspose2d(wide[-1], shape.channels, 4, 2, 1))

    def forward(self, code: Tensor, labels: Tensor | None) -> Tensor:
        """Make images."""
        hidden = self.code(code)  # (B, hidden)
        if self.embed is not None and labels is not None:
            hidden = hidden + self.embed(labels)
        images: Tensor = self.body(hidden)
        return images


def _cosine(progress: float) -> float:
    """From 1 to `FINAL_LR`."""
    return FINAL_LR + (1 - FINAL_LR) * 0.5 * (1 + math.cos(math.pi * progress))


def _losses(distortion: Tensor, rate: Tensor) -> Losses:
    loss = (distortion + rate).detach()
    return {"loss": loss, "distortion": distortion.detach(), "rate": rate.detach()}


NETWORK = Vae
