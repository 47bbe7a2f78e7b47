"""The blocks of `gpt`: RoPE, RMSNorm without gains, QK-norm, no biases.

A pre-norm decoder: Vaswani et al. 2017, with the norms placed as in Xiong et al. 2020. From top to
bottom: rotation, attention, feed-forward, block.
"""

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from worker.families.gpt import GptParams
from worker.families.gpt.attention import AttentionMode
from worker.families.gpt.linear import Linear

Angles = tuple[Tensor, Tensor]  # cosines and sines


def norm(x: Tensor) -> Tensor:
    """RMSNorm over the last dimension, without gains (Zhang, Sennrich 2019)."""
    return functional.rms_norm(x, x.shape[-1:])


class Rotation(nn.Module):
    """Rotary positions (Su et al. 2021): pair j of D turns by position / 10000^(2j / D)."""

    def __init__(self, features: int, positions: int) -> None:
        super().__init__()
        rates = 10_000.0 ** -(torch.arange(0, features, 2) / features)
        angles = torch.arange(positions)[:, None] * rates  # (T, D / 2)
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)

    def forward(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines of positions (B, T), each (B, 1, T, D / 2)."""
        cos, sin = cast(Tensor, self.cos), cast(Tensor, self.sin)
        return cos[positions][:, None], sin[positions][:, None]


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the pairs of x (B, heads, T, D)."""
    cos, sin = cos.to(x.dtype), sin.to(x.dtype)
    a, b = x.chunk(2, dim=-1)  # (B, heads, T, D / 2)
    return torch.cat((a * cos - b * sin, a * sin + b * cos), dim=-1)


class Attention(nn.Module):
    """Causal self-attention with normalised queries and keys (Henry et al. 2020)."""

    def __init__(self, params: GptParams) -> None:
        super().__init__()
        self.heads = params.heads
        self.qkv = Linear(params.width, 3 * params.width)
        self.out = Linear(params.width, params.width)

    def forward(self, x: Tensor, angles: Angles, mode: AttentionMode, layer: int) -> Tensor:
        """Attend from x (B, T, C) to the positions that `mode` makes visible."""
        B, T, C = x.shape  # noqa: N806 - the papers' names
        parts = self.qkv(x).view(B, T, 3, self.heads, C // self.heads)
        q, k, v = parts.permute(2, 0, 3, 1, 4)  # each (B, heads, T, D)
        y = mode.attend(layer, rotate(norm(q), *angles), rotate(norm(k), *angles), v)
        return cast(Tensor, self.out(y.transpose(1, 2).reshape(B, T, C)))


class FeedForward(nn.Module):
    """W2 relu(W1 x)^2 (So et al. 2021), or the gated W3 (silu(W1 x) * W2 x) (Shazeer 2020)."""

    def __init__(self, params: GptParams) -> None:
        super().__init__()
        self.gated = params.activation == "swiglu"
        # two thirds of the width, so that three matrices have as many weights as two
        hidden = 8 * math.ceil(params.width / 3) if self.gated else 4 * params.width
        self.up = Linear(params.width, 2 * hidden if self.gated else hidden)
        self.out = Linear(hidden, params.width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) to (B, T, C)."""
        if self.gated:
            gate, value = self.up(x).chunk(2, dim=-1)
            return cast(Tensor, self.out(functional.silu(gate) * value))
        return cast(Tensor, self.out(functional.relu(self.up(x)).square()))


class Block(nn.Module):
    """x + attention(norm(x)), then x + feed-forward(norm(x))."""

    def __init__(self, params: GptParams, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.attention = Attention(params)
        self.feed_forward = FeedForward(params)
        self.dropout = nn.Dropout(params.dropout)

    def forward(self, x: Tensor, angles: Angles, mode: AttentionMode) -> Tensor:
        """Add both branches to x (B, T, C)."""
        x = x + self.dropout(self.attention(norm(x), angles, mode, self.layer))
        return x + cast(Tensor, self.dropout(self.feed_forward(norm(x))))
