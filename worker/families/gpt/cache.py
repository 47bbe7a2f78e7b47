"""Keys and values of the tokens read so far, so that one more token costs one position."""

from torch import Tensor


class Cache:
    """Room for `context` positions of every layer, of which the first `length` are in use."""

    def __init__(self, layers: int, context: int) -> None:
        self.layers, self.context = layers, context
        self.length = 0
        self._kept: Tensor | None = None  # (2, layers, B, heads, context, D)

    def extend(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Keep a layer's k and v (B, heads, T, D); give back all of its positions so far."""
        if self._kept is None:
            B, heads, _, D = k.shape  # noqa: N806 - the papers' names
            self._kept = k.new_empty(2, self.layers, B, heads, self.context, D)
        end = self.length + k.shape[2]
        kept = self._kept[:, layer]
        kept[0, :, :, self.length : end] = k
        kept[1, :, :, self.length : end] = v
        return kept[0, :, :, :end], kept[1, :, :, :end]

    def advance(self, positions: int) -> None:
        """All layers have kept this many positions more."""
        self.length += positions

    def clear(self) -> None:
        """Forget all positions, keep the room."""
        self.length = 0

    @property
    def full(self) -> bool:
        """Whether one more position has no room."""
        return self.length >= self.context
