"""Choosing the next token by inverse transform sampling, from one uniform number a row."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from worker.networks.token_watermark import Marked, tournament

MIN_TEMPERATURE = 1e-100  # below it logits overflow; at it the likeliest is certain


class TokenSampling(Protocol):
    """The settings of a choice; a family's sampling parameters have them."""

    @property
    def temperature(self) -> float:
        """Divides the logits; 0: always the likeliest token."""

    @property
    def top_k(self) -> int:
        """Choose among the k likeliest tokens; 0: among all."""

    @property
    def top_p(self) -> float:
        """Choose among the likeliest tokens that together hold this probability."""


def choose(
    logits: Tensor,
    uniform: Tensor,
    sampling: TokenSampling,
    marked: Sequence[Marked | None] = (),
) -> Tensor:
    """The next token of each row, int64 (B,), from logits (B, V) and `uniform` (B,) in [0, 1).

    `marked` says in which rows the choice carries a watermark: there is none at temperature 0.
    """
    if sampling.temperature == 0:
        return logits.argmax(-1)
    scaled = logits.double() / max(sampling.temperature, MIN_TEMPERATURE)
    chances = torch.softmax(_top_p(_top_k(scaled, sampling.top_k), sampling.top_p), -1)
    if any(marked):
        chances = tournament(chances, marked)
    cumulated = chances.cumsum(-1)  # (B, V)
    # "right" finds the first sum above the mark, so a token of chance 0 is never chosen
    mark = uniform.double()[:, None] * cumulated[:, -1:]
    return torch.searchsorted(cumulated, mark, right=True)[:, 0].clamp(max=logits.shape[-1] - 1)


def _top_k(logits: Tensor, k: int) -> Tensor:
    """Keep the k largest logits of each row, and those that equal the smallest of them."""
    if not 0 < k < logits.shape[-1]:
        return logits
    smallest = logits.topk(k, dim=-1).values[:, -1:]
    return logits.masked_fill(logits < smallest, -torch.inf)


def _top_p(logits: Tensor, p: float) -> Tensor:
    """Keep the fewest tokens that hold probability p (Holtzman et al. 2019), at least one."""
    if p >= 1:
        return logits
    ordered, order = logits.sort(dim=-1, descending=True, stable=True)
    chances = torch.softmax(ordered, -1)
    before = chances.cumsum(-1) - chances
    cut = torch.zeros_like(before, dtype=torch.bool).scatter(-1, order, before >= p)
    return logits.masked_fill(cut, -torch.inf)
