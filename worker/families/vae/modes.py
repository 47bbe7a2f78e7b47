"""The sampling modes of a VAE: sample, interpolate, reconstruct, inpaint.

Each takes the network, the rows, their random numbers and the settings, and returns images in
[-1, 1], float32 (B, C, H, W).
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from worker.families.vae import Params, Sampling
from worker.networks.network import Draw, Row, SourceImage

CODES = 0  # the random stream of a sample's code; inpainting's rounds use the following ones
ENDS = (1, 2)  # the random streams of a pair's two codes
MIN_SINE = 1e-4  # of the angle between two codes; below it interpolation is linear


class Autoencoder(Protocol):
    """The network as modes see it; images are in [-1, 1], `labels` are weights (B, classes)."""

    params: Params

    def one_hot(self, labels: Tensor) -> Tensor | None:
        """Labels int64 (B,) as weights; None if the network has no classes."""

    def encode(self, images: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor]:
        """Mean and log variance of the images' codes, (B, latent) each."""

    def decode(self, code: Tensor, labels: Tensor | None) -> Tensor:
        """The expected images of codes."""

    def draw(self, code: Tensor, labels: Tensor | None, uniform: Tensor) -> Tensor:
        """Images sampled from codes and uniform numbers in [0, 1), (B, C, H, W)."""


Mode = Callable[[Autoencoder, Sequence[Row], Draw, Sampling], Tensor]


def sample(network: Autoencoder, rows: Sequence[Row], draw: Draw, settings: Sampling) -> Tensor:
    """Images at codes from the prior."""
    code = settings.temperature * draw.normal(network.params.latent, stream=CODES)  # (B, latent)
    return network.decode(code, _classes(network, [row.label for row in rows], draw))


def interpolate(
    network: Autoencoder, rows: Sequence[Row], draw: Draw, settings: Sampling
) -> Tensor:
    """Sample i is step i modulo `steps` between the two ends of pair i // `steps`.

    The ends are the posterior means of source images or, without any, codes from the prior, which
    depend only on the seed and the pair's number.
    """
    steps = torch.tensor([row.index % settings.steps for row in rows], device=draw.device)
    share = (steps / (settings.steps - 1))[:, None]  # (B, 1), from 0 to 1
    if rows[0].sources:
        (start, first), (stop, last) = (
            _code(network, [row.sources[end] for row in rows], draw) for end in (0, 1)
        )
    else:
        keys = [(seed, index // settings.steps) for seed, index in draw.keys]
        pairs = Draw(keys, draw.device)
        start, stop = (
            settings.temperature * pairs.normal(network.params.latent, stream=end) for end in ENDS
        )
        first = last = _classes(network, [row.label for row in rows], draw)
    labels = None if first is None or last is None else torch.lerp(first, last, share)
    return network.decode(spherical(start, stop, share), labels)


def reconstruct(
    network: Autoencoder, rows: Sequence[Row], draw: Draw, settings: Sampling
) -> Tensor:
    """Decode the posterior means of source images."""
    return network.decode(*_code(network, [row.sources[0] for row in rows], draw))


def inpaint(network: Autoencoder, rows: Sequence[Row], draw: Draw, settings: Sampling) -> Tensor:
    """Fill in the masked part of source images.

    Rezende, Mohamed and Wierstra 2014, arXiv:1401.4082, appendix F: a Markov chain that samples a
    code of the image, samples an image from the code, and restores the known pixels. Here it starts
    from the prior and ends with the expected image, which is free of noise.
    """
    sources = [row.sources[0] for row in rows]
    images, labels = _pixels(sources, draw), _classes(network, [s.label for s in sources], draw)
    unknown = torch.zeros(images.shape[2:], dtype=torch.bool, device=images.device)  # (H, W)
    if settings.mask is not None:
        left, top, right, bottom = settings.mask
        unknown[top:bottom, left:right] = True
    code = settings.temperature * draw.normal(network.params.latent, stream=CODES)
    for number in range(1, settings.rounds + 1):
        uniform = draw.uniform(*images.shape[1:], stream=CODES + 2 * number - 1)
        filled = torch.where(unknown, network.draw(code, labels, uniform), images)
        mean, log_variance = network.encode(filled, labels)
        noise = draw.normal(network.params.latent, stream=CODES + 2 * number)
        code = mean + noise * torch.exp(0.5 * log_variance)
    return torch.where(unknown, network.decode(code, labels), images)


MODES: dict[str, Mode] = {
    "sample": sample,
    "interpolate": interpolate,
    "reconstruct": reconstruct,
    "inpaint": inpaint,
}


def spherical(start: Tensor, stop: Tensor, share: Tensor) -> Tensor:
    """Spherical interpolation (slerp) at `share` (B, 1) from `start` to `stop`, (B, latent) each.

    White 2016, arXiv:1609.04468: linear interpolation would pass through codes of small norm, which
    are unlikely under the prior.
    """
    cosine = torch.cosine_similarity(start, stop, dim=1).clamp(-1, 1)[:, None]  # (B, 1)
    angle = torch.arccos(cosine)
    sine = torch.sin(angle)
    curved = (torch.sin((1 - share) * angle) * start + torch.sin(share * angle) * stop) / sine
    return torch.where(sine < MIN_SINE, torch.lerp(start, stop, share), curved)


def _code(
    network: Autoencoder, sources: Sequence[SourceImage], draw: Draw
) -> tuple[Tensor, Tensor | None]:
    """The posterior means of source images (B, latent), and their classes."""
    labels = _classes(network, [source.label for source in sources], draw)
    return network.encode(_pixels(sources, draw), labels)[0], labels


def _classes(network: Autoencoder, labels: Sequence[int | None], draw: Draw) -> Tensor | None:
    return network.one_hot(torch.tensor([label or 0 for label in labels], device=draw.device))


def _pixels(sources: Sequence[SourceImage], draw: Draw) -> Tensor:
    """The images in [-1, 1], float32 (B, C, H, W)."""
    levels = torch.from_numpy(np.stack([source.pixels for source in sources])).to(draw.device)
    return levels.permute(0, 3, 1, 2).float() / 127.5 - 1
