"""Making sounds: how samples are chosen, where a sound ends, and who has the place after it."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from db.errors import NonFinite
from worker.data.dataset import Shape
from worker.families.wavenet import WaveNetSampling
from worker.families.wavenet.layers import Stack
from worker.families.wavenet.queues import Queues
from worker.feeds.mulaw import CODES, SILENCE, decode
from worker.feeds.sounds import SoundStatistics
from worker.networks.network import Draw, Draws, Finished, Row

Sound = npt.NDArray[np.float32]  # (T,) in [-1, 1]

LOOK = 128  # samples between two looks at which sounds have ended
LENGTHS = 1  # the stream of random numbers that lengths are drawn by
FADE_SECONDS = 0.005  # at the end of a sound, which may be cut where it is loud


@dataclass
class Voice:
    """A row under way: its random numbers, and its codes so far."""

    row: Row
    numbers: Tensor  # (steps,), a multiple of LOOK
    parts: list[npt.NDArray[np.uint8]] = field(default_factory=list)
    planned: int = 1  # samples that the network is told it will have

    @property
    def time(self) -> int:
        """Samples made."""
        return LOOK * len(self.parts)

    def length(self, silence: int, most: int) -> int | None:
        """How long the sound is, or None where it goes on.

        It ends where it stays silent for `silence` samples, or with `most`.
        """
        recent = self.parts[-(-(-silence // LOOK) + 1) :]
        if self.time < most and sum(int((p == SILENCE).sum()) for p in recent) < silence:
            return None
        length = length_of(np.concatenate(self.parts)[:most], silence)
        return length if length < min(self.time, most) or self.time >= most else None


class Voices:
    """As many places as the micro-batch has rows; a place goes to the next row as one ends."""

    def __init__(
        self, stack: Stack, sampling: WaveNetSampling, *, shape: Shape, statistics: SoundStatistics
    ) -> None:
        rate = shape.sample_rate
        self.rate, self.statistics, self.names = rate, statistics, shape.labels
        self.most = max(round((sampling.seconds or statistics.seconds) * rate), 1)
        self.silence, self.temperature = statistics.silence, sampling.temperature
        self.fade = max(round(FADE_SECONDS * rate), 1)
        self.places: list[Voice | None] = [None] * sampling.micro_batch
        self.queues = Queues(stack, sampling.micro_batch)
        self.device = stack.embedding.weight.device
        self.logits = torch.zeros(sampling.micro_batch, CODES, device=self.device)

    def fill(self, rows: Iterator[Row], draws: Draws) -> bool:
        """Give empty places to the next rows; whether any place is taken."""
        fresh = torch.zeros(len(self.places), dtype=torch.bool)
        steps = -(-self.most // LOOK) * LOOK
        for place, voice in enumerate(self.places):
            if voice is None and (row := next(rows, None)) is not None:
                draw = draws([row.index])
                self.places[place] = Voice(
                    row, draw.uniform(steps)[0], planned=self._planned(row, draw)
                )
                fresh[place] = True
        if fresh.any():
            told = [(v.row.label or 0, v.planned) if v else (0, 1) for v in self.places]
            labels, lengths = torch.tensor(told, device=self.device).unbind(1)
            fresh = fresh.to(self.device)
            begun = self.queues.begin(labels, lengths, fresh)
            self.logits = torch.where(fresh[:, None], begun, self.logits)
        return any(self.places)

    def sing(self) -> list[Finished]:
        """Go on by `LOOK` samples; the sounds that ended in them."""
        numbers = torch.stack([self._numbers(voice) for voice in self.places], dim=1)[:, :, None]
        codes = torch.empty(LOOK, len(self.places), dtype=torch.uint8, device=self.device)
        for now in range(LOOK):
            chosen = choose(self.logits, numbers[now], self.temperature)
            codes[now] = chosen
            self.logits = self.queues.step(chosen)
        made = codes.t().cpu().numpy()
        finite = torch.isfinite(self.logits).all(dim=1).tolist()
        ended = []
        for place, voice in enumerate(self.places):
            if voice is None:
                continue
            if not finite[place]:
                raise NonFinite("the model's logits are not finite: its weights are damaged")
            voice.parts.append(made[place])
            length = voice.length(self.silence, min(self.most, voice.planned))
            if length is not None:
                ended.append((voice.row, self._sound(voice, length)))
                self.places[place] = None
        return [*ended]

    def _planned(self, row: Row, draw: Draw) -> int:
        """How many samples the sound is to have, drawn from what its class has in the data."""
        name = self.names[row.label] if row.label is not None else ""
        seconds = self.statistics.duration(name, float(draw.uniform(1, stream=LENGTHS)))
        return max(round(seconds * self.rate), 1)

    def _numbers(self, voice: Voice | None) -> Tensor:
        if voice is None:
            return torch.zeros(LOOK, device=self.device)
        return voice.numbers[voice.time : voice.time + LOOK]

    def _sound(self, voice: Voice, length: int) -> Sound:
        """The first `length` samples, of which the last 5 milliseconds fade."""
        sound = decode(np.concatenate(voice.parts)[:length])
        fade = min(self.fade, length)
        sound[length - fade :] *= np.linspace(1, 0, fade, dtype=np.float32)
        return sound


def make_sounds(
    stack: Stack,
    rows: Iterator[Row],
    draws: Draws,
    sampling: WaveNetSampling,
    *,
    shape: Shape,
    statistics: SoundStatistics,
) -> Iterator[list[Finished]]:
    """One sound a row, float32 (T,) in [-1, 1], as they end; often none.

    A sound ends where it stays silent for longer than any training sound does inside, at the length
    that the network was told, or at `sampling.seconds`. Raises `NonFinite`.
    """
    device = stack.embedding.weight.device.type
    # in fp32 always: a step is too small to gain by less, and a sound builds on its own errors
    with torch.autocast(device, enabled=False):
        voices = Voices(stack, sampling, shape=shape, statistics=statistics)
    while True:
        with torch.autocast(device, enabled=False):
            if not voices.fill(rows, draws):
                return
            ended = voices.sing()
        yield ended


def choose(logits: Tensor, uniform: Tensor, temperature: float) -> Tensor:
    """Codes int64 (B,) by inverse CDF: one number in [0, 1) a row, uniform (B, 1)."""
    summed = torch.softmax(logits / temperature, -1).cumsum(-1)  # (B, 256)
    # "right" finds the first sum above the mark, so a code of chance 0 is never chosen
    chosen = torch.searchsorted(summed, uniform * summed[:, -1:], right=True)
    return chosen[:, 0].clamp_(max=CODES - 1)


def length_of(codes: npt.NDArray[np.uint8], silence: int) -> int:
    """Where the first run of `silence` silent codes after the first other code begins, or all."""
    heard = np.flatnonzero(codes != SILENCE)
    gaps = np.diff(np.append(heard, len(codes)))  # up to the next heard code, or the end
    ends = np.flatnonzero(gaps > silence)
    return int(heard[ends[0]]) + 1 if len(ends) else len(codes)
