"""Attention to whole texts, for training, and to what a slot has read, for its prompt."""

from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from worker.networks.kv_cache import KVCache


class AttentionMode(Protocol):
    """How tokens (B, T) that are read together attend, and their positions."""

    positions: Tensor  # int64 (B, T), or (1, T) if the same in every row

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """The attention of a layer's queries, all (B, heads, T, D)."""


class FullAttention:
    """Whole texts: each token attends to itself and to those before it."""

    def __init__(self, ids: Tensor) -> None:
        self.positions = torch.arange(ids.shape[1], device=ids.device)[None]

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Causal attention, the same in every layer."""
        return functional.scaled_dot_product_attention(q, k, v, is_causal=True)


class PrefillChunk:
    """Several more tokens in one slot (B is 1)."""

    def __init__(self, cache: KVCache, slot: int, tokens: int) -> None:
        self.cache, self.pages = cache, cache.pages[slot]
        start = cache.lengths[slot]
        self.stop = start + tokens
        self.positions = torch.arange(start, self.stop, device=cache.device)[None]  # (1, T)
        self._places = cache.places(slot, tokens)
        self._seen = torch.arange(self.stop, device=cache.device) <= self.positions.mT  # (T, stop)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Store k and v, and attend to the slot's positions so far."""
        kept = self.cache.tensor(v)[layer]  # (2, pages, heads, page, D)
        kept[0][self._places] = k[0].transpose(0, 1).to(kept.dtype)
        kept[1][self._places] = v[0].transpose(0, 1)
        mine = kept[:, self.pages].transpose(1, 2).flatten(2, 3)  # (2, heads, positions, D)
        keys, values = mine[:, None, :, : self.stop]
        q = q.to(keys.dtype)
        return functional.scaled_dot_product_attention(q, keys, values, self._seen)
