"""Keys and values of texts of different lengths, read by one forward of a `transformers` model.

A model that uses transformers' attention interface can read a `SlotCache`. Each slot attends to its
own text alone, by the same kernel as in a batch of texts of its length, and a CPU's kernel computes
each row of a batch by itself. So no text's numbers depend on the other slots. Whether a model can
is found by trying.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import groupby
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import AttentionInterface
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicLayer
from transformers.integrations.sdpa_attention import sdpa_attention_forward

ATTENTION = "genmill_slots"  # the name of `attend` among transformers' attention functions
ROOM = 64  # positions that are allocated beyond those needed


class SlotLayer(CacheLayerMixin):
    """One layer's keys and values, each (slots, heads, positions, D)."""

    is_sliding = False
    keys: Tensor
    values: Tensor

    def __init__(self, cache: "SlotCache", like: Any) -> None:
        """`like` is the layer of another cache, which gives heads, D, type and device."""
        super().__init__()  # type: ignore[no-untyped-call]  # transformers leaves it untyped
        self.cache = cache
        self.lazy_initialization(like.keys, like.values)

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Allocate the cache's positions for keys and values like these, (.., heads, .., D)."""
        slots, positions = len(self.cache.lengths), self.cache.positions
        self.keys, self.values = (
            each.new_zeros(slots, each.shape[1], positions, each.shape[3])
            for each in (key_states, value_states)
        )
        self.is_initialized = True

    def grow(self) -> None:
        """Allocate the cache's positions again, and keep what there is."""
        keys, values = self.keys, self.values
        self.lazy_initialization(keys, values)
        self.keys[:, :, : keys.shape[2]] = keys
        self.values[:, :, : values.shape[2]] = values

    def join(self, slot: int, like: Any, row: int) -> None:
        """Copy row `row` of another cache's layer into a slot."""
        length = like.keys.shape[2]
        self.keys[slot, :, :length], self.values[slot, :, :length] = (
            like.keys[row],
            like.values[row],
        )

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Store the last position of each slot, both (slots, heads, 1, D); return all positions."""
        self.keys[self.cache.place] = key_states[:, :, 0]
        self.values[self.cache.place] = value_states[:, :, 0]
        return self.keys, self.values

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """See `CacheLayerMixin`."""
        return self.cache.positions, 0

    def get_seq_length(self) -> int:
        """Positions of the longest text."""
        return max(self.cache.lengths)

    def get_max_length(self) -> int:
        """No limit."""
        return -1


class SlotCache(Cache):
    """Keys and values of every layer, for one text in each slot; `lengths` include padding."""

    def __init__(self, slots: int, like: Cache) -> None:
        """`like` is the cache of a batch of prompts."""
        self.lengths, self.positions = [0] * slots, ROOM
        self._layers = [SlotLayer(self, layer) for layer in like.layers]
        super().__init__(layers=[*self._layers])
        self.device = self._layers[0].keys.device
        self._padding = [0] * slots  # positions to the left of the texts
        self._slots = torch.arange(slots, device=self.device)

    def join(self, slot: int, prompts: Cache, row: int, *, padding: int) -> None:
        """Start a slot with row `row` of a batch of prompts, padded on the left."""
        self.lengths[slot], self._padding[slot] = prompts.get_seq_length(), padding
        self._make_room()
        for layer, their in zip(self._layers, prompts.layers, strict=True):
            layer.join(slot, their, row)

    def leave(self, slot: int) -> None:
        """Empty a slot. From now on each step overwrites its only position."""
        self.lengths[slot] = self._padding[slot] = 0

    @contextmanager
    def step(self, model: Any) -> Iterator[None]:
        """In this context a forward of `model` reads one more token in each slot."""
        self.lengths = [length + 1 for length in self.lengths]
        self._make_room()
        last = torch.tensor(self.lengths, device=self.device) - 1
        self.place = (self._slots, slice(None), last)
        self.hidden = self._hide_padding()
        self.runs = [*self._find_runs()]
        before, token = model.config._attn_implementation, _reading.set(self)
        model.config._attn_implementation = ATTENTION
        try:
            yield
        finally:
            model.config._attn_implementation = before
            _reading.reset(token)
        for slot, padding in enumerate(self._padding):
            if not padding:  # every text has some
                self.lengths[slot] = 0

    def _make_room(self) -> None:
        if (needed := max(self.lengths)) > self.positions:
            self.positions = needed * 5 // 4 + ROOM
            for layer in self._layers:
                layer.grow()

    def _hide_padding(self) -> Tensor:
        """What to add to scores, (slots, 1, 1, positions): -inf at padding."""
        padding = torch.tensor(self._padding, device=self.device)[:, None, None, None]
        hidden = torch.arange(self.positions, device=self.device) < padding
        like = self._layers[0].keys
        return like.new_zeros(hidden.shape).masked_fill_(hidden, -torch.inf)

    def _find_runs(self) -> Iterator[tuple[slice, int]]:
        """Neighbouring slots of one length, and the length."""
        start = 0
        for length, run in groupby(self.lengths):
            stop = start + len([*run])
            yield slice(start, stop), length
            start = stop


_reading: ContextVar[SlotCache] = ContextVar("reading")


def read_slots(model: Any, ids: Tensor, positions: Tensor, cache: SlotCache) -> Tensor:
    """Read one more token in each slot, ids and their positions (B, 1); logits float32 (B, V)."""
    with cache.step(model):
        read = model(input_ids=ids, position_ids=positions, past_key_values=cache, use_cache=True)
    logits: Tensor = read.logits[:, -1].float()
    return logits


def supports_slots(model: Any) -> bool:
    """Whether a model reads texts in slots as it reads them in batches, found by trying.

    It must use transformers' attention interface, and cache plain keys and values in every layer.
    Only on a CPU: elsewhere a kernel may depend on the batch, and many small ones are slow.
    """
    backend = getattr(model, "_supports_attention_backend", False)
    if not backend or model.config._attn_implementation != "sdpa" or model.device.type != "cpu":
        return False
    lengths = torch.tensor([[3], [6]], device=next(model.parameters()).device)
    expected, caches = zip(*(_read_batch(model, int(length)) for length in lengths), strict=True)
    if not all(type(layer) is DynamicLayer for layer in getattr(caches[0], "layers", [None])):
        return False
    slots = SlotCache(2, caches[0])
    for slot, cache in enumerate(caches):
        cache.crop(-1)
        slots.join(slot, cache, slot, padding=1)
    found = read_slots(model, torch.ones_like(lengths), lengths, slots)
    wanted = torch.stack([expected[0][0], expected[1][1]])
    return bool((found - wanted).abs().max() <= 0.02 * wanted.abs().max())


def _read_batch(model: Any, length: int) -> tuple[Tensor, Cache]:
    """The logits after two texts of `length` tokens and token 1, (2, V), and the cache."""
    ids = torch.arange(2 * length, device=model.device).remainder(4).view(2, -1)
    ids = functional.pad(functional.pad(ids, (0, 1), value=1), (1, 0))  # padding on the left
    mask = torch.ones_like(ids)
    mask[:, 0] = 0
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    read = model(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=True)
    return read.logits[:, -1].float(), read.past_key_values


def attend(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, _: Any, **kwargs: Any
) -> tuple[Tensor, None]:
    """The attention of one query in each slot (slots, heads, 1, D), for transformers' models."""
    cache = _reading.get()
    found = [
        sdpa_attention_forward(
            module,
            query[slots],
            key[slots, :, :length],
            value[slots, :, :length],
            cache.hidden[slots, :, :, :length],
            **kwargs,
        )[0]
        for slots, length in cache.runs
    ]
    return torch.cat(found), None


AttentionInterface.register(ATTENTION, attend)
