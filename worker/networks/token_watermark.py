"""The sampler of the text watermark: the tournament between tokens that can come next.

Tournament sampling in the form that draws from the winner's distribution (Dathathri et al. 2024,
supplement E): a layer multiplies each probability by 1 + g - the mass of all tokens of g = 1. It
comes after temperature, top-k and top-p, on any logits, and draws no random numbers. So a marked
text too depends on its seed, its index and its own tokens alone.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from worker.marks.watermarks.tokens import (
    CONTEXT,
    Watermark,
    g_values,
    variant_of,
    watermark_of,
)


class Marked(NamedTuple):
    """A token to mark: the watermark of its text, and the tokens before it."""

    watermark: Watermark
    context: tuple[int, ...]


class MarkedText:
    """One text's watermark, and the contexts that it has had: one that comes again is not marked.

    Tokens after the same context would repeat themselves otherwise (ibid., supplement G).
    """

    def __init__(self, secret: bytes | None, *, seed: int, index: int) -> None:
        """Without a `secret` nothing is marked."""
        self._watermark = watermark_of(secret, variant_of(seed, index)) if secret else None
        self._seen: set[tuple[int, ...]] = set()

    def next(self, tokens: Sequence[int], count: int) -> Marked | None:
        """The next token, if it is to be marked, after `tokens`, the last `count` of them output.

        The first few tokens have no context of output, which a reader has alone.
        """
        if self._watermark is None or count < CONTEXT:
            return None
        context = tuple(tokens[-CONTEXT:])
        if context in self._seen:
            return None
        self._seen.add(context)
        return Marked(self._watermark, context)


def tournament(chances: Tensor, marked: Sequence[Marked | None]) -> Tensor:
    """The chances (B, V) of winning, float64; rows beyond `marked` or of None stay as they are.

    A row's numbers do not depend on the other rows.
    """
    bits, rows, tokens = _bits(chances, marked)
    for layer in bits:  # (P,)
        wins = torch.zeros_like(chances)
        wins[rows, tokens] = layer
        chances = chances * (1 + wins - (wins * chances).sum(-1, keepdim=True))
    return chances


def _bits(chances: Tensor, marked: Sequence[Marked | None]) -> tuple[Tensor, Tensor, Tensor]:
    """The g-values (DEPTH, P) of all pairs of a row and a token that can come next."""
    places, some = zip(*((row, each) for row, each in enumerate(marked) if each), strict=True)
    rows, tokens = (chances[list(places)] > 0).nonzero(as_tuple=True)
    of = rows.cpu().numpy()
    contexts = np.array([each.context for each in some])[of]  # (P, CONTEXT)
    ngrams = np.concatenate([contexts, tokens.cpu().numpy()[:, None]], axis=1)
    keys = np.array([each.watermark.keys for each in some])[of].T  # (DEPTH, P)
    bits = np.empty(keys.shape, np.uint8)
    tables = {id(each.watermark.table): each.watermark.table for each in some}
    for name, table in tables.items():  # one, unless texts of several tenants are made together
        own = np.array([id(each.watermark.table) == name for each in some])[of]
        bits[:, own] = g_values(ngrams[own], keys[:, own], table)
    of_all = torch.tensor(places, device=rows.device)[rows]
    return torch.from_numpy(bits).to(chances), of_all, tokens
