"""Quantisers: from a feature vector to one token of a finite vocabulary, and back."""

import math
from abc import abstractmethod
from typing import cast

import torch
from torch import Tensor, nn

from worker.families.text2image import Params
from worker.networks.network import Draw

COMMITMENT = 0.25  # beta of van den Oord et al. 2017, eq. 3
DECAY = 0.99  # gamma of their appendix A.1
DEAD = 0.5  # a code with fewer uses per step, on average, is reset


class Quantiser(nn.Module):
    """A vocabulary of `size` tokens, each a vector of `features` numbers."""

    size: int
    features: int

    @abstractmethod
    def forward(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Quantise z (B, features, H, W): quantised numbers with straight-through gradients, tokens
        int64 (B, H * W), and a scalar penalty on z's distance from them.
        """

    @abstractmethod
    def lookup(self, tokens: Tensor) -> Tensor:
        """The numbers (B, features, N) of tokens (B, N)."""

    def update(self, z: Tensor, tokens: Tensor, draw: Draw) -> None:
        """Update from a training batch what has no gradients."""


class Fsq(Quantiser):
    """Finite scalar quantisation: each number is rounded to one of few levels.

    Mentzer et al. 2023, arXiv:2309.15505, section 3.1 and appendix A.1. There is no codebook, so no
    code can die.
    """

    def __init__(self, levels: list[int]) -> None:
        super().__init__()
        self.size, self.features = math.prod(levels), len(levels)
        counts = torch.tensor(levels)[:, None]  # (d, 1)
        basis = torch.tensor([math.prod(levels[:i]) for i in range(len(levels))])[:, None]
        self.register_buffer("counts", counts, persistent=False)
        self.register_buffer("basis", basis, persistent=False)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Bound and round; no penalty."""
        bounded = self._bound(z.float().flatten(2))  # (B, d, N)
        rounded = bounded + (bounded.round() - bounded).detach()
        counts, basis = cast(Tensor, self.counts), cast(Tensor, self.basis)
        half = counts // 2
        tokens = ((rounded.detach().round().long() + half) * basis).sum(1)  # (B, N)
        return (rounded / half).view_as(z), tokens, z.new_zeros(())

    def lookup(self, tokens: Tensor) -> Tensor:
        """Each number is in [-1, 1]."""
        counts, basis = cast(Tensor, self.counts), cast(Tensor, self.basis)
        places = tokens[:, None] // basis % counts  # (B, d, N)
        half = counts // 2
        return (places - half) / half

    def _bound(self, z: Tensor) -> Tensor:
        """Bound z so that rounding gives `counts` values; 0 stays 0."""
        counts = cast(Tensor, self.counts)
        half = (counts - 1) * 1.001 / 2
        offset = torch.where(counts % 2 == 0, 0.5, 0.0)
        return torch.tanh(z + torch.atanh(offset / half)) * half - offset


class Vq(Quantiser):
    """The nearest of `codes` learnt vectors.

    van den Oord et al. 2017, arXiv:1711.00937: eq. 3, with the middle term replaced by moving
    averages of the encoder's outputs (appendix A.1). Dead codes, at first all, are reset to current
    outputs of the encoder.
    """

    codebook: Tensor
    counts: Tensor

    def __init__(self, codes: int, features: int) -> None:
        super().__init__()
        self.size, self.features = codes, features
        self.register_buffer("codebook", torch.zeros(codes, features))
        self.register_buffer("counts", torch.zeros(codes))

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The penalty is the commitment loss, summed over an image."""
        rows = z.float().flatten(2).transpose(1, 2)  # (B, N, D)
        with torch.autocast(rows.device.type, enabled=False):  # near ties need float32
            squares = self.codebook.square().sum(1)  # |r - c|^2 minus |r|^2, the same for all codes
            tokens = (squares - 2 * rows @ self.codebook.T).argmin(-1)
        quantised = self.codebook[tokens]  # (B, N, D)
        penalty = COMMITMENT * (rows - quantised).square().sum((1, 2)).mean()
        straight_through = rows + (quantised - rows).detach()
        return straight_through.transpose(1, 2).reshape(z.shape), tokens, penalty

    def lookup(self, tokens: Tensor) -> Tensor:
        """Rows of the codebook."""
        return self.codebook[tokens].transpose(1, 2)  # (B, D, N)

    @torch.no_grad()
    def update(self, z: Tensor, tokens: Tensor, draw: Draw) -> None:
        """Move each code towards the mean of its vectors; reset dead codes."""
        rows = z.float().flatten(2).transpose(1, 2).flatten(0, 1)  # (B * N, D)
        sums = torch.zeros_like(self.codebook).index_add_(0, tokens.flatten(), rows)
        used = torch.bincount(tokens.flatten(), minlength=self.size).to(sums.dtype)
        counts = DECAY * self.counts + (1 - DECAY) * used
        moved = DECAY * self.counts[:, None] * self.codebook + (1 - DECAY) * sums
        fresh = rows[draw.integers(len(rows), self.size, stream=1)[0]]
        dead = counts < DEAD
        self.codebook.copy_(torch.where(dead[:, None], fresh, moved / counts[:, None].clamp(DEAD)))
        self.counts.copy_(torch.where(dead, 1.0, counts))


def make_quantiser(params: Params) -> Quantiser:
    """The quantiser that the parameters ask for."""
    if params.quantiser == "fsq":
        return Fsq(params.levels)
    return Vq(params.codes, params.channels)
