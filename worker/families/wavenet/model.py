"""WaveNet: p(x) as a product of softmaxes, each over the 256 codes that a sample may have.

van den Oord et al. 2016, arXiv:1609.03499, read from top to bottom: a layer (figure 4 and equation
3), the network, its loss. Convolutions are "valid": a sample is predicted only where its whole
receptive field is given, with a code of its own before a sound's first sample.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from worker.data.feed import TRAIN, Feed, LocalDataset, Shape
from worker.data.mulaw import CODES
from worker.data.sounds import Habits, SoundFeed, Sounds
from worker.families import SamplingParams, TrainingParams
from worker.families.network import (
    Batch,
    Clock,
    Draw,
    Draws,
    Losses,
    Made,
    Network,
    Output,
    Row,
)
from worker.families.wavenet import WaveNetParams, WaveNetSampling
from worker.families.wavenet.sounding import make_sounds

IGNORED = -1
FINAL_RATE = 0.02  # of the peak learning rate, at the end of the budget


class Layer(nn.Module):
    """z = tanh(W_f * x + V_f h) . sigmoid(W_g * x + V_g h) (equation 3), then 1x1 to x and skip.

    `*` is a causal convolution of two taps, `dilation` apart; h is one-hot, so V h is an embedding.
    """

    def __init__(self, params: WaveNetParams, dilation: int, labels: int) -> None:
        super().__init__()
        self.dilation = dilation
        self.dilated = nn.Conv1d(params.channels, 2 * params.channels, 2, dilation=dilation)
        self.condition = nn.Embedding(max(labels, 1), 2 * params.channels)
        self.residual = nn.Conv1d(params.channels, params.channels, 1, bias=False)
        self.skip = nn.Conv1d(params.channels, params.skip, 1)
        nn.init.zeros_(self.condition.weight)

    def forward(self, x: Tensor, labels: Tensor, length: int) -> tuple[Tensor, Tensor]:
        """The stream x (B, C, T), `dilation` shorter, and the last `length` of the skip."""
        both = self.dilated(x) + self.condition(labels)[:, :, None]  # (B, 2C, T - dilation)
        filtered, gate = both.chunk(2, dim=1)
        z = torch.tanh(filtered) * torch.sigmoid(gate)
        x = x[:, :, self.dilation :] + self.residual(z)
        return x, self.skip(z[:, :, -length:])


class WaveNet(Network):
    """The network of family `wavenet`; its data are int64 (B, receptive + T) codes."""

    params: WaveNetParams

    def __init__(self, params: TrainingParams, shape: Shape) -> None:
        super().__init__(params, shape)
        settings = self.params
        self.habits = Habits()
        self.embedding = nn.Embedding(CODES + 1, settings.channels)  # NOTHING is the last
        self.layers = nn.ModuleList(
            Layer(settings, dilation, len(shape.labels)) for dilation in dilations(settings)
        )
        self.hidden = nn.Conv1d(settings.skip, settings.skip, 1)
        self.head = nn.Conv1d(settings.skip, CODES, 1)
        self._initialise()

    @classmethod
    def feed(cls, params: TrainingParams, dataset: LocalDataset, *, seed: int, files: Path) -> Feed:
        """Windows of codes; what these sounds are like is written to `files` as `sounds.json`."""
        settings = cast(WaveNetParams, params)
        shape = Shape.from_json(dataset.manifest["shape"])
        habits = Sounds(dataset, TRAIN).habits(shape.sample_rate)
        habits.save(files)
        return SoundFeed(
            dataset,
            habits,
            receptive=receptive_field(settings),
            context=settings.context,
            batch_size=settings.batch_size,
            seed=seed,
        )

    def load_files(self, folder: Path) -> None:
        """Read how long sounds are and how they end."""
        self.habits = Habits.load(folder)

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Adam."""
        lr = self.params.lr
        return {"adam": torch.optim.Adam(self.parameters(), lr=lr, betas=(0.9, 0.95), fused=True)}

    def train_step(
        self, batch: Batch, optimizers: Mapping[str, torch.optim.Optimizer], clock: Clock
    ) -> Losses:
        """One update on the mean loss of the predicted samples."""
        optimizer = optimizers["adam"]
        for group in optimizer.param_groups:
            group["lr"] = self.params.lr * clock.rate * self._rate(clock)
        optimizer.zero_grad(set_to_none=True)
        loss, _ = self._loss(batch)
        loss.backward()  # type: ignore[no-untyped-call]  # torch's own annotation is missing
        size = nn.utils.clip_grad_norm_(self.parameters(), self.params.clip)
        optimizer.step()
        return {"loss": loss.detach(), "gradient_norm": size.detach()}

    def validate(self, batch: Batch) -> Losses:
        """`loss` in nats a sample, and the same in bits."""
        loss, count = self._loss(batch)
        return {"loss": loss, "bits_per_sample": loss / math.log(2), "count": count}

    def sample(self, rows: Sequence[Row], draw: Draw, sampling: SamplingParams) -> list[Output]:
        """As `stream`, in the rows' order."""
        unique = {row.index: row for row in rows}
        draws = lambda indices: Draw(draw.seed, indices, draw.device)  # noqa: E731 - a plain argument
        steps = self.stream(iter(unique.values()), draws, sampling)
        made = {row.index: output for step in steps for row, output in step}
        return [made[row.index] for row in rows]

    def stream(
        self, rows: Iterator[Row], draw: Draws, sampling: SamplingParams
    ) -> Iterator[list[Made]]:
        """Sounds in [-1, 1], float32 (T,), each as long as it came out."""
        return make_sounds(self, rows, draw, cast(WaveNetSampling, sampling))

    def forward(self, codes: Tensor, labels: Tensor) -> Tensor:
        """Logits (B, T, 256) after each receptive field of codes (B, receptive + T - 1)."""
        length = codes.shape[1] - receptive_field(self.params) + 1
        x = self.embedding(codes).transpose(1, 2)  # (B, C, receptive + T - 1)
        skipped = torch.zeros((), device=codes.device)
        for layer in self.layers:
            x, skip = layer(x, labels, length)
            skipped = skipped + skip  # (B, skip, T)
        hidden = functional.relu(self.hidden(functional.relu(skipped)))
        return cast(Tensor, self.head(hidden)).transpose(1, 2)

    def _initialise(self) -> None:
        """Let codes that are near begin alike: waves over the 256 codes, slow and fast, in and out.

        A network that begins so need not learn 256 classes one by one.
        """
        place = (torch.arange(CODES) + 0.5) / CODES * torch.pi  # (256,)
        rates = 2.0 ** torch.linspace(0, 6, -(-self.params.channels // 2))
        waves = torch.cat((torch.cos(rates * place[:, None]), torch.sin(rates * place[:, None])), 1)
        orders = torch.arange(self.params.skip)
        falling = torch.cos(orders * place[:, None]) * 0.1 / (1 + orders / 16)  # (256, skip)
        with torch.no_grad():
            self.embedding.weight[:CODES] = waves[:, : self.params.channels]
            self.head.weight.copy_(falling[:, :, None])

    def _loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Mean cross-entropy in nats of the predicted samples, and their number."""
        codes = torch.maximum(batch.data, ~batch.data)[:, :-1]
        targets = torch.where(batch.data < 0, IGNORED, batch.data)
        targets = targets[:, receptive_field(self.params) :]  # (B, T)
        labels = batch.labels if batch.labels is not None else torch.zeros_like(codes[:, 0])
        logits = self(codes, labels).float()
        total = functional.cross_entropy(
            logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="sum"
        )
        count = (targets >= 0).sum().clamp(min=1)
        return total / count, count

    def _rate(self, clock: Clock) -> float:
        """Linear warm-up, then a cosine to almost nothing (Loshchilov, Hutter 2016)."""
        warm = max((clock.step + 1) / max(self.params.warmup, 1), clock.progress / 0.1)
        cosine = (1 + math.cos(math.pi * min(clock.progress, 1))) / 2
        return min(warm, 1) * (FINAL_RATE + (1 - FINAL_RATE) * cosine)


def dilations(params: WaveNetParams) -> list[int]:
    """The layers' dilations from first to last: 1, 2, 4, ... once a stack."""
    return [2**power for power in range(params.dilations)] * params.stacks


def receptive_field(params: WaveNetParams) -> int:
    """How many samples a prediction sees."""
    return sum(dilations(params)) + 1


NETWORK = WaveNet
