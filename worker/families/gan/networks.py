"""Generators and discriminators, convolutional and MLP."""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from worker.data.dataset import Shape
from worker.families.gan import Params
from worker.networks.images import ladder

SLOPE = 0.2  # of the leaky ReLUs (Radford et al. 2015)


class Generator(nn.Module):
    """From noise (B, latent) and labels (B,) or None to images (B, C, H, W) in [-1, 1]."""

    def __init__(self, params: Params, shape: Shape) -> None:
        super().__init__()
        labels = len(shape.labels)
        self.embed = nn.Embedding(labels, params.latent) if labels else None
        width = params.latent * (2 if labels else 1)
        self.body = (
            _conv_generator(width, params, shape)
            if params.arch == "dcgan"
            else _mlp_generator(width, params, shape)
        )

    def forward(self, noise: Tensor, labels: Tensor | None) -> Tensor:
        """Generate images."""
        if self.embed is not None and labels is not None:
            noise = torch.cat([noise, self.embed(labels)], dim=1)  # (B, 2 latent)
        images: Tensor = self.body(noise)
        return images


class Discriminator(nn.Module):
    """From images and labels to scores (B,): projection discriminator, Miyato and Koyama 2018."""

    def __init__(self, params: Params, shape: Shape) -> None:
        super().__init__()
        self.body, width = (
            _conv_discriminator(params, shape)
            if params.arch == "dcgan"
            else _mlp_discriminator(params, shape)
        )
        self.score = nn.Linear(width, 1)
        self.embed = nn.Embedding(len(shape.labels), width) if shape.labels else None
        if self.embed is not None:
            nn.init.normal_(self.embed.weight, std=width**-0.5)
        if params.spectral_norm:  # Miyato et al. 2018, arXiv:1802.05957
            for module in list(self.modules()):
                if isinstance(module, nn.Conv2d | nn.Linear | nn.Embedding):
                    spectral_norm(module)

    def forward(self, images: Tensor, labels: Tensor | None) -> Tensor:
        """Score images, higher for real ones."""
        features = self.body(images)  # (B, width)
        score: Tensor = self.score(features).squeeze(1)
        if self.embed is not None and labels is not None:
            score = score + (self.embed(labels) * features).sum(1)
        return score

    def freeze(self, count: int) -> None:
        """Freeze the `count` lowest layers of the body, or all if it has fewer.

        FreezeD: Mo, Cho, Shin 2020, arXiv:2002.10964, section 3.
        """
        layers = [layer for layer in self.body if isinstance(layer, nn.Conv2d | nn.Linear)]
        for layer in layers[:count]:
            layer.requires_grad_(requires_grad=False)


class MinibatchStddev(nn.Module):
    """Appends the batch's mean standard deviation to (B, C, ...) as a channel: (B, C + 1, ...).

    Karras et al. 2018, arXiv:1710.10196, section 3: it reveals a batch of few different images.
    """

    def forward(self, features: Tensor) -> Tensor:
        """Append the channel."""
        # the epsilon keeps the root's gradient finite where all images are equal
        spread = (features.var(0, correction=0) + 1e-8).sqrt().mean()
        return torch.cat([features, spread.expand_as(features[:, :1])], dim=1)


def _conv_generator(width: int, params: Params, shape: Shape) -> nn.Sequential:
    """DCGAN's generator: project to base x base, then double by transposed convolutions."""
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


def _conv_discriminator(params: Params, shape: Shape) -> tuple[nn.Sequential, int]:
    """DCGAN's discriminator without batch norm, halving down to base x base."""
    base, doublings = ladder(shape.size).base, ladder(shape.size).doublings
    wide = [shape.channels, *(params.channels * 2**i for i in range(doublings))]
    layers: list[nn.Module] = []
    for before, after in pairwise(wide[:-1]):
        layers += [nn.Conv2d(before, after, 4, 2, 1), nn.LeakyReLU(SLOPE)]
    extra, stddev = _minibatch_stddev(params)
    last = nn.Conv2d(wide[-2] + extra, wide[-1], 4, 2, 1)
    body = nn.Sequential(*layers, *stddev, last, nn.LeakyReLU(SLOPE), nn.Flatten())
    return body, wide[-1] * base * base


def _mlp_generator(width: int, params: Params, shape: Shape) -> nn.Sequential:
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


def _mlp_discriminator(params: Params, shape: Shape) -> tuple[nn.Sequential, int]:
    hidden, pixels = params.channels * 8, shape.channels * shape.size**2
    extra, stddev = _minibatch_stddev(params)
    body = nn.Sequential(
        nn.Flatten(),
        nn.Linear(pixels, 2 * hidden),
        nn.LeakyReLU(SLOPE),
        *stddev,
        nn.Linear(2 * hidden + extra, hidden),
        nn.LeakyReLU(SLOPE),
    )
    return body, hidden


def _minibatch_stddev(params: Params) -> tuple[int, list[nn.Module]]:
    """The channels that the optional layer adds, and the layer."""
    return (1, [MinibatchStddev()]) if params.minibatch_stddev else (0, [])
