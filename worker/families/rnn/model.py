"""The recurrent network of `rnn`: embedding, LSTM or GRU layers, the embedding again as output.

Read from top to bottom: layers, the state that training carries, network, decoder.
"""

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
PARTS = {"lstm": 2, "gru": 1}  # of a state


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
        """From inputs (T, B, C) and the state before them: outputs (T, B, H), the state after."""
        if x.device.type == "cpu":
            return self._read(x, state)
        # autocast has cuDNN's layers compute in fp16, asked or not, where small gradients vanish
        with torch.autocast(x.device.type, enabled=False):
            return self._read(x.float(), state)

    def _read(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        hidden = state.to(x.dtype).chunk(self.parts)  # each (1, B, H)
        if self.parts == 1:
            return cast(tuple[Tensor, Tensor], self.unit(x, *hidden))
        y, after = self.unit(x, hidden)
        return y, torch.cat(after)

    def _initialise(self, features: int, width: int) -> None:
        """Matrices by their fan-in. A gate that keeps the state begins open (Gers et al. 1999)."""
        inward, recurrent, *biases = self.unit.parameters()
        nn.init.normal_(inward, std=features**-0.5)
        nn.init.normal_(recurrent, std=width**-0.5)
        for bias in biases:
            nn.init.zeros_(bias)
        # the second gate: the LSTM's forget gate, and the GRU's update gate; both keep at 1
        nn.init.ones_(biases[0][width : 2 * width])


class Carried(nn.Module):
    """The state that each lane's last window ended with: in checkpoints, and in no version.

    It is in `state_dict()` while there is one, and gone after a load that brings none.
    """

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("state", None)
        self.state: Tensor | None

    def _load_from_state_dict(self, state_dict: Mapping[str, Tensor], prefix: str, *_: Any) -> None:
        found = state_dict.get(f"{prefix}state")
        self.state = None if found is None else found.clone()


class Recurrent(TextNetwork):
    """The network of family `rnn`; its parameters are an `RnnParams`, its data int64 (B, T + 1).

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
        """AdamW, with Muon for the layers' matrices where asked."""
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
            # scaled to the size of AdamW's updates: Liu et al. 2025, arXiv:2502.16982
            scale, lr = "match_rms_adamw", self.params.muon_lr
            made["muon"] = torch.optim.Muon(muon, lr=lr, weight_decay=decay, adjust_lr_fn=scale)
        return made

    def train_step(
        self, batch: Batch, optimizers: Mapping[str, torch.optim.Optimizer], clock: Clock
    ) -> Losses:
        """One update on the mean loss of the predicted tokens; the lanes' state is carried on."""
        self.zero_grad(set_to_none=True)
        loss, state = self._loss(batch.data, self._carried_to(batch.data))
        loss.backward()  # type: ignore[no-untyped-call]  # torch's own annotation is missing
        self.carried.state = state.detach()
        size = nn.utils.clip_grad_norm_(self.parameters(), self.params.clip)
        peaks = {"adamw": self.params.lr, "muon": self.params.muon_lr}
        for name, optimizer in optimizers.items():
            step(optimizer, peaks[name] * clock.rate * self._rate(clock))
        return {"loss": loss.detach(), "gradient_norm": size.detach()}

    def end_training(self) -> None:
        """Forget the lanes' state."""
        self.carried.state = None

    def validate(self, batch: Batch) -> Losses:
        """`loss` in nats a token; with the tokenizer at hand also in nats a character.

        An unknown token counts as one character, also where it stands for a word.
        """
        loss, _ = self._loss(batch.data, self.start(len(batch.data)))
        made = batch.data[:, 1:]
        return self.losses(loss, made[made >= 0])

    def decoder(self, slots: int) -> "StateDecoder":
        """A recurrent state for each slot."""
        return StateDecoder(self, slots)

    def start(self, rows: int) -> Tensor:
        """The state of rows that have read nothing: zeros."""
        settings = self.params
        return self.bias.new_zeros(settings.layers, PARTS[settings.cell], rows, settings.width)

    def forward(self, ids: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Read ids (B, T) on from a state: features of what follows (B, T, H), the state after."""
        # times sqrt(E), so that features of size 1 go in and a matrix fit for logits is shared
        x = self._dropped(self.embedding(ids.T) * math.sqrt(self.params.embedding))  # (T, B, E)
        after = []
        for layer, before in zip(self.layers, state, strict=True):
            x, its_own = layer(x, before)
            x = self._dropped(x)  # (T, B, H)
            after.append(its_own)
        return self.norm(x).transpose(0, 1), torch.stack(after).float()

    def logits(self, features: Tensor) -> Tensor:
        """Logits float32 (..., V) by the tokens' embeddings, as they went in (Press, Wolf 2016)."""
        return functional.linear(self.project(features), self.embedding.weight, self.bias).float()

    def _loss(self, data: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Mean cross-entropy in nats, and the state after.

        `~t` in data (B, T + 1) is read as t and not predicted.
        """
        features, state = self(torch.maximum(data, ~data)[:, :-1], state)
        predicted = data[:, 1:] >= 0
        logits = self.logits(features[predicted])  # (N, V)
        total = functional.cross_entropy(logits, data[:, 1:][predicted], reduction="sum")
        return total / predicted.sum().clamp(min=1), state

    def _carried_to(self, data: Tensor) -> Tensor:
        """The state that the rows go on from: nothing where a row begins a document."""
        state = self.carried.state
        if state is None or state.shape[2] != len(data):
            return self.start(len(data))
        begins = torch.maximum(data, ~data)[:, 0] == Tokenizer.end
        return state.to(data.device).masked_fill(begins[:, None], 0.0)

    def _dropped(self, x: Tensor) -> Tensor:
        """Dropout of whole features of x (T, B, C), the same at each T (Gal, Ghahramani 2015)."""
        if not self.training or not self.params.dropout:
            return x
        return x * functional.dropout(x.new_ones(1, *x.shape[1:]), self.params.dropout)

    def _rate(self, clock: Clock) -> float:
        """One cycle: linear warm-up, then a cosine to almost nothing (Smith, Topin 2017)."""
        # a thousandth ahead, for the first step has no progress and should move too
        warm = (clock.progress + 1e-3) / max(self.params.warmup, 1e-3)
        return min(warm, 1) * cosine(clock.progress)


class StateDecoder:
    """The state of each slot's text; see `worker.networks.decoding.Decoder`."""

    context = None

    def __init__(self, network: Recurrent, slots: int) -> None:
        self.network = network
        self.state = network.start(slots)

    def reset(self, slot: int) -> None:
        """Forget what a slot has read."""
        self.state[:, :, slot] = 0

    def read(self, tokens: Tensor) -> Tensor:
        """Each slot reads one token more, int64 (B,): logits of the next ones, float32 (B, V)."""
        features, self.state = self.network(tokens[:, None], self.state)
        return self.network.logits(features[:, 0])


NETWORK = Recurrent
