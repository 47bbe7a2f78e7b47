"""The transformer of `gpt`: RoPE, RMSNorm without gains, QK-norm, no biases, outputs from zero.

A pre-norm decoder (Vaswani et al. 2017, in the order of Xiong et al. 2020), read from top to
bottom: rotation, cache, attention, feed-forward, block, network.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from worker.data.feed import TRAIN, LocalDataset, Shape
from worker.data.tokenizer import FILE, Tokenizer, learn_tokenizer, load_tokenizer
from worker.data.tokens import Texts, TokenFeed
from worker.families import SamplingParams, TrainingParams
from worker.families.gpt import GptParams, GptSampling
from worker.families.gpt.cache import Cache
from worker.families.gpt.writing import write_texts
from worker.families.network import Batch, Clock, Draw, Losses, Network, Output, Row

IGNORED = -1
FINAL_RATE = 0.02  # of the peak learning rate, at the end of the budget


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

    def forward(self, x: Tensor, start: int) -> Tensor:
        """Turn x (B, heads, T, D), whose first position is `start`."""
        cos = cast(Tensor, self.cos)[start : start + x.shape[2]].to(x.dtype)
        sin = cast(Tensor, self.sin)[start : start + x.shape[2]].to(x.dtype)
        a, b = x.chunk(2, dim=-1)  # (B, heads, T, D / 2)
        return torch.cat((a * cos - b * sin, a * sin + b * cos), dim=-1)


class Attention(nn.Module):
    """Causal self-attention with normalised queries and keys (Henry et al. 2020)."""

    def __init__(self, params: GptParams) -> None:
        super().__init__()
        self.heads = params.heads
        self.qkv = nn.Linear(params.width, 3 * params.width, bias=False)
        self.out = nn.Linear(params.width, params.width, bias=False)

    def forward(self, x: Tensor, rotation: Rotation, cache: Cache | None, layer: int) -> Tensor:
        """Attend in x (B, T, C), with a cache to what it holds too; it keeps T more positions."""
        B, T, C = x.shape
        parts = self.qkv(x).view(B, T, 3, self.heads, C // self.heads)
        q, k, v = parts.permute(2, 0, 3, 1, 4)  # each (B, heads, T, D)
        start = cache.length if cache else 0
        q, k = rotation(norm(q), start), rotation(norm(k), start)
        if cache:
            k, v = cache.extend(layer, k, v)
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=T > 1)
        return cast(Tensor, self.out(y.transpose(1, 2).reshape(B, T, C)))


class FeedForward(nn.Module):
    """W2 relu(W1 x)^2 (So et al. 2021), or the gated W3 (silu(W1 x) * W2 x) (Shazeer 2020)."""

    def __init__(self, params: GptParams) -> None:
        super().__init__()
        self.gated = params.activation == "swiglu"
        # two thirds of the width, so that the three matrices weigh as much as the two
        hidden = 8 * math.ceil(params.width / 3) if self.gated else 4 * params.width
        self.up = nn.Linear(params.width, 2 * hidden if self.gated else hidden, bias=False)
        self.out = nn.Linear(hidden, params.width, bias=False)

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

    def forward(self, x: Tensor, rotation: Rotation, cache: Cache | None) -> Tensor:
        """Add both branches to x (B, T, C)."""
        x = x + self.dropout(self.attention(norm(x), rotation, cache, self.layer))
        return x + cast(Tensor, self.dropout(self.feed_forward(norm(x))))


class Transformer(Network):
    """The network of family `gpt`; its parameters are a `GptParams`, its data int64 (B, T + 1)."""

    params: GptParams

    def __init__(self, params: TrainingParams, shape: Shape) -> None:
        super().__init__(params, shape)
        settings = self.params
        self.tokenizer: Tokenizer | None = None
        self.embedding = nn.Embedding(shape.vocabulary, settings.width)
        self.rotation = Rotation(settings.width // settings.heads, settings.context)
        self.blocks = nn.ModuleList(Block(settings, i) for i in range(settings.layers))
        self.head = nn.Linear(settings.width, shape.vocabulary, bias=False)
        self._initialise()

    @classmethod
    def feed(
        cls, params: TrainingParams, dataset: LocalDataset, *, seed: int, files: Path
    ) -> TokenFeed:
        """Windows of tokens; `tokenizer.json` is read from `files`, or learnt and written there."""
        settings = cast(GptParams, params)
        if not (files / FILE).exists():
            learn_tokenizer(
                Texts(dataset, TRAIN), kind=settings.tokenizer, vocabulary=settings.vocabulary
            ).save(files)
        return TokenFeed(
            dataset,
            load_tokenizer(files),
            context=settings.context,
            batch_size=settings.batch_size,
            seed=seed,
        )

    def load_files(self, folder: Path) -> None:
        """Read the tokenizer, without which no text can be made."""
        self.tokenizer = load_tokenizer(folder)

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """AdamW, with Muon for the blocks where asked; the embedding alone has no decay."""
        lr, decay = self.params.lr, self.params.weight_decay
        inner, muon = [*self.blocks.parameters()], self.params.optimizer == "muon"
        decayed = [self.head.weight, *([] if muon else inner)]
        groups = [
            {"params": decayed, "weight_decay": decay},
            {"params": [self.embedding.weight], "weight_decay": 0.0},
        ]
        made: dict[str, torch.optim.Optimizer] = {
            "adamw": torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.95), fused=True)
        }
        if muon:
            # scaled to the size of AdamW's updates (Liu et al. 2025), so one rate serves both
            scale = "match_rms_adamw"
            made["muon"] = torch.optim.Muon(inner, lr=lr, weight_decay=decay, adjust_lr_fn=scale)
        return made

    def train_step(
        self, batch: Batch, optimizers: Mapping[str, torch.optim.Optimizer], clock: Clock
    ) -> Losses:
        """One update on the mean loss of the predicted tokens."""
        self.zero_grad(set_to_none=True)
        loss = self._loss(batch.data)
        loss.backward()  # type: ignore[no-untyped-call]  # torch's own annotation is missing
        size = nn.utils.clip_grad_norm_(self.parameters(), self.params.clip)
        for optimizer in optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = self.params.lr * clock.rate * self._rate(clock)
            optimizer.step()
        return {"loss": loss.detach(), "gradient_norm": size.detach()}

    def validate(self, batch: Batch) -> Losses:
        """`loss` in nats a token; with the tokenizer at hand also in nats a character."""
        loss = self._loss(batch.data)
        if self.tokenizer is None:
            return {"loss": loss}
        made = batch.data[:, 1:]
        lengths = torch.tensor([len(piece) for piece in self.tokenizer.pieces], device=made.device)
        characters = lengths[made[made >= 0]].sum().clamp(min=1)
        return {"loss": loss, "nats_per_character": loss * (made >= 0).sum() / characters}

    def sample(self, rows: Sequence[Row], draw: Draw, sampling: SamplingParams) -> list[Output]:
        """Continue each row's prompt; what is returned is the continuation alone."""
        if self.tokenizer is None:
            raise RuntimeError("load_files() comes before sample(): the tokenizer is missing")
        prompts = [row.prompt or "" for row in rows]
        return [*write_texts(self, prompts, draw, cast(GptSampling, sampling))]

    def forward(self, ids: Tensor, cache: Cache | None = None) -> Tensor:
        """Logits float32 (B, T, V) of the tokens that follow ids (B, T)."""
        x = norm(self.embedding(ids))  # (B, T, C)
        for block in self.blocks:
            x = block(x, self.rotation, cache)
        return cast(Tensor, self.head(norm(x))).float()

    def _loss(self, data: Tensor) -> Tensor:
        """Mean cross-entropy in nats; `~t` in data (B, T + 1) is read as t and not predicted."""
        ids = torch.maximum(data, ~data)[:, :-1]
        targets = torch.where(data < 0, IGNORED, data)[:, 1:]
        logits = self(ids)
        total = functional.cross_entropy(
            logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="sum"
        )
        return total / (targets >= 0).sum().clamp(min=1)

    def _rate(self, clock: Clock) -> float:
        """Linear warm-up, then a cosine to almost nothing (Loshchilov, Hutter 2016)."""
        warm = max((clock.step + 1) / max(self.params.warmup, 1), clock.progress / 0.1)
        cosine = (1 + math.cos(math.pi * min(clock.progress, 1))) / 2
        return min(warm, 1) * (FINAL_RATE + (1 - FINAL_RATE) * cosine)

    def _initialise(self) -> None:
        """Matrices by their fan-in; what ends a residual branch, and the head, from zero."""
        for name, matrix in self._matrices():
            if name.endswith("out.weight") or name == "head.weight":
                nn.init.zeros_(matrix)
            else:
                nn.init.normal_(matrix, std=matrix.shape[1] ** -0.5)

    def _matrices(self) -> Iterator[tuple[str, Tensor]]:
        return ((name, p) for name, p in self.named_parameters() if p.ndim == 2)


NETWORK = Transformer
