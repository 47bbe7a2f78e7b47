"""Pictures of a dataset's items, as a judge looks at them: images, or sounds as spectrograms."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from worker.data.dataset import TEST, TRAIN, VALIDATION, LocalDataset
from worker.evaluation.judge import Labels, Pixels
from worker.media.samples.spectrogram import RANGE_DB, spectrogram
from worker.metrics.samples import Indices, generator
from worker.networks.network import Output

CODES = {"train": TRAIN, "validation": VALIDATION, "test": TEST}
LARGEST = 64  # pixels a side; larger pictures are averaged down
MAX_TRAIN = 60_000  # training items that made ones are compared with
BANDS, FRAMES = 64, 64  # of a sound's picture
SHOWN_SECONDS = 1.0  # of a sound in its picture


@dataclass(frozen=True)
class Items:
    """Items of one dataset: their pictures, and labels if there are any."""

    numbers: Indices  # in the dataset
    pixels: Pixels
    labels: Labels | None

    def __len__(self) -> int:
        return len(self.numbers)

    def first(self, count: int) -> "Items":
        """The first of the items."""
        labels = None if self.labels is None else self.labels[:count]
        return Items(self.numbers[:count], self.pixels[:count], labels)


def choose(dataset: LocalDataset, split: str, *, most: int, seed: int) -> Indices:
    """At most `most` items of a split, in an order that depends on the seed alone."""
    found = np.flatnonzero(np.asarray(dataset.array("split")) == CODES[split])
    return found[generator(seed, CODES[split]).permutation(len(found))[:most]]


def read_items(dataset: LocalDataset, numbers: Indices) -> Items:
    """The pictures and labels of items, in the order of their numbers."""
    labelled = bool(dataset.manifest["shape"]["labels"])
    labels = np.asarray(dataset.array("labels"))[numbers] if labelled else None
    if dataset.manifest["shape"]["media"] == "audio":
        pixels = sound_pictures(read_sounds(dataset, numbers), rate_of(dataset))
        return Items(numbers, pixels, labels)
    images = dataset.array("images")  # memory-mapped
    order = np.argsort(numbers)  # the order of the file
    pixels = np.empty((len(numbers), *shrunk_shape(images.shape[1:])), np.uint8)
    pixels[order] = shrink(images, numbers[order])
    return Items(numbers, pixels, labels)


def shrunk_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The height, width and channels of a picture after `shrink`."""
    return (min(shape[0], LARGEST), min(shape[1], LARGEST), shape[2])


def shrink(images: npt.NDArray[Any], chosen: Indices) -> Pixels:
    """The chosen images, those above 64 pixels a side averaged down to it."""
    height, width, channels = shrunk_shape(images.shape[1:])
    if images.shape[1:3] == (height, width):
        return np.asarray(images[chosen])
    smaller = np.empty((len(chosen), height, width, channels), np.uint8)
    for place, number in enumerate(chosen):
        picture = Image.fromarray(np.asarray(images[number]).squeeze())
        resized = picture.resize((width, height), Image.Resampling.BOX)
        smaller[place] = np.asarray(resized).reshape(height, width, channels)
    return smaller


def made_pictures(outputs: Sequence[Output], media: str, rate: int) -> Pixels:
    """The pictures of samples."""
    if media == "audio":
        return sound_pictures([np.asarray(each, np.float32) for each in outputs], rate)
    images = np.stack([np.asarray(each) for each in outputs])
    return shrink(images, np.arange(len(images)))


def rate_of(dataset: LocalDataset) -> int:
    """The sample rate of a dataset of sounds."""
    return int(dataset.manifest["shape"]["sample_rate"])


def read_sounds(dataset: LocalDataset, numbers: Indices) -> list[npt.NDArray[np.float32]]:
    """Sounds as float32 (T,) in [-1, 1]."""
    offsets, samples = np.asarray(dataset.array("offsets")), dataset.array("sounds")
    return [
        samples[offsets[number] : offsets[number + 1]].astype(np.float32) / np.float32(32768)
        for number in numbers
    ]


def sound_pictures(sounds: Sequence[npt.NDArray[np.float32]], rate: int) -> Pixels:
    """Spectrograms of the first second as grey pictures (N, BANDS, FRAMES, 1).

    White is full scale, black is `RANGE_DB` below it and what follows the sound.
    """
    pixels = np.zeros((len(sounds), BANDS, FRAMES, 1), np.uint8)
    for place, sound in enumerate(sounds):
        levels = spectrogram(sound[: round(SHOWN_SECONDS * rate)], rate) - 20
        grey = (np.clip(1 + levels / RANGE_DB, 0, 1) * 255).astype(np.uint8)
        seconds = min(len(sound) / rate, SHOWN_SECONDS)
        width = max(1, round(FRAMES * seconds / SHOWN_SECONDS))
        scaled = Image.fromarray(grey).resize((width, BANDS), Image.Resampling.BOX)
        pixels[place, :, :width, 0] = np.asarray(scaled)
    return pixels
