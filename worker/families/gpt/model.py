"""The transformer of `gpt`: its network, loss, optimisers and rates."""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from worker.data.dataset import Shape
from worker.families.gpt import GptParams
from worker.families.gpt.attention import AttentionMode, FullAttention, PrefillChunk
from worker.families.gpt.blocks import Block, Rotation, norm
from worker.families.gpt.linear import Linear
from worker.feeds.tokens import TokenFeed
from worker.networks.kv_cache import DecodeStep, KVCache
from worker.networks.learning_rates import cosine, step, warm_up
from worker.networks.network import Batch, Clock, Losses
from worker.networks.params import TrainingParams
from worker.networks.text_network import MakesFeed, TextNetwork

IGNORED = -1
MAX_PREFILL = 63  # tokens of a prompt that one slot reads at once


class Transformer(TextNetwork):
    """The network of family `gpt`; its parameters are a `GptParams`, its data int64 (B, T + 1)."""

    params: GptParams
    makes_feed: ClassVar[MakesFeed] = TokenFeed

    def __init__(self, params: TrainingParams, shape: Shape) -> None:
        super().__init__(params, shape)
        settings = self.params
        self.embedding = nn.Embedding(shape.vocabulary, settings.width)
        self.rotation = Rotation(settings.width // settings.heads, settings.context)
        self.blocks = nn.ModuleList(Block(settings, i) for i in range(settings.layers))
        self.head = nn.Linear(settings.width, shape.vocabulary, bias=False)
        # matrices by their fan-in; zero for the head and for the ends of residual branches
        for name, matrix in self.named_parameters():  # the network has no others
            if name.endswith("out.weight") or name == "head.weight":
                nn.init.zeros_(matrix)
            else:
                nn.init.normal_(matrix, std=matrix.shape[1] ** -0.5)

    def begin_finetuning(self) -> None:
        """With a `lora_rank`, add adapters to the blocks' layers and freeze all else."""
        if self.params.lora_rank:
            self.requires_grad_(False)
            for layer in self._layers():
                layer.adapt(self.params.lora_rank, self.params.lora_alpha)

    def end_training(self) -> None:
        """Merge the adapters, if any."""
        for layer in self._layers():
            layer.merge()

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """AdamW, and by default Muon for the blocks; embedding and adapters do not decay."""
        lr, decay = self.params.lr, self.params.weight_decay
        if adapters := [p for layer in self._layers() for p in (layer.a, layer.b) if p is not None]:
            return {"adamw": _adamw([{"params": adapters, "weight_decay": 0.0}], lr)}
        inner, muon = [*self.blocks.parameters()], self.params.optimizer == "muon"
        decayed = [self.head.weight, *([] if muon else inner)]
        groups = [
            {"params": decayed, "weight_decay": decay},
            {"params": [self.embedding.weight], "weight_decay": 0.0},
        ]
        made = {"adamw": _adamw(groups, lr)}
        if muon:
            # scaled like AdamW's updates (Liu et al. 2025), so that one rate serves both
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
        share = warm_up(clock, self.params.warmup) * cosine(clock.progress)
        for optimizer in optimizers.values():
            step(optimizer, self.params.lr * clock.rate * share)
        return {"loss": loss.detach(), "gradient_norm": size.detach()}

    def validate(self, batch: Batch) -> Losses:
        """`loss` in nats a token and, if the tokenizer is loaded, in nats a character."""
        targets = batch.data[:, 1:]
        return self.losses(self._loss(batch.data), targets[targets >= 0])

    def has_parallel_streams(self) -> bool:
        """Yes: see `Network.has_parallel_streams`."""
        return True

    def decoder(self, slots: int) -> "CachedDecoder":
        """A decoder with a cache of keys and values."""
        return CachedDecoder(self, slots)

    def forward(self, ids: Tensor, mode: AttentionMode | None = None) -> Tensor:
        """Logits float32 (B, T, V) of the tokens that follow ids (B, T)."""
        return cast(Tensor, self.head(self.read(ids, mode or FullAttention(ids)))).float()

    def read(self, ids: Tensor, mode: AttentionMode) -> Tensor:
        """The features (B, T, C) of ids (B, T), at the positions of `mode`."""
        x, angles = norm(self.embedding(ids)), self.rotation(mode.positions)  # (B, T, C)
        for block in self.blocks:
            x = block(x, angles, mode)
        return norm(x)

    def _loss(self, data: Tensor) -> Tensor:
        """Mean cross-entropy in nats; `~t` in data (B, T + 1) is read as t and not predicted."""
        ids = torch.maximum(data, ~data)[:, :-1]
        targets = torch.where(data < 0, IGNORED, data)[:, 1:]
        logits = self(ids)
        total = functional.cross_entropy(
            logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="sum"
        )
        return total / (targets >= 0).sum().clamp(min=1)

    def _layers(self) -> Iterator[Linear]:
        return (module for module in self.modules() if isinstance(module, Linear))


class CachedDecoder:
    """A `PrefillDecoder`: the network, and a cache of what its slots have read."""

    def __init__(self, network: Transformer, slots: int) -> None:
        self.network, self.context = network, network.params.context
        device = network.embedding.weight.device
        self.cache = KVCache(network.params.layers, slots, self.context, device)
        # a slot that is reset to the last half of its text keeps one token for the next step
        self.prefill_size = min(self.context // 2 - 1, MAX_PREFILL)

    def reset(self, slot: int) -> None:
        """Forget what a slot has read."""
        self.cache.reset(slot)

    def read(self, tokens: Tensor) -> Tensor:
        """See `Decoder.read`."""
        logits = self.network(tokens[:, None], DecodeStep(self.cache))[:, 0]
        self.cache.lengths = [length + 1 for length in self.cache.lengths]
        return cast(Tensor, logits)

    def prefill(self, slot: int, tokens: Tensor) -> None:
        """See `PrefillDecoder.prefill`."""
        self.network.read(tokens[None], PrefillChunk(self.cache, slot, len(tokens)))
        self.cache.lengths[slot] += len(tokens)


def _adamw(groups: list[dict[str, Any]], lr: float) -> torch.optim.Optimizer:
    return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.95), fused=True)


NETWORK = Transformer
