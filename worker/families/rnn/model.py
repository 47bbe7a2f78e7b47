"""The recurrent network of `rnn`: embedding, LSTM or GRU layers, tied output embedding."""

import math
from collections.abc import Mapping
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from worker.data.dataset import Shape
from worker.families.rnn import RnnParams
from worker.feeds.stateful import StatefulFeed
from worker.feeds.tokenizer import Tokenizer
from worker.networks.learning_rates import cosine, step
from worker.networks.network import Batch, Clock, Losses
from worker.networks.params import TrainingParams
from worker.networks.text_network import MakesFeed, TextNetwork

UNITS: dict[str, type[nn.LSTM] | type[nn.GRU]] = {"lstm": nn.LSTM, "gru": nn.GRU}
PARTS = {"lstm": 2, "gru": 1}  # tensors of a state


class Layer(nn.Module):
    """One LSTM (Hochreiter, Schmidhuber 1997) or GRU (Cho et al. 2014) layer.

    Its state is (P, B, H): an LSTM's hidden state and cell, P = 2, or a GRU's hidden state, P = 1.
    """

    def __init__(self, cell: str, features: int, width: int) -> None:
        super().__init__()
        self.parts = PARTS[cell]
        self.unit = UNITS[cell](features, width)
        self._initialise(features, width)

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """From inputs (T, B, C) and a state to outputs (T, B, H) and the state after them."""
        if x.device.type == "cpu":
            return self._run(x, state)
        # autocast would run cuDNN's layers in fp16, in which small gradients vanish
        with torch.autocast(x.device.type, enabled=False):
            return self._run(x.float(), state)

    def _run(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        hidden = state.to(x.dtype).chunk(self.parts)  # each (1, B, H)
        if self.parts == 1:
            return cast(tuple[Tensor, Tensor], self.unit(x, *hidden))
        y, after = self.unit(x, hidden)
        return y, torch.cat(after)

    def _initialise(self, features: int, width: int) -> None:
        """Scale matrices by fan-in; start with open forget gates (Gers et al. 1999)."""
        inward, recurrent, *biases = self.unit.parameters()
        nn.init.normal_(inward, std=features**-0.5)
        nn.init.normal_(recurrent, std=width**-0.5)
        for bias in biases:
            nn.init.zeros_(bias)
        # the second gate is the LSTM's forget or the GRU's update gate; both keep the state at 1
        nn.init.ones_(biases[0][width : 2 * width])


class Carried(nn.Module):
    """The state after each row's last window, saved in checkpoints but not in versions.

    It is part of `state_dict()` while it is not None; loading weights without it resets it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("state", None)
        self.state: Tensor | None

    def _load_from_state_dict(self, state_dict: Mapping[str, Tensor], prefix: str, *_: Any) -> None:
        found = state_dict.get(f"{prefix}state")
        self.state = None if found is None else found.clone()


class Recurrent(TextNetwork):
    """The network of family `rnn`; its data are tokens int64 (B, T + 1).

    A state is (layers, P, B, H), as in `Layer`.
    """

    params: RnnParams
    makes_feed: ClassVar[MakesFeed] = StatefulFeed

    def __init__(self, params: TrainingParams, shape: Shape) -> None:
        super().__init__(params, shape)
        cell, E, H = self.params.cell, self.params.embedding, self.params.width
        self.embedding = nn.Embedding(shape.vocabulary, E)
        self.layers = nn.ModuleList(
            Layer(cell, H if i else E, H) for i in range(self.params.layers)
        )
        self.norm = nn.LayerNorm(H)
        self.project = nn.Identity() if E == H else nn.Linear(H, E, bias=False)
        self.bias = nn.Parameter(torch.zeros(shape.vocabulary))
        self.carried = Carried()
        for matrix in (self.embedding.weight, *self.project.parameters()):
            nn.init.normal_(matrix, std=matrix.shape[1] ** -0.5)

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """AdamW, and Muon for the layers' matrices if asked."""
        lr, decay = self.params.lr, self.params.weight_decay
        inner = [p for p in self.layers.parameters() if p.ndim == 2]
        muon = inner if self.params.optimizer == "muon" else []
        others = [p for p in self.parameters() if not any(p is matrix for matrix in muon)]
        groups = [
            {"params": [p for p in others if p.ndim == 2], "weight_decay": decay},
            {"params": [p for p in others if p.ndim == 1], "weight_decay": 0.0},
        ]
        made: dict[str, torch.optim.Optimizer] = {
            "adamw": torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.99), fused=True)
        }
        if muon:
            # updates as large as AdamW's: Liu et al. 2025, arXiv:2502.16982
            scale, lr = "match_rms_adamw", self.params.muon_lr
            made["muon"] = torch.optim.Muon(muon, lr=lr, weight_decay=decay, adjust_lr_fn=scale)
        return made

    def train_step(
        self, batch: Batch, optimizers: Mapping[str, torch.optim.Optimizer], clock: Clock
    ) -> Losses:
        """One update on the mean loss of the predicted tokens; carries each row's state over."""
        self.zero_grad(set_to_none=True)
        loss, state = self._loss(batch.data, self._carried_state(batch.data))
        loss.backward()  # type: ignore[no-untyped-call]  # torch's own annotation is missing
        self.carried.state = state.detach()
        size = nn.utils.clip_grad_norm_(self.parameters(), self.params.clip)
        peaks = {"adamw": self.params.lr, "muon": self.params.muon_lr}
        for name, optimizer in optimizers.items():
            step(optimizer, peaks[name] * clock.rate * self._rate(clock))
        return {"loss": loss.detach(), "gradient_norm": size.detach()}

    def end_training(self) -> None:
        """Drop the carried state."""
        self.carried.state = None

    def validate(self, batch: Batch) -> Losses:
        """`loss` in nats per token and, with a tokenizer, in nats per character.

        An unknown token counts as one character, even if it stands for a word.
        """
        loss, _ = self._loss(batch.data, self.start(len(batch.data)))
        targets = batch.data[:, 1:]
        return self.losses(loss, targets[targets >= 0])

    def decoder(self, slots: int) -> "StateDecoder":
        """A recurrent state for each slot."""
        return StateDecoder(self, slots)

    def start(self, rows: int) -> Tensor:
        """The initial state: zeros."""
        settings = self.params
        return self.bias.new_zeros(settings.layers, PARTS[settings.cell], rows, settings.width)

    def forward(self, ids: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """From ids (B, T) and a state to features (B, T, H) and the state after them."""
        # times sqrt(E): the input has unit scale, while the shared matrix suits the logits
        x = self._dropout(self.embedding(ids.T) * math.sqrt(self.params.embedding))  # (T, B, E)
        after = []
        for layer, before in zip(self.layers, state, strict=True):
            x, layer_state = layer(x, before)
            x = self._dropout(x)  # (T, B, H)
            after.append(layer_state)
        return self.norm(x).transpose(0, 1), torch.stack(after).float()

    def logits(self, features: Tensor) -> Tensor:
        """Logits float32 (..., V) by the tied embeddings (Press, Wolf 2016)."""
        return functional.linear(self.project(features), self.embedding.weight, self.bias).float()

    def _loss(self, data: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Mean cross-entropy in nats, and the state after data (B, T + 1); `~t` is context only."""
        features, state = self(torch.maximum(data, ~data)[:, :-1], state)
        predicted = data[:, 1:] >= 0
        logits = self.logits(features[predicted])  # (N, V)
        total = functional.cross_entropy(logits, data[:, 1:][predicted], reduction="sum")
        return total / predicted.sum().clamp(min=1), state

    def _carried_state(self, data: Tensor) -> Tensor:
        """The state before data (B, T + 1), reset in rows that begin with `end`."""
        state = self.carried.state
        if state is None or state.shape[2] != len(data):
            return self.start(len(data))
        begins = torch.maximum(data, ~data)[:, 0] == Tokenizer.end
        return state.to(data.device).masked_fill(begins[:, None], 0.0)

    def _dropout(self, x: Tensor) -> Tensor:
        """Dropout of x (T, B, C) with the same mask at each t (Gal, Ghahramani 2015)."""
        if not self.training or not self.params.dropout:
            return x
        return x * functional.dropout(x.new_ones(1, *x.shape[1:]), self.params.dropout)

    def _rate(self, clock: Clock) -> float:
        """One cycle: linear warm-up, then a cosine to almost zero (Smith, Topin 2017)."""
        # plus a thousandth, so that the first step has a rate above zero
        warm = (clock.progress + 1e-3) / max(self.params.warmup, 1e-3)
        return min(warm, 1) * cosine(clock.progress)


class StateDecoder:
    """A `Decoder` that holds the state of each slot's text."""

    context = None

    def __init__(self, network: Recurrent, slots: int) -> None:
        self.network = network
        self.state = network.start(slots)

    def reset(self, slot: int) -> None:
        """Reset a slot."""
        self.state[:, :, slot] = 0

    def read(self, tokens: Tensor) -> Tensor:
        """Read one token per slot, int64 (B,); return the next ones' logits, float32 (B, V)."""
        features, self.state = self.network(tokens[:, None], self.state)
        return self.network.logits(features[:, 0])


NETWORK = Recurrent
