"""WaveNet: p(x) as a product of softmaxes over the 256 codes of each sample.

van den Oord et al. 2016, arXiv:1609.03499: the network of the layers in `layers`, and its loss.
Convolutions are "valid": a sample is predicted only where its whole receptive field is given, with
a code of its own before a sound's first sample. The receptive field is shorter than a word, so the
network is also conditioned on relative position: a second time series, of class and part of the
sound (section 2.5), is added to the stream that all layers read.
"""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from worker.data.dataset import TRAIN, LocalDataset, Shape
from worker.families.wavenet import WaveNetParams, WaveNetSampling
from worker.families.wavenet.layers import PARTS, Layer, dilations, plan_index, receptive_field
from worker.families.wavenet.sampling import sample_sounds
from worker.feeds.feed import Feed
from worker.feeds.mulaw import CODES
from worker.feeds.sounds import SoundFeed, Sounds, SoundStatistics
from worker.networks.learning_rates import cosine, step, warm_up
from worker.networks.network import Batch, Clock, Draws, Finished, Losses, Row, StreamingNetwork
from worker.networks.params import SamplingParams, TrainingParams

IGNORED = -1


class WaveNet(StreamingNetwork):
    """The network of family `wavenet`; its data are windows int64 (B, 2 + receptive + T)."""

    params: WaveNetParams

    def __init__(self, params: TrainingParams, shape: Shape) -> None:
        super().__init__(params, shape)
        settings = self.params
        self.statistics = SoundStatistics()
        self.embedding = nn.Embedding(CODES + 1, settings.channels)  # START_CODE is the last
        self.plan = nn.Embedding(max(len(shape.labels), 1) * (PARTS + 1), settings.channels)
        self.layers = nn.ModuleList(
            Layer(settings, dilation, len(shape.labels)) for dilation in dilations(settings)
        )
        self.hidden = nn.Conv1d(settings.skip, settings.skip, 1)
        self.head = nn.Conv1d(settings.skip, CODES, 1)
        self._initialise()

    @classmethod
    def feed(cls, params: TrainingParams, dataset: LocalDataset, *, seed: int, files: Path) -> Feed:
        """Windows of codes; writes the sounds' statistics to `files` as `sounds.json`."""
        settings = cast(WaveNetParams, params)
        statistics = Sounds(dataset, TRAIN).statistics()
        statistics.save(files)
        return SoundFeed(
            dataset,
            statistics,
            receptive=receptive_field(settings),
            context=settings.context,
            batch_size=settings.batch_size,
            seed=seed,
        )

    def load_files(self, folder: Path) -> None:
        """Read the sounds' statistics, which sampling needs."""
        self.statistics = SoundStatistics.load(folder)

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Adam."""
        lr = self.params.lr
        return {"adam": torch.optim.Adam(self.parameters(), lr=lr, betas=(0.9, 0.95), fused=True)}

    def train_step(
        self, batch: Batch, optimizers: Mapping[str, torch.optim.Optimizer], clock: Clock
    ) -> Losses:
        """One update on the mean loss of the predicted samples."""
        optimizer = optimizers["adam"]
        optimizer.zero_grad(set_to_none=True)
        loss, _ = self._loss(batch)
        loss.backward()  # type: ignore[no-untyped-call]  # torch's own annotation is missing
        size = nn.utils.clip_grad_norm_(self.parameters(), self.params.clip)
        share = warm_up(clock, self.params.warmup) * cosine(clock.progress)
        step(optimizer, self.params.lr * clock.rate * share)
        return {"loss": loss.detach(), "gradient_norm": size.detach()}

    def validate(self, batch: Batch) -> Losses:
        """`loss` in nats per sample, and the same in bits."""
        loss, count = self._loss(batch)
        return {"loss": loss, "bits_per_sample": loss / math.log(2), "count": count}

    def stream(
        self, rows: Iterator[Row], draw: Draws, sampling: SamplingParams
    ) -> Iterator[list[Finished]]:
        """Sounds in [-1, 1], float32 (T,), of varying length."""
        settings = cast(WaveNetSampling, sampling)
        return sample_sounds(
            self, rows, draw, settings, shape=self.shape, statistics=self.statistics
        )

    def forward(self, codes: Tensor, starts: Tensor, lengths: Tensor, labels: Tensor) -> Tensor:
        """Logits (B, T, 256), each after a receptive field of codes (B, receptive + T - 1).

        `starts` (B,) are the times of the first samples predicted, of sounds of `lengths` (B,).
        """
        field = receptive_field(self.params)
        length = codes.shape[1] - field + 1
        # a code is conditioned on the time of the sample that follows it
        times = starts[:, None] + torch.arange(1 - field, length, device=codes.device)
        x = self.embedding(codes) + self.plan(plan_index(labels[:, None], times, lengths[:, None]))
        x = x.transpose(1, 2)  # (B, C, receptive + T - 1)
        skipped = torch.zeros((), device=codes.device)
        for layer in self.layers:
            x, skip = layer(x, labels, length)
            skipped = skipped + skip  # (B, skip, T)
        hidden = functional.relu(self.hidden(functional.relu(skipped)))
        return cast(Tensor, self.head(hidden)).transpose(1, 2)

    def _initialise(self) -> None:
        """Initialise embedding and head with sinusoids over the 256 codes, slow and fast.

        Neighbouring codes start out similar, so the network need not learn 256 unrelated classes.
        """
        place = (torch.arange(CODES) + 0.5) / CODES * torch.pi  # (256,)
        rates = 2.0 ** torch.linspace(0, 6, -(-self.params.channels // 2))
        waves = torch.cat((torch.cos(rates * place[:, None]), torch.sin(rates * place[:, None])), 1)
        orders = torch.arange(self.params.skip)
        falling = torch.cos(orders * place[:, None]) * 0.1 / (1 + orders / 16)  # (256, skip)
        nn.init.zeros_(self.plan.weight)
        with torch.no_grad():
            self.embedding.weight[:CODES] = waves[:, : self.params.channels]
            self.head.weight.copy_(falling[:, :, None])

    def _loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Mean cross-entropy in nats of the predicted samples, and their number."""
        starts, lengths, data = batch.data[:, 0], batch.data[:, 1], batch.data[:, 2:]
        codes = torch.maximum(data, ~data)[:, :-1]
        targets = torch.where(data < 0, IGNORED, data)
        targets = targets[:, receptive_field(self.params) :]  # (B, T)
        labels = batch.labels if batch.labels is not None else torch.zeros_like(codes[:, 0])
        logits = self(codes, starts, lengths, labels).float()
        total = functional.cross_entropy(
            logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="sum"
        )
        count = (targets >= 0).sum().clamp(min=1)
        return total / count, count


NETWORK = WaveNet
