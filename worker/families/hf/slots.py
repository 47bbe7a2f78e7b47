"""Keys and values of texts of different lengths, read by one forward of a `transformers` model.

A model that uses transformers' attention interface can read a `SlotCache`. Each slot attends to its
own text alone, in pages of one shape, and a CPU's kernel computes each row of a batch by itself. So
no text's numbers depend on the other slots. Whether a model can is found by trying.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicLayer
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from worker.networks.kv_cache import DecodeStep, KVCache

ATTENTION = "genmill_slots"  # the name of `attend` among transformers' attention functions
ROOM = 128  # positions of each slot that are allocated at first


class SlotLayer(CacheLayerMixin):  # type: ignore[misc]  # mypy does not read transformers
    """What a model takes for one layer's keys and values: they are kept by `attend`."""

    is_sliding = False

    def __init__(self, cache: "SlotCache", number: int) -> None:
        super().__init__()
        self.cache, self.number = cache, number
        self.is_initialized = True

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing: `KVCache` allocates."""

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Say which layer attends next, to the keys and values that are given (slots, .., 1, D)."""
        self.cache.layer = self.number
        return key_states, value_states

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """See `CacheLayerMixin`; no mask is made for `attend`."""
        return self.get_seq_length() + query_length, 0

    def get_seq_length(self) -> int:
        """Positions of the longest text."""
        return max(self.cache.kept.lengths)

    def get_max_length(self) -> int:
        """No limit."""
        return -1


class SlotCache(Cache):  # type: ignore[misc]  # as above
    """Keys and values of every layer, for one text in each slot."""

    def __init__(self, slots: int, like: Cache) -> None:
        """`like` is the cache of a batch of prompts."""
        layers = [SlotLayer(self, number) for number in range(len(like.layers))]
        super().__init__(layers=[*layers])
        self.device = like.layers[0].keys.device  # of a `DynamicLayer`
        self.kept = KVCache(len(layers), slots, ROOM, self.device)
        self.layer = 0  # that attends
        self._in_use = [False] * slots

    def join(self, slot: int, prompts: Cache, row: int, *, padding: int) -> None:
        """Start a slot with row `row` of a batch of prompts, padded on the left."""
        length = prompts.get_seq_length() - padding
        places = self.kept.places(slot, length)
        layers: list[Any] = prompts.layers  # each a `DynamicLayer`
        for number, layer in enumerate(layers):
            for which, each in enumerate((layer.keys, layer.values)):
                kept = self.kept.tensor(each)[number, which]
                kept[places] = each[row, :, padding:].transpose(0, 1)
        self.kept.lengths[slot], self._in_use[slot] = length, True

    def leave(self, slot: int) -> None:
        """Empty a slot. From now on each step overwrites its only position."""
        self.kept.reset(slot)
        self._in_use[slot] = False

    @contextmanager
    def step(self) -> Iterator[None]:
        """In this context a forward of a model reads one more token in each slot."""
        self.reading = DecodeStep(self.kept)
        token = _reading.set(self)
        try:
            yield
        finally:
            _reading.reset(token)
        for slot, in_use in enumerate(self._in_use):
            self.kept.lengths[slot] += in_use


_reading: ContextVar[SlotCache | None] = ContextVar("reading", default=None)


def read_slots(model: Any, ids: Tensor, positions: Tensor, cache: SlotCache) -> Tensor:
    """Read one more token in each slot, ids and their positions (B, 1); logits float32 (B, V)."""
    with cache.step():
        read = model(input_ids=ids, position_ids=positions, past_key_values=cache, use_cache=True)
    logits: Tensor = read.logits[:, -1].float()
    return logits


def enable_slots(model: Any) -> bool:
    """Let a model read texts in slots, if it then reads them as in batches, found by trying.

    It must use transformers' attention interface, and cache plain keys and values in every layer,
    all of one shape. Only on a CPU: elsewhere a kernel may depend on the batch.
    """
    backend = getattr(model, "_supports_attention_backend", False)
    if not backend or model.config._attn_implementation != "sdpa" or model.device.type != "cpu":
        return False
    lengths = torch.tensor([[3], [6]], device=next(model.parameters()).device)
    expected, caches = zip(*(_read_batch(model, int(length)) for length in lengths), strict=True)
    layers = getattr(caches[0], "layers", [None])
    if not all(type(layer) is DynamicLayer for layer in layers):
        return False
    if len({kept.shape for layer in layers for kept in (layer.keys, layer.values)}) != 1:
        return False
    slots = SlotCache(2, caches[0])
    model.config._attn_implementation = ATTENTION
    for slot, cache in enumerate(caches):
        cache.crop(-1)
        slots.join(slot, cache, slot, padding=1)
    found = read_slots(model, torch.ones_like(lengths), lengths, slots)
    wanted = torch.stack([expected[0][0], expected[1][1]])
    if equal := bool((found - wanted).abs().max() <= 0.02 * wanted.abs().max()):
        return equal
    model.config._attn_implementation = "sdpa"
    return False


def is_static(model: Any) -> bool:
    """Whether forwards leave a model as it is, so that several may run at once."""
    kinds = [getattr(module, "rope_type", None) for module in model.modules()]
    return not any("dynamic" in str(kind) or "longrope" in str(kind) for kind in kinds)


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
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Any, **kwargs: Any
) -> tuple[Tensor, None]:
    """The attention of transformers' models: in slots one query each (slots, heads, 1, D)."""
    if (cache := _reading.get()) is None:
        usual: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, mask, **kwargs
        )
        return usual
    scale = kwargs.get("scaling")
    found = cache.reading.attend(cache.layer, query, key, value, scale=scale)
    return found.transpose(1, 2), None


AttentionInterface.register(ATTENTION, attend)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)
