"""How the transformer reads when it writes: in lanes, keeping keys and values."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from torch import Tensor

from worker.families.gpt.passages import Cache, Chunk, Step

if TYPE_CHECKING:
    from worker.families.gpt.model import Transformer

MOST_AHEAD = 63  # tokens that a lane reads alone


class Reader:
    """A `Foreseeing` decoder: the network, and a cache of what its lanes have read."""

    def __init__(self, network: Transformer, lanes: int) -> None:
        self.network, self.room = network, network.params.context
        device = network.embedding.weight.device
        self.cache = Cache(network.params.layers, lanes, self.room, device)
        # of a lane that forgets all but its last half, one token is left for the next step
        self.ahead = min(self.room // 2 - 1, MOST_AHEAD)

    def reset(self, lane: int) -> None:
        """Forget what a lane has read."""
        self.cache.lengths[lane] = 0

    def read(self, tokens: Tensor) -> Tensor:
        """Each lane reads one token more, int64 (B,): logits of the next ones, float32 (B, V)."""
        logits = self.network(tokens[:, None], Step(self.cache))[:, 0]
        self.cache.lengths = [length + 1 for length in self.cache.lengths]
        return cast(Tensor, logits)

    def read_ahead(self, lane: int, tokens: Tensor) -> None:
        """One lane alone reads `ahead` tokens more, int64 (ahead,)."""
        self.network.read(tokens[None], Chunk(self.cache, lane, len(tokens)))
        self.cache.lengths[lane] += len(tokens)
