"""What a VAE makes: samples, ways between two images, reconstructions, and parts filled in.

Each mode takes the network, the rows, their random numbers and the settings, and returns images in
[-1, 1], float32 (B, C, H, W).
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from worker.families.vae import Params, Sampling
from worker.networks.network import Draw, Row, SourceImage

CODES = 0  # the stream of a sample's own code; the rounds of inpainting follow it
ENDS = (1, 2)  # the streams of a pair's two codes
SMALLEST_SINE = 1e-4  # of an angle between codes, below which the way is straight


class Autoencoder(Protocol):
    """What a mode uses of the network; images lie in [-1, 1], `labels` are weights (B, classes)."""

    params: Params

    def weigh(self, labels: Tensor) -> Tensor | None:
        """Labels int64 (B,) as weights; None where the network knows no classes."""

    def encode(self, images: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor]:
        """Mean and log variance of the images' codes, (B, latent) each."""

    def decode(self, code: Tensor, labels: Tensor | None) -> Tensor:
        """The expected images of codes."""

    def draw(self, code: Tensor, labels: Tensor | None, uniform: Tensor) -> Tensor:
        """Random images of codes, from numbers in [0, 1), (B, C, H, W)."""


Mode = Callable[[Autoencoder, Sequence[Row], Draw, Sampling], Tensor]


def sample(network: Autoencoder, rows: Sequence[Row], draw: Draw, settings: Sampling) -> Tensor:
    """Images at codes from the prior."""
    code = settings.temperature * draw.normal(network.params.latent, stream=CODES)  # (B, latent)
    return network.decode(code, _classes(network, [row.label for row in rows], draw))


def interpolate(
    network: Autoencoder, rows: Sequence[Row], draw: Draw, settings: Sampling
) -> Tensor:
    """Sample i is step i modulo `steps` between the two ends of pair i // `steps`.

    The ends are given images, coded at their posterior means, or else codes from the prior, which
    depend on the seed and the pair's number alone.
    """
    steps = torch.tensor([row.index % settings.steps for row in rows], device=draw.device)
    part = (steps / (settings.steps - 1))[:, None]  # (B, 1), from 0 to 1
    if rows[0].sources:
        (start, first), (stop, last) = (
            _code(network, [row.sources[end] for row in rows], draw) for end in (0, 1)
        )
    else:
        pairs = Draw(draw.seed, [row.index // settings.steps for row in rows], draw.device)
        start, stop = (
            settings.temperature * pairs.normal(network.params.latent, stream=end) for end in ENDS
        )
        first = last = _classes(network, [row.label for row in rows], draw)
    labels = None if first is None or last is None else torch.lerp(first, last, part)
    return network.decode(spherical(start, stop, part), labels)


def reconstruct(
    network: Autoencoder, rows: Sequence[Row], draw: Draw, settings: Sampling
) -> Tensor:
    """Images at the posterior means of given ones."""
    return network.decode(*_code(network, [row.sources[0] for row in rows], draw))


def inpaint(network: Autoencoder, rows: Sequence[Row], draw: Draw, settings: Sampling) -> Tensor:
    """Fill the mask of given images, the pixels around it kept.

    Rezende, Mohamed and Wierstra 2014, arXiv:1401.4082, appendix F: a Markov chain that codes the
    image at random, draws one from its decoding, and puts the known pixels back. Here it begins
    with a sample from the prior, and what it ends with are means, which are free of speckles.
    """
    given = [row.sources[0] for row in rows]
    images, labels = _pixels(given, draw), _classes(network, [each.label for each in given], draw)
    unknown = _inside(images, settings)
    code = settings.temperature * draw.normal(network.params.latent, stream=CODES)
    for turn in range(1, settings.rounds + 1):
        uniform = draw.uniform(*images.shape[1:], stream=CODES + 2 * turn - 1)
        filled = torch.where(unknown, network.draw(code, labels, uniform), images)
        mean, log_variance = network.encode(filled, labels)
        noise = draw.normal(network.params.latent, stream=CODES + 2 * turn)
        code = mean + noise * torch.exp(0.5 * log_variance)
    return torch.where(unknown, network.decode(code, labels), images)


MODES: dict[str, Mode] = {
    "sample": sample,
    "interpolate": interpolate,
    "reconstruct": reconstruct,
    "inpaint": inpaint,
}


def spherical(start: Tensor, stop: Tensor, part: Tensor) -> Tensor:
    """The code `part` (B, 1) of the way from `start` to `stop`, (B, latent) each, along a circle.

    White 2016, arXiv:1609.04468: between two codes of the prior a straight way would lead through
    shorter ones, which the decoder hardly knows.
    """
    cosine = torch.cosine_similarity(start, stop, dim=1).clamp(-1, 1)[:, None]  # (B, 1)
    angle = torch.arccos(cosine)
    sine = torch.sin(angle)
    round_way = (torch.sin((1 - part) * angle) * start + torch.sin(part * angle) * stop) / sine
    return torch.where(sine < SMALLEST_SINE, torch.lerp(start, stop, part), round_way)


def _code(
    network: Autoencoder, given: Sequence[SourceImage], draw: Draw
) -> tuple[Tensor, Tensor | None]:
    """The posterior means of given images (B, latent), and their classes."""
    labels = _classes(network, [each.label for each in given], draw)
    return network.encode(_pixels(given, draw), labels)[0], labels


def _classes(network: Autoencoder, labels: Sequence[int | None], draw: Draw) -> Tensor | None:
    return network.weigh(torch.tensor([label or 0 for label in labels], device=draw.device))


def _pixels(given: Sequence[SourceImage], draw: Draw) -> Tensor:
    """SourceImage images in [-1, 1], float32 (B, C, H, W)."""
    levels = torch.from_numpy(np.stack([each.pixels for each in given])).to(draw.device)
    return levels.permute(0, 3, 1, 2).float() / 127.5 - 1


def _inside(images: Tensor, settings: Sampling) -> Tensor:
    """True in the mask, (H, W)."""
    unknown = torch.zeros(images.shape[2:], dtype=torch.bool, device=images.device)
    if settings.mask is not None:
        left, top, right, bottom = settings.mask
        unknown[top:bottom, left:right] = True
    return unknown
