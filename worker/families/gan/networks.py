"""The generators and discriminators, convolutional and MLP."""

from itertools import pairwise

import torch
from torch import Tensor, nn

from worker.data.feed import Shape
from worker.families.gan import Params
from worker.families.images import ladder

SLOPE = 0.2  # of the leaky ReLUs (Radford et al. 2015)


class Generator(nn.Module):
    """Noise (B, latent) and labels (B,) or None to images (B, C, H, W) in [-1, 1]."""

    def __init__(self, params: Params, shape: Shape) -> None:
        super().__init__()
        labels = len(shape.labels)
        self.embed = nn.Embedding(labels, params.latent) if labels else None
        width = params.latent * (2 if labels else 1)
        self.body = (
            _convolutional(width, params, shape)
            if params.arch == "dcgan"
            else _dense(width, params, shape)
        )

    def forward(self, noise: Tensor, labels: Tensor | None) -> Tensor:
        """Make images."""
        if self.embed is not None and labels is not None:
            noise = torch.cat([noise, self.embed(labels)], dim=1)  # (B, 2 latent)
        images: Tensor = self.body(noise)
        return images


class Discriminator(nn.Module):
    """Images and labels to scores (B,): the projection discriminator (Miyato and Koyama 2018)."""

    def __init__(self, params: Params, shape: Shape) -> None:
        super().__init__()
        self.body, width = (
            _reading_convolutions(params, shape)
            if params.arch == "dcgan"
            else _reading_layers(params, shape)
        )
        self.score = nn.Linear(width, 1)
        self.embed = nn.Embedding(len(shape.labels), width) if shape.labels else None
        if self.embed is not None:
            nn.init.normal_(self.embed.weight, std=width**-0.5)

    def forward(self, images: Tensor, labels: Tensor | None) -> Tensor:
        """Score images: high for real."""
        features = self.body(images)  # (B, width)
        score: Tensor = self.score(features).squeeze(1)
        if self.embed is not None and labels is not None:
            score = score + (self.embed(labels) * features).sum(1)
        return score


def _convolutional(width: int, params: Params, shape: Shape) -> nn.Sequential:
    """DCGAN's generator: a projection to base x base, then doublings by transposed convolution."""
    base, doublings = ladder(shape.size).base, ladder(shape.size).doublings
    wide = [params.channels * 2**i for i in reversed(range(doublings))]  # coarse to fine
    layers: list[nn.Module] = [
        nn.Linear(width, wide[0] * base * base, bias=False),
        nn.Unflatten(1, (wide[0], base, base)),
        nn.BatchNorm2d(wide[0]),
        nn.ReLU(),
    ]
    for before, after in pairwise(wide):
        layers += [
            nn.ConvTranspose2d(before, after, 4, 2, 1, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(),
        ]
    return nn.Sequential(*layers, nn.ConvTranspose2d(wide[-1], shape.channels, 4, 2, 1), nn.Tanh())


def _reading_convolutions(params: Params, shape: Shape) -> tuple[nn.Sequential, int]:
    """DCGAN's discriminator without normalisation, down to base x base."""
    base, doublings = ladder(shape.size).base, ladder(shape.size).doublings
    wide = [shape.channels, *(params.channels * 2**i for i in range(doublings))]
    layers: list[nn.Module] = []
    for before, after in pairwise(wide):
        layers += [nn.Conv2d(before, after, 4, 2, 1), nn.LeakyReLU(SLOPE)]
    return nn.Sequential(*layers, nn.Flatten()), wide[-1] * base * base


def _dense(width: int, params: Params, shape: Shape) -> nn.Sequential:
    hidden, pixels = params.channels * 8, shape.channels * shape.size**2
    return nn.Sequential(
        nn.Linear(width, hidden, bias=False),
        nn.BatchNorm1d(hidden),
        nn.ReLU(),
        nn.Linear(hidden, 2 * hidden, bias=False),
        nn.BatchNorm1d(2 * hidden),
        nn.ReLU(),
        nn.Linear(2 * hidden, pixels),
        nn.Tanh(),
        nn.Unflatten(1, (shape.channels, shape.size, shape.size)),
    )


def _reading_layers(params: Params, shape: Shape) -> tuple[nn.Sequential, int]:
    hidden, pixels = params.channels * 8, shape.channels * shape.size**2
    body = nn.Sequential(
        nn.Flatten(),
        nn.Linear(pixels, 2 * hidden),
        nn.LeakyReLU(SLOPE),
        nn.Linear(2 * hidden, hidden),
        nn.LeakyReLU(SLOPE),
    )
    return body, hidden
