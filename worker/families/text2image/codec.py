"""Stage one: images to a grid of tokens and back (Ramesh et al. 2021, section 2.1).

The image's side is halved until it is at most 8: 7x7 tokens for 28x28 pixels, 8x8 for 32x32 and
64x64.
"""

from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from worker.data.dataset import Shape
from worker.families.text2image import Params
from worker.families.text2image.quantisers import make_quantiser
from worker.networks.images import ladder

LARGEST_GRID = 8
BIN = 1 / 255  # half the distance between two levels in [-1, 1]


class Residual(nn.Module):
    """x + conv(silu(conv(silu(x))))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.SiLU(),
            nn.Conv2d(channels, channels, 3, 1, 1),
            nn.SiLU(),
            nn.Conv2d(channels, channels, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same."""
        return x + cast(Tensor, self.body(x))


class Codec(nn.Module):
    """Encoder, quantiser and decoder; an image has `grid` x `grid` = `tokens` tokens."""

    def __init__(self, params: Params, shape: Shape) -> None:
        super().__init__()
        steps = ladder(shape.size, LARGEST_GRID)
        self.grid, self.tokens = steps.base, steps.base**2
        self.quantiser = make_quantiser(params)
        wide = [params.channels * 2**i for i in range(steps.doublings)]
        self.encoder = _encoder([shape.channels, *wide], self.quantiser.features)
        self.decoder = _decoder([*reversed(wide), shape.channels], self.quantiser.features)
        self.log_scale = nn.Parameter(torch.tensor(-2.0))  # of the logistic, for colour
        self.grey = shape.channels == 1

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """From images (B, C, H, W) to the decoder's outputs, the encoder's z, tokens (B, N) and the
        quantiser's penalty.
        """
        z = self.encoder(images).float()
        quantised, tokens, penalty = self.quantiser(z)
        return self.decoder(quantised).float(), z, tokens, penalty

    def encode(self, images: Tensor) -> Tensor:
        """The tokens int64 (B, N) of images (B, C, H, W), in row-major order."""
        tokens: Tensor = self.quantiser(self.encoder(images))[1]
        return tokens

    def decode(self, tokens: Tensor) -> Tensor:
        """The images in [-1, 1] of tokens (B, N)."""
        quantised = self.quantiser.lookup(tokens)  # (B, features, N)
        outputs = self.decoder(quantised.view(*quantised.shape[:2], self.grid, self.grid)).float()
        return 2 * torch.sigmoid(outputs) - 1 if self.grey else outputs.clamp(-1, 1)

    def distortion(self, outputs: Tensor, images: Tensor) -> Tensor:
        """-log p(images | tokens) in nats per image, averaged over the batch.

        Grey pixels are Bernoulli; colour has a discretised logistic distribution with one learnt
        scale (Kingma et al. 2016, arXiv:1606.04934, appendix C).
        """
        if self.grey:
            target = (images + 1) / 2
            summed = functional.binary_cross_entropy_with_logits(outputs, target, reduction="sum")
        else:
            summed = -logistic_log_likelihood(images, outputs, self.log_scale).sum()
        return summed / len(images)


def logistic_log_likelihood(x: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """The logistic's log mass in the bin of each level x, of 256 in [-1, 1]; outer bins are open.

    It uses sigmoid(a) - sigmoid(b) = sigmoid(a) sigmoid(-b) (1 - exp(b - a)), which is stable.
    """
    precision = torch.exp(-log_scale)
    above, below = (x - mean + BIN) * precision, (x - mean - BIN) * precision
    inside = torch.log(-torch.expm1(-2 * BIN * precision))
    upper, lower = functional.logsigmoid(above), functional.logsigmoid(-below)
    middle = upper + lower + inside
    return torch.where(x < BIN - 1, upper, torch.where(x > 1 - BIN, lower, middle))


def _encoder(wide: list[int], features: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in pairwise(wide):
        layers += [nn.SiLU()] if layers else []
        layers += [nn.Conv2d(before, after, 4, 2, 1)]
    return nn.Sequential(*layers, Residual(wide[-1]), nn.SiLU(), nn.Conv2d(wide[-1], features, 1))


def _decoder(wide: list[int], features: int) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Conv2d(features, wide[0], 3, 1, 1), Residual(wide[0])]
    for before, after in pairwise(wide):
        layers += [nn.SiLU(), nn.ConvTranspose2d(before, after, 4, 2, 1)]
    return nn.Sequential(*layers)
