"""A cache of keys and values for texts of different lengths, and attention to it.

Decoding reads one more token in every slot. The cache has pages, as in vLLM (Kwon et al. 2023), but
those in use always come first: one product over them reads no more than what the slots have read.
"""

from functools import reduce
from itertools import zip_longest

import torch
from torch import Tensor

PAGE = 64  # positions that a CPU attends to at once

Places = tuple[Tensor, slice, Tensor]  # an index of (pages, heads, page, D)


class KVCache:
    """Keys and values of every layer, in pages of `page` positions, `lengths` of them in slots.

    `pages[slot]` are a slot's pages in order, the first of which is always page number `slot`. The
    first `used` of all pages are in use, by the slots `owners`. There is room for `context`
    positions in each slot from the start; more is allocated when it is needed.
    """

    def __init__(self, layers: int, slots: int, context: int, device: torch.device) -> None:
        self.layers, self.slots, self.device = layers, slots, device
        self.lengths = [0] * slots
        # on a GPU, launching more kernels costs more than skipping pages saves
        self.page = PAGE if device.type == "cpu" else context
        self._room = slots * -(-context // self.page)  # pages to allocate
        self.pages = [[slot] for slot in range(slots)]
        self.owners = [*range(slots)]  # the slots of the pages in use
        self._kept: Tensor | None = None

    @property
    def used(self) -> int:
        """Pages in use."""
        return len(self.owners)

    def tensor(self, like: Tensor) -> Tensor:
        """Keys and values (layers, 2, pages, heads, page, D), of at least the pages in use.

        `like` (.., heads, .., D) gives heads, D, type and device.
        """
        if self._kept is None or self.used > self._kept.shape[2]:
            if self.used > self._room:
                self._room = self.used * 5 // 4 + self.slots
            _, heads, _, D = like.shape  # noqa: N806 - the papers' name
            shape = (self.layers, 2, self._room, heads, self.page, D)
            # zeros, because a weight of 0 for a hidden position would not remove a NaN
            before, self._kept = self._kept, like.new_zeros(shape)
            if before is not None:
                self._kept[:, :, : before.shape[2]] = before
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

    def places(self, slot: int, tokens: int) -> Places:
        """Where the next tokens of a slot lie; makes room for them."""
        self.make_room(slot, tokens)
        start = self.lengths[slot]
        positions = torch.arange(start, start + tokens, device=self.device)
        pages = torch.tensor(self.pages[slot], device=self.device)[positions // self.page]
        return pages, slice(None), positions % self.page


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

    def attend(
        self, layer: int, q: Tensor, k: Tensor, v: Tensor, *, scale: float | None = None
    ) -> Tensor:
        """Store k and v, and attend to each slot's positions so far.

        softmax(scale q K^T) V is computed for each page in use, all of one shape, and summed over
        each slot's pages in order. So no slot's length changes another's text. Each head of k and v
        may serve several of q, which follow one another (Ainslie et al. 2023, "GQA"). `scale` is
        1 / sqrt(D) by default.
        """
        keys, values = self.cache.tensor(v)[layer]  # each (pages, heads, page, D)
        keys[self._place] = k[:, :, 0].to(keys.dtype)
        values[self._place] = v[:, :, 0]
        keys, values = keys[: self.cache.used], values[: self.cache.used]
        asked = (q * (scale or q.shape[-1] ** -0.5)).to(keys.dtype)
        asked = asked.reshape(len(q), k.shape[1], -1, q.shape[-1])  # (B, heads, n, D)
        asked = asked[self._owners]
        scores = (asked @ keys.mT).float().masked_fill_(self._hidden, -torch.inf)
        top = self._by_slot(scores.amax(-1, keepdim=True), -torch.inf).amax(0)  # (B, heads, n, 1)
        weights = (scores - top[self._owners]).exp()  # (pages, heads, n, page)
        parts = (weights.to(values.dtype) @ values).float()  # (pages, heads, n, D)
        total = reduce(torch.add, self._by_slot(weights.sum(-1, keepdim=True), 0.0))
        y: Tensor = reduce(torch.add, self._by_slot(parts, 0.0)) / total  # (B, heads, n, D)
        return y.to(v.dtype).view(q.shape)

    def _by_slot(self, pages: Tensor, absent: float) -> Tensor:
        """Pages (pages, ...) as (depth, B, ...), `absent` where a slot has none so deep."""
        return torch.cat((pages, torch.full_like(pages[:1], absent)))[self._table]
