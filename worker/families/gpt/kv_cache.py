"""Attention with and without a cache of keys and values.

Training reads whole texts. Decoding continues from a `KVCache`, with one token in every slot or a
chunk of tokens in one slot.
"""

from functools import reduce
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

BLOCK = 64  # positions that a CPU attends to at once


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


class KVCache:
    """Keys and values of every layer: `context` positions a slot, `lengths` of them used."""

    def __init__(self, layers: int, slots: int, context: int, device: torch.device) -> None:
        self.layers, self.slots, self.device = layers, slots, device
        self.lengths = [0] * slots
        # on a GPU, launching more kernels costs more than skipping blocks saves
        self.block = BLOCK if device.type == "cpu" else context
        self.blocks = -(-context // self.block)
        self._kept: Tensor | None = None

    def tensor(self, like: Tensor) -> Tensor:
        """Keys and values (layers, 2, blocks, B, heads, block, D), allocated at the first call.

        `like` (.., heads, .., D) gives heads, D, type and device.
        """
        if self._kept is None:
            _, heads, _, D = like.shape  # noqa: N806 - the papers' name
            shape = (self.layers, 2, self.blocks, self.slots, heads, self.block, D)
            # zeros, because a weight of 0 for a hidden position would not remove a NaN
            self._kept = like.new_zeros(shape)
        return self._kept


class DecodeStep:
    """One more token in every slot (T is 1)."""

    def __init__(self, cache: KVCache) -> None:
        self.cache = cache
        self.positions = torch.tensor(cache.lengths, device=cache.device)[:, None]  # (B, 1)
        block, offset = self.positions[:, 0] // cache.block, self.positions[:, 0] % cache.block
        self._place = (block, torch.arange(cache.slots, device=cache.device), slice(None), offset)
        used = max(cache.lengths) // cache.block + 1  # blocks
        places = torch.arange(used * cache.block, device=cache.device)
        hidden = (places > self.positions)[:, None, None]  # (B, 1, 1, used x block)
        self._hidden = hidden.view(cache.slots, 1, 1, used, cache.block).unbind(-2)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Store k and v, and attend to each slot's positions so far.

        softmax(q K^T) V is summed over blocks of positions, all of one shape. Blocks that no slot
        has reached are skipped: they would add zeros, so no slot's length changes another's text.
        """
        keys, values = self.cache.tensor(v)[layer]  # each (blocks, B, heads, block, D)
        keys[self._place] = k[:, :, 0].to(keys.dtype)
        values[self._place] = v[:, :, 0]
        q = (q * q.shape[-1] ** -0.5).to(keys.dtype)
        scores = [
            (q @ block.mT).float().masked_fill(hidden, -torch.inf)
            for block, hidden in zip(keys, self._hidden, strict=False)
        ]  # each (B, heads, 1, block)
        top = reduce(torch.maximum, [score.amax(-1, keepdim=True) for score in scores])
        weights = [(score - top).exp() for score in scores]
        parts = [
            (weight.to(values.dtype) @ block).float()
            for weight, block in zip(weights, values, strict=False)
        ]  # each (B, heads, 1, D)
        total = reduce(torch.add, [weight.sum(-1, keepdim=True) for weight in weights])
        y: Tensor = reduce(torch.add, parts) / total
        return y.to(v.dtype)


class PrefillChunk:
    """Several more tokens in one slot (B is 1)."""

    def __init__(self, cache: KVCache, slot: int, tokens: int) -> None:
        self.cache, self.slot = cache, slot
        start = cache.lengths[slot]
        self.stop = start + tokens
        self.positions = torch.arange(start, self.stop, device=cache.device)[None]  # (1, T)
        block, offset = self.positions[0] // cache.block, self.positions[0] % cache.block
        self._place = (block, slice(None), offset)
        self._seen = torch.arange(self.stop, device=cache.device) <= self.positions.mT  # (T, stop)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Store k and v, and attend to the slot's positions so far."""
        kept = self.cache.tensor(v)[layer, :, :, self.slot]  # (2, blocks, heads, block, D)
        kept[0][self._place] = k[0].transpose(0, 1).to(kept.dtype)
        kept[1][self._place] = v[0].transpose(0, 1)
        keys, values = kept.transpose(1, 2).flatten(2, 3)[:, None, :, : self.stop]
        q = q.to(keys.dtype)
        return functional.scaled_dot_product_attention(q, keys, values, self._seen)
