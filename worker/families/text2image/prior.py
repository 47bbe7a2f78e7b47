"""Stage two: a causal transformer over a caption's tokens followed by an image's.

Ramesh et al. 2021, section 2.2, but only image tokens are predicted. Blocks as in family `gpt`:
pre-norm, RMSNorm without gains, QK-norm, no biases, zero-initialised outputs. Position embeddings
are learnt: one table for captions, one each for an image's rows and columns. Captions are padded
with a token of its own, so no mask is needed.
"""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from worker.families.text2image import Params


def norm(x: Tensor) -> Tensor:
    """RMSNorm over the last dimension, without gains (Zhang, Sennrich 2019)."""
    return functional.rms_norm(x, x.shape[-1:])


class Cache:
    """Keys and values of the positions read so far, as many in each row."""

    def __init__(self, layers: int, positions: int) -> None:
        self.layers, self.positions = layers, positions
        self.length = 0
        self._past: Tensor | None = None  # (2, layers, B, heads, positions, D)

    def extend(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Append a layer's k and v (B, heads, T, D); return those of all positions so far."""
        if self._past is None:
            rows, heads, _, features = k.shape
            self._past = k.new_zeros(2, self.layers, rows, heads, self.positions, features)
        end = self.length + k.shape[2]
        past = self._past[:, layer]
        past[0, :, :, self.length : end] = k
        past[1, :, :, self.length : end] = v
        return past[0, :, :, :end], past[1, :, :, :end]


class Block(nn.Module):
    """x + attention(norm(x)), then x + W2 gelu(W1 norm(x))."""

    def __init__(self, params: Params, layer: int) -> None:
        super().__init__()
        self.layer, self.heads = layer, params.heads
        width = params.width
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.attention_out = nn.Linear(width, width, bias=False)
        self.up = nn.Linear(width, 4 * width, bias=False)
        self.out = nn.Linear(4 * width, width, bias=False)
        self.dropout = nn.Dropout(params.dropout)

    def forward(self, x: Tensor, cache: Cache | None) -> Tensor:
        """(B, T, C) to the same."""
        x = x + self.dropout(self.attention_out(self._attend(norm(x), cache)))
        hidden = functional.gelu(self.up(norm(x)), approximate="tanh")
        return x + cast(Tensor, self.dropout(self.out(hidden)))

    def _attend(self, x: Tensor, cache: Cache | None) -> Tensor:
        rows, length, width = x.shape
        parts = self.qkv(x).view(rows, length, 3, self.heads, width // self.heads)
        q, k, v = parts.permute(2, 0, 3, 1, 4)  # each (B, heads, T, D)
        q, k = norm(q), norm(k)
        if cache is not None:
            k, v = cache.extend(self.layer, k, v)
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=length > 1)
        return y.transpose(1, 2).reshape(rows, length, width)


class Prior(nn.Module):
    """p(image tokens | caption tokens), factorised autoregressively."""

    def __init__(self, params: Params, *, words: int, tokens: int, grid: int) -> None:
        super().__init__()
        width = params.width
        self.words = nn.Embedding(words, width)
        self.word_places = nn.Parameter(torch.zeros(params.caption_length, width))
        self.start = nn.Parameter(torch.zeros(1, 1, width))
        self.tokens = nn.Embedding(tokens, width)
        self.rows = nn.Parameter(torch.zeros(grid, 1, width))
        self.columns = nn.Parameter(torch.zeros(1, grid, width))
        self.blocks = nn.ModuleList(Block(params, layer) for layer in range(params.layers))
        self.head = nn.Linear(width, tokens, bias=False)
        self._initialise()

    def forward(self, captions: Tensor, tokens: Tensor) -> Tensor:
        """Logits float32 (B, N, V) of tokens (B, N), given those before and captions (B, T)."""
        x = torch.cat((self._embed_caption(captions), self._embed_image(tokens[:, :-1], 0)), 1)
        return self._logits(x, None, tokens.shape[1])

    def cache(self, captions: Tensor) -> Cache:
        """An empty cache with room for captions of this length and an image."""
        tokens = self.rows.shape[0] * self.columns.shape[1]
        return Cache(len(self.blocks), captions.shape[1] + tokens)

    def prefill(self, captions: Tensor, cache: Cache) -> Tensor:
        """Logits (B, V) of the first token after the captions (B, T)."""
        return self._logits(self._embed_caption(captions), cache, 1)[:, 0]

    def step(self, token: Tensor, place: int, cache: Cache) -> Tensor:
        """Logits (B, V) of the token after `token` (B,), the image's token number `place`."""
        return self._logits(self._embed_image(token[:, None], place), cache, 1)[:, 0]

    def _embed_caption(self, captions: Tensor) -> Tensor:
        words = self.words(captions) + self.word_places[: captions.shape[1]]  # (B, T, C)
        return torch.cat((words, self.start.expand(len(words), 1, -1)), 1)  # (B, T + 1, C)

    def _embed_image(self, tokens: Tensor, first: int) -> Tensor:
        """Tokens (B, n) from number `first` on, (B, n, C)."""
        places = (self.rows + self.columns).flatten(0, 1)[first : first + tokens.shape[1]]
        return cast(Tensor, self.tokens(tokens) + places)

    def _logits(self, x: Tensor, cache: Cache | None, last: int) -> Tensor:
        """Logits of the tokens after the `last` positions of x (B, T, C)."""
        x = norm(x)
        for block in self.blocks:
            x = block(x, cache)
        if cache is not None:
            cache.length += x.shape[1]
        return cast(Tensor, self.head(norm(x[:, -last:]))).float()

    def _initialise(self) -> None:
        """Scale matrices by fan-in; zero the head and the ends of residual branches."""
        for name, parameter in self.named_parameters():
            if name.endswith("out.weight") or name == "head.weight":
                nn.init.zeros_(parameter)
            elif name.startswith("blocks."):
                nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5)
            else:
                nn.init.normal_(parameter, std=0.5)
