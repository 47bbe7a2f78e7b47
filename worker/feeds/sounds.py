"""Windows of mu-law codes from a dataset of sounds.

Every sound is preceded by `START_CODE` and followed by some silence, so that a model learns to
begin and to end. A window holds the time in its sound of the first predicted sample, the sound's
length, and then codes. A negative one, `~c`, is code c as context only: read but never predicted
(samples before the predicted ones, and padding after the sound).
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from db.errors import BadInput, raise_outage
from worker.data.dataset import TRAIN, VALIDATION, LocalDataset
from worker.feeds.augmentations import augment_sound
from worker.feeds.feed import Arrays, Feed
from worker.feeds.mulaw import CODES, SILENCE, encode

FILE = "sounds.json"
START_CODE = CODES  # before a sound; never predicted
MAX_SECONDS = 1.0  # of a generated sound, if the job sets no limit
MARGIN_SECONDS = 0.02  # by which the silence after a sound exceeds the longest inside one
DURATION_QUANTILE = 0.95
DURATIONS = 33  # quantiles kept per class

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class SoundStatistics:
    """Statistics of the training sounds, kept beside a version's weights as `sounds.json`.

    `durations` are quantiles, from 0 to 1, of sounds' durations in seconds: of each class by its
    name, and of all sounds under "".
    """

    seconds: float = 1.0  # hardly any sound is longer
    silence: int = 160  # silent samples that follow a sound; no sound contains as many in a row
    durations: dict[str, list[float]] = field(default_factory=dict)

    def duration(self, label: str, number: float) -> float:
        """The duration in seconds at quantile `number`, in [0, 1), of a class's durations."""
        known = self.durations.get(label) or self.durations.get("", [self.seconds])
        return float(np.interp(number, np.linspace(0, 1, len(known)), known))

    @classmethod
    def load(cls, folder: Path) -> "SoundStatistics":
        """Read `sounds.json`; raise `BadInput` if it is missing or damaged."""
        try:
            return cls(**json.loads((folder / FILE).read_text("utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise_outage(error)
            raise BadInput(f"{FILE} of the version cannot be read: {error}") from None

    def save(self, folder: Path) -> None:
        """Write `sounds.json`."""
        (folder / FILE).write_text(json.dumps(asdict(self), indent=2) + "\n", "utf-8")


class Sounds:
    """The sounds of one split, as codes."""

    def __init__(self, dataset: LocalDataset, split: int) -> None:
        shape = dataset.shape("audio")
        offsets = np.asarray(dataset.array("offsets"))
        self.numbers = np.flatnonzero(np.asarray(dataset.array("split")) == split)
        self.rate, self.names = shape.sample_rate, shape.labels
        self.labels = np.asarray(dataset.array("labels"))[self.numbers] if self.names else None
        self.begins, self.ends = offsets[self.numbers], offsets[self.numbers + 1]
        self.lengths: Numbers = self.ends - self.begins
        self._samples = np.asarray(dataset.array("sounds"))  # int16, memory-mapped

    def samples(self, sound: int) -> npt.NDArray[np.int16]:
        """A sound's samples, int16 (T,)."""
        found: npt.NDArray[np.int16] = self._samples[self.begins[sound] : self.ends[sound]]
        return found

    def codes(
        self, sound: int, start: int, stop: int, samples: npt.NDArray[np.int16] | None = None
    ) -> Numbers:
        """Codes `start` to `stop` of a sound: `START_CODE` before it, silence after it.

        `samples` stand in for its own.
        """
        samples = self.samples(sound) if samples is None else samples
        codes = np.full(stop - start, SILENCE, np.int64)
        codes[: max(-start, 0)] = START_CODE
        first, last = max(start, 0), min(stop, int(self.lengths[sound]))
        if first < last:
            codes[first - start : last - start] = encode(samples[first:last])
        return codes

    def labels_of(self, sounds: Sequence[int]) -> Numbers | None:
        """The labels of sounds, if there are any."""
        return None if self.labels is None else self.labels[list(sounds)]

    def statistics(self) -> SoundStatistics:
        """Measure these sounds."""
        seconds = float(np.quantile(self.lengths, DURATION_QUANTILE)) / self.rate
        longest = max(_longest_silence(self.codes(i, 0, n)) for i, n in enumerate(self.lengths))
        margin = max(round(MARGIN_SECONDS * self.rate), 1)
        return SoundStatistics(
            round(min(seconds, MAX_SECONDS), 3), longest + margin, self._durations()
        )

    def _durations(self) -> dict[str, list[float]]:
        groups = {name: self.lengths[self.labels == i] for i, name in enumerate(self.names)}
        steps = np.linspace(0, 1, DURATIONS)
        return {
            name: np.round(np.quantile(lengths, steps) / self.rate, 4).tolist()
            for name, lengths in ({"": self.lengths} | groups).items()
            if len(lengths)
        }


class SoundFeed(Feed):
    """Windows int64 (B, 2 + receptive + context): a time, a length, `receptive` codes of context,
    and `context` codes that are predicted as far as the sound lasts.

    An epoch cuts each sound into windows at jittered places and shuffles the windows of all sounds.
    The silence after a sound is predicted in training but not in validation. Training sounds are
    augmented as the dataset declares, anew in each epoch.
    """

    def __init__(
        self,
        dataset: LocalDataset,
        statistics: SoundStatistics,
        *,
        receptive: int,
        context: int,
        batch_size: int,
        seed: int,
    ) -> None:
        self.receptive, self.context = receptive, context
        self.batch_size, self.seed = batch_size, seed
        self.shape = dataset.shape("audio")
        self._augmentations = dataset.augmentations
        self._train, self._validation = Sounds(dataset, TRAIN), Sounds(dataset, VALIDATION)
        self._ends = self._train.lengths + statistics.silence  # where each sound's silence ends
        self._windows = np.maximum(1, np.rint(self._ends / context)).astype(np.int64)
        self.train_count = int(self._windows.sum())
        self._epoch = lru_cache(maxsize=2)(self._epoch_windows)

    def train(self, step: int) -> Arrays:
        """The windows of a step and their sounds' labels."""
        first = step * self.batch_size
        places = [divmod(first + row, self.train_count) for row in range(self.batch_size)]
        chosen = [(epoch, *map(int, self._epoch(epoch)[i])) for epoch, i in places]
        windows = [
            self._window(
                self._train, sound, at, int(self._ends[sound]), self._augmented(epoch, sound)
            )
            for epoch, sound, at in chosen
        ]
        return np.stack(windows), self._train.labels_of([sound for _, sound, _ in chosen])

    def validation(self) -> Iterator[Arrays]:
        """Adjacent windows: each sample of the split is predicted exactly once."""
        windows = [
            (sound, at, int(length))
            for sound, length in enumerate(self._validation.lengths)
            for at in range(0, int(length), self.context)
        ]
        for first in range(0, len(windows), self.batch_size):
            some = windows[first : first + self.batch_size]
            data = np.stack([self._window(self._validation, *window) for window in some])
            yield data, self._validation.labels_of([sound for sound, _, _ in some])

    def _augmented(self, epoch: int, sound: int) -> npt.NDArray[np.int16] | None:
        """A training sound as this epoch changes it; None if nothing is declared."""
        if not self._augmentations:
            return None
        philox = np.random.Philox(key=[self.seed, epoch], counter=[0, 0, sound, 2**63 + 1])
        samples, rate = self._train.samples(sound), self._train.rate
        return augment_sound(samples, self._augmentations, np.random.Generator(philox), rate=rate)

    def _window(
        self,
        sounds: Sounds,
        sound: int,
        at: int,
        end: int,
        samples: npt.NDArray[np.int16] | None = None,
    ) -> Numbers:
        """The window that predicts samples `at` to `at + context`, but none from `end` on."""
        codes = sounds.codes(sound, at - self.receptive, at + self.context, samples)
        codes[: self.receptive] = ~codes[: self.receptive]
        past = self.receptive + max(end - at, 0)
        codes[past:] = ~codes[past:]
        return np.append((at, sounds.lengths[sound]), codes)

    def _epoch_windows(self, epoch: int) -> Numbers:
        """An epoch's windows in order, as rows of sound and start (W, 2).

        Window i of n is centred at random in the i-th n-th of its sound and clipped to it, so that
        all samples are predicted about equally often.
        """
        # a distant counter: `Draw` uses the low streams of the same key
        philox = np.random.Philox(key=[self.seed, epoch], counter=[0, 0, 0, 2**63])
        generator = np.random.Generator(philox)
        sounds = np.repeat(np.arange(len(self._windows)), self._windows)
        place = np.arange(self.train_count) - np.repeat(
            np.cumsum(self._windows) - self._windows, self._windows
        )
        share = (place + generator.random(self.train_count)) / self._windows[sounds]
        starts = np.rint(share * self._ends[sounds] - self.context / 2).astype(np.int64)
        starts = np.clip(starts, 0, np.maximum(self._ends[sounds] - self.context, 0))
        windows: Numbers = np.stack((sounds, starts), axis=1)
        return windows[generator.permutation(self.train_count)]


def _longest_silence(codes: Numbers) -> int:
    """The longest run of the silent code between two other codes."""
    heard = np.flatnonzero(codes != SILENCE)
    return int(np.diff(heard).max(initial=1)) - 1
