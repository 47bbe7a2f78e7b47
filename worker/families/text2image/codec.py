"""Stage one: pictures to a grid of tokens and back (Ramesh et al. 2021, section 2.1).

The grid is reached by halving the picture's side to 8 at the most: 7x7 tokens for 28x28 pixels,
8x8 for 32x32 and 64x64.
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
BIN = 1 / 255  # half the distance of two shades in [-1, 1]


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
    """Encoder, quantiser and decoder; `tokens` tokens a picture, `grid` a side."""

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
        """Of images (B, C, H, W): what the decoder makes of them, the encoder's numbers z, the
        tokens (B, N) and the quantiser's penalty.
        """
        z = self.encoder(images).float()
        kept, tokens, penalty = self.quantiser(z)
        return self.decoder(kept).float(), z, tokens, penalty

    def encode(self, images: Tensor) -> Tensor:
        """The tokens int64 (B, N) of images (B, C, H, W), row by row of the grid."""
        tokens: Tensor = self.quantiser(self.encoder(images))[1]
        return tokens

    def decode(self, tokens: Tensor) -> Tensor:
        """The images in [-1, 1] that tokens (B, N) stand for."""
        kept = self.quantiser.lookup(tokens)  # (B, features, N)
        made = self.decoder(kept.view(*kept.shape[:2], self.grid, self.grid)).float()
        return 2 * torch.sigmoid(made) - 1 if self.grey else made.clamp(-1, 1)

    def distortion(self, made: Tensor, images: Tensor) -> Tensor:
        """-log p(images given their tokens) in nats an image, a mean over the batch.

        Grey shades are likely as Bernoulli means; coloured ones by the discretised logistic of one
        learnt scale (Kingma et al. 2016, arXiv:1606.04934, appendix C).
        """
        if self.grey:
            target = (images + 1) / 2
            summed = functional.binary_cross_entropy_with_logits(made, target, reduction="sum")
        else:
            summed = -logistic_log_likelihood(images, made, self.log_scale).sum()
        return summed / len(images)


def logistic_log_likelihood(x: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """The log of the logistic's mass in the bin of each shade x, 256 of them in [-1, 1], ends open.

    By sigmoid(a) - sigmoid(b) = sigmoid(a) sigmoid(-b) (1 - exp(b - a)), which never underflows.
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
