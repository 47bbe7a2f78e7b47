"""Attention with and without a cache of keys and values.

Training reads whole texts. Decoding continues from a `KVCache`, with one token in every slot or a
chunk of tokens in one slot. The cache has pages, as in vLLM (Kwon et al. 2023), but those in use
always come first: one product over them reads no more than what the slots have read.
"""

from functools import reduce
from itertools import zip_longest
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

PAGE = 64  # positions that a CPU attends to at once


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
    """Keys and values of every layer, in pages of `page` positions, `lengths` of them in slots.

    `pages[slot]` are a slot's pages in order, the first of which is always page number `slot`. The
    first `used` of all pages are in use, by the slots `owners`.
    """

    def __init__(self, layers: int, slots: int, context: int, device: torch.device) -> None:
        self.layers, self.slots, self.device = layers, slots, device
        self.lengths = [0] * slots
        # on a GPU, launching more kernels costs more than skipping pages saves
        self.page = PAGE if device.type == "cpu" else context
        self.limit = slots * -(-context // self.page)  # pages
        self.pages = [[slot] for slot in range(slots)]
        self.owners = [*range(slots)]  # the slots of the pages in use
        self._kept: Tensor | None = None

    @property
    def used(self) -> int:
        """Pages in use."""
        return len(self.owners)

    def tensor(self, like: Tensor) -> Tensor:
        """Keys and values (layers, 2, pages, heads, page, D), allocated at the first call.

        `like` (.., heads, .., D) gives heads, D, type and device.
        """
        if self._kept is None:
            _, heads, _, D = like.shape  # noqa: N806 - the papers' name
            shape = (self.layers, 2, self.limit, heads, self.page, D)
            # zeros, because a weight of 0 for a hidden position would not remove a NaN
            self._kept = like.new_zeros(shape)
        return self._kept

    def make_room(self, slot: int, tokens: int) -> None:
        """Give a slot the pages that it needs to read `tokens` more tokens."""
        while len(self.pages[slot]) * self.page < self.lengths[slot] + tokens:
            self.pages[slot].append(self.used)
            self.owners.append(slot)

    def reset(self, slot: int) -> None:
        """Empty a slot, and close the gaps that its pages leave by the last pages in use."""
        self.lengths[slot] = 0
        for gap in sorted(self.pages[slot][1:], reverse=True):
            last, owner = self.used - 1, self.owners.pop()
            if gap != last:
                self.owners[gap] = owner
                self.pages[owner][self.pages[owner].index(last)] = gap
                if self._kept is not None:
                    self._kept[:, :, gap] = self._kept[:, :, last]
        del self.pages[slot][1:]


class DecodeStep:
    """One more token in every slot (T is 1)."""

    def __init__(self, cache: KVCache) -> None:
        self.cache, device = cache, cache.device
        for slot in range(cache.slots):
            cache.make_room(slot, 1)
        self.positions = torch.tensor(cache.lengths, device=device)[:, None]  # (B, 1)
        last = torch.tensor([pages[-1] for pages in cache.pages], device=device)
        self._place = (last, slice(None), self.positions[:, 0] % cache.page)
        # (depth, B); `used` stands for a page of no weight
        self._table = torch.tensor(
            [*zip_longest(*cache.pages, fillvalue=cache.used)], device=device
        )
        self._owners = torch.tensor(cache.owners, device=device)
        starts = torch.empty(cache.used + 1, dtype=torch.int64, device=device)
        starts[self._table] = torch.arange(0, len(self._table) * cache.page, cache.page)[:, None]
        places = starts[:-1, None] + torch.arange(cache.page, device=device)
        self._hidden = (places > self.positions[self._owners])[:, None, None]  # (pages, 1, 1, page)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Store k and v, and attend to each slot's positions so far.

        softmax(q K^T) V is computed for each page in use, all of one shape, and summed over each
        slot's pages in order. So no slot's length changes another's text.
        """
        keys, values = self.cache.tensor(v)[layer]  # each (pages, heads, page, D)
        keys[self._place] = k[:, :, 0].to(keys.dtype)
        values[self._place] = v[:, :, 0]
        keys, values = keys[: self.cache.used], values[: self.cache.used]
        q = (q * q.shape[-1] ** -0.5).to(keys.dtype)[self._owners]  # (pages, heads, 1, D)
        scores = (q @ keys.mT).float().masked_fill_(self._hidden, -torch.inf)
        top = self._by_slot(scores.amax(-1, keepdim=True), -torch.inf).amax(0)  # (B, heads, 1, 1)
        weights = (scores - top[self._owners]).exp()  # (pages, heads, 1, page)
        parts = (weights.to(values.dtype) @ values).float()  # (pages, heads, 1, D)
        total = reduce(torch.add, self._by_slot(weights.sum(-1, keepdim=True), 0.0))
        y: Tensor = reduce(torch.add, self._by_slot(parts, 0.0)) / total  # (B, heads, 1, D)
        return y.to(v.dtype)

    def _by_slot(self, pages: Tensor, absent: float) -> Tensor:
        """Pages (pages, ...) as (depth, B, ...), `absent` where a slot has none so deep."""
        return torch.cat((pages, torch.full_like(pages[:1], absent)))[self._table]


class PrefillChunk:
    """Several more tokens in one slot (B is 1)."""

    def __init__(self, cache: KVCache, slot: int, tokens: int) -> None:
        self.cache, self.pages = cache, cache.pages[slot]
        cache.make_room(slot, tokens)
        start = cache.lengths[slot]
        self.stop = start + tokens
        self.positions = torch.arange(start, self.stop, device=cache.device)[None]  # (1, T)
        pages = torch.tensor(self.pages, device=cache.device)[self.positions[0] // cache.page]
        self._place = (pages, slice(None), self.positions[0] % cache.page)
        self._seen = torch.arange(self.stop, device=cache.device) <= self.positions.mT  # (T, stop)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Store k and v, and attend to the slot's positions so far."""
        kept = self.cache.tensor(v)[layer]  # (2, pages, heads, page, D)
        kept[0][self._place] = k[0].transpose(0, 1).to(kept.dtype)
        kept[1][self._place] = v[0].transpose(0, 1)
        mine = kept[:, self.pages].transpose(1, 2).flatten(2, 3)  # (2, heads, positions, D)
        keys, values = mine[:, None, :, : self.stop]
        q = q.to(keys.dtype)
        return functional.scaled_dot_product_attention(q, keys, values, self._seen)
