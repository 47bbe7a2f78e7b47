"""Sampling sounds: choosing samples, ending sounds, and reusing the slots of those that ended."""

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

CHUNK = 128  # samples between two checks for the ends of sounds
LENGTHS = 1  # the random stream of lengths
FADE_SECONDS = 0.005  # at the end of a sound, which may be cut off while loud


@dataclass
class ActiveSound:
    """A sound in progress: its random numbers and its codes so far."""

    row: Row
    numbers: Tensor  # (steps,), a multiple of CHUNK
    parts: list[npt.NDArray[np.uint8]] = field(default_factory=list)
    planned: int = 1  # length in samples that the network is conditioned on

    @property
    def time(self) -> int:
        """Samples so far."""
        return CHUNK * len(self.parts)

    def length(self, silence: int, most: int) -> int | None:
        """The sound's length if it has ended, by `silence` silent samples or at `most`, or None."""
        recent = self.parts[-(-(-silence // CHUNK) + 1) :]
        if self.time < most and sum(int((p == SILENCE).sum()) for p in recent) < silence:
            return None
        length = length_of(np.concatenate(self.parts)[:most], silence)
        return length if length < min(self.time, most) or self.time >= most else None


class SoundSampler:
    """Samples a micro-batch of sounds; the slot of a sound that ends goes to the next row."""

    def __init__(
        self, stack: Stack, sampling: WaveNetSampling, *, shape: Shape, statistics: SoundStatistics
    ) -> None:
        rate = shape.sample_rate
        self.rate, self.statistics, self.names = rate, statistics, shape.labels
        self.max_length = max(round((sampling.seconds or statistics.seconds) * rate), 1)
        self.silence, self.temperature = statistics.silence, sampling.temperature
        self.fade = max(round(FADE_SECONDS * rate), 1)
        self.slots: list[ActiveSound | None] = [None] * sampling.micro_batch
        self.queues = Queues(stack, sampling.micro_batch)
        self.device = stack.embedding.weight.device
        self.logits = torch.zeros(sampling.micro_batch, CODES, device=self.device)

    def fill(self, rows: Iterator[Row], draws: Draws) -> bool:
        """Give free slots to the next rows; return whether any slot is in use."""
        fresh = torch.zeros(len(self.slots), dtype=torch.bool)
        steps = -(-self.max_length // CHUNK) * CHUNK
        for slot, sound in enumerate(self.slots):
            if sound is None and (row := next(rows, None)) is not None:
                draw = draws([row])
                self.slots[slot] = ActiveSound(
                    row, draw.uniform(steps)[0], planned=self._draw_length(row, draw)
                )
                fresh[slot] = True
        if fresh.any():
            conditions = [(s.row.label or 0, s.planned) if s else (0, 1) for s in self.slots]
            labels, lengths = torch.tensor(conditions, device=self.device).unbind(1)
            fresh = fresh.to(self.device)
            first = self.queues.prime(labels, lengths, fresh)
            self.logits = torch.where(fresh[:, None], first, self.logits)
        return any(self.slots)

    def step(self) -> list[Finished]:
        """Sample `CHUNK` samples; return the sounds that ended in them."""
        idle = torch.zeros(CHUNK, device=self.device)
        drawn = [s.numbers[s.time : s.time + CHUNK] if s else idle for s in self.slots]
        numbers = torch.stack(drawn, dim=1)[:, :, None]  # (CHUNK, B, 1)
        codes = torch.empty(CHUNK, len(self.slots), dtype=torch.uint8, device=self.device)
        for now in range(CHUNK):
            chosen = choose(self.logits, numbers[now], self.temperature)
            codes[now] = chosen
            self.logits = self.queues.step(chosen)
        chunk = codes.t().cpu().numpy()
        finite = torch.isfinite(self.logits).all(dim=1).tolist()
        ended = list[Finished]()
        for slot, sound in enumerate(self.slots):
            if sound is None:
                continue
            if not finite[slot]:
                raise NonFinite("the model's logits are not finite: its weights are damaged")
            sound.parts.append(chunk[slot])
            length = sound.length(self.silence, min(self.max_length, sound.planned))
            if length is not None:
                ended.append(self._finished(sound, length))
                self.slots[slot] = None
        return ended

    def _draw_length(self, row: Row, draw: Draw) -> int:
        """A length in samples, drawn from those of the class in the data."""
        name = self.names[row.label] if row.label is not None else ""
        seconds = self.statistics.duration(name, float(draw.uniform(1, stream=LENGTHS)))
        return max(round(seconds * self.rate), 1)

    def _finished(self, sound: ActiveSound, length: int) -> Finished:
        """The row and its first `length` samples, with the last 5 milliseconds faded out."""
        samples = decode(np.concatenate(sound.parts)[:length])
        fade = min(self.fade, length)
        samples[length - fade :] *= np.linspace(1, 0, fade, dtype=np.float32)
        return sound.row, samples


def sample_sounds(
    stack: Stack,
    rows: Iterator[Row],
    draws: Draws,
    sampling: WaveNetSampling,
    *,
    shape: Shape,
    statistics: SoundStatistics,
) -> Iterator[list[Finished]]:
    """The sounds that end in each step, float32 (T,) in [-1, 1], one per row; often none.

    A sound ends after a longer silence than any inside a training sound, at its planned length, or
    at `sampling.seconds`. Raises `NonFinite`.
    """
    device = stack.embedding.weight.device.type
    # always in fp32: lower precision gains no speed here, and errors accumulate over a sound
    with torch.autocast(device, enabled=False):
        sampler = SoundSampler(stack, sampling, shape=shape, statistics=statistics)
    while True:
        with torch.autocast(device, enabled=False):
            if not sampler.fill(rows, draws):
                return
            ended = sampler.step()
        yield ended


def choose(logits: Tensor, uniform: Tensor, temperature: float) -> Tensor:
    """Codes int64 (B,) by inverse CDF, from uniform numbers (B, 1) in [0, 1)."""
    summed = torch.softmax(logits / temperature, -1).cumsum(-1)  # (B, 256)
    # "right" finds the first sum above the number: codes of probability 0 are never chosen
    chosen = torch.searchsorted(summed, uniform * summed[:, -1:], right=True)
    return chosen[:, 0].clamp_(max=CODES - 1)


def length_of(codes: npt.NDArray[np.uint8], silence: int) -> int:
    """The length of codes (T,) up to the first `silence` silent ones after a sound."""
    heard = np.flatnonzero(codes != SILENCE)
    gaps = np.diff(np.append(heard, len(codes)))  # up to the next heard code, or the end
    ends = np.flatnonzero(gaps > silence)
    return int(heard[ends[0]]) + 1 if len(ends) else len(codes)
