"""Pictures and texts to look at: what a network makes now, on one page."""

import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from worker.engine.generate import Sampler
from worker.media.samples.spectrogram import spectrogram_sheet
from worker.networks.network import Network, Output, Row

COLUMNS = 10
ROWS = 10
TEXTS = 8
SOUND_COLUMNS = 2
SOUNDS = 20  # made at once
GAP = 2  # pixels between pictures
TIMED = 3  # micro-batches to measure the speed by


def page(sampler: Sampler, folder: Path, *, name: str) -> tuple[str, Path, str]:
    """Make a page of samples in `folder`: its name, its path and its media type.

    Images: a contact sheet, one row a class or example prompt where there are any. Sounds: a sheet
    of spectrograms, likewise. Text: a file of samples.
    """
    if sampler.network.shape.media == "image":
        outputs = _make(sampler, _sheet_rows(sampler.network))
        path = folder / f"{name}.png"
        contact_sheet([np.asarray(output) for output in outputs], columns=COLUMNS).save(path)
        return path.name, path, "image/png"
    if sampler.network.shape.media == "audio":
        path = folder / f"{name}.png"
        _sound_sheet(sampler).save(path)
        return path.name, path, "image/png"
    texts = [str(text) for text in _make(sampler, [Row(index) for index in range(TEXTS)])]
    path = folder / f"{name}.txt"
    path.write_text(f"\n{'-' * 40}\n".join(texts) + "\n", encoding="utf-8")
    return path.name, path, "text/plain"


def contact_sheet(pictures: Sequence[npt.NDArray[Any]], *, columns: int) -> Image.Image:
    """Pictures, uint8 (H, W, C), row by row on one image, small ones enlarged by a whole factor."""
    height, width, channels = pictures[0].shape
    rows = -(-len(pictures) // columns)
    sheet = np.full((rows * (height + GAP) + GAP, columns * (width + GAP) + GAP, channels), 64)
    for index, picture in enumerate(pictures):
        top = GAP + index // columns * (height + GAP)
        left = GAP + index % columns * (width + GAP)
        sheet[top : top + height, left : left + width] = picture
    image = Image.fromarray(sheet.astype(np.uint8).squeeze())
    factor = max(1, 64 // width)
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)


def _sound_sheet(sampler: Sampler) -> Image.Image:
    shape = sampler.network.shape
    rows = _sheet_rows(sampler.network, SOUND_COLUMNS)
    sounds = [np.asarray(output, np.float32) for output in _make(sampler, rows)]
    return spectrogram_sheet(
        sounds, rate=shape.sample_rate, columns=SOUND_COLUMNS, names=shape.labels
    )


def _sheet_rows(network: Network, columns: int = COLUMNS) -> list[Row]:
    """A row of the sheet for each class or example prompt; with neither a square of samples."""
    labels, prompts = len(network.shape.labels), network.examples[: 2 * ROWS]
    if prompts:
        asked = [prompt for prompt in prompts for _ in range(columns)]
        return [Row(index, prompt=prompt) for index, prompt in enumerate(asked)]
    if not labels:
        return [Row(index) for index in range(ROWS * columns)]
    classes = [label for label in range(min(labels, 2 * ROWS)) for _ in range(columns)]
    return [Row(index, label) for index, label in enumerate(classes)]


def _make(sampler: Sampler, rows: Sequence[Row]) -> list[Output]:
    remaining, outputs = iter(rows), list[Output]()
    while some := list(islice(remaining, sampler.sampling.micro_batch)):
        outputs += sampler.make(some)
    return outputs


def time_sampling(sampler: Sampler, *, limit_s: float = 2.0) -> float:
    """Samples a second that `sampler` makes, over a few micro-batches after one to warm up.

    The first counts where it alone takes long, as it does for text.
    """
    size, labels = sampler.sampling.micro_batch, len(sampler.network.shape.labels)
    rows = [Row(index, index % labels if labels else None) for index in range(size)]
    began, made = time.perf_counter(), len(sampler.make(rows))
    if time.perf_counter() - began < limit_s / TIMED:
        began, made = time.perf_counter(), 0
        while made < TIMED * size:
            made += len(sampler.make(rows))
    return made / (time.perf_counter() - began)
