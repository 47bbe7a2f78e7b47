"""Sounds: mono, of one sample rate; WAV samples; sheets of spectrograms."""

from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from worker.data.arrays import ArrayWriter, SplitsAndLabels
from worker.data.dataset import Shape
from worker.data.split import Ratio
from worker.media.base import (
    Content,
    Downloads,
    Intake,
    Medium,
    Page,
    SampleFiles,
    SourceFormat,
    Whole,
)
from worker.media.samples.containers import Output, Tar
from worker.media.samples.record import Record
from worker.media.samples.spectrogram import spectrogram_sheet
from worker.media.samples.wav import encode_wav, read_wav_record
from worker.media.sources import sound_files
from worker.media.sources.sound_files import SoundItem


def take_sound_files(intake: Intake) -> Content:
    """A folder or zip of sounds as a dataset; labels by folders, else by file names."""
    headers = sound_files.read_headers(intake.path)
    labels = headers.labels()
    items = sound_files.read_sounds(intake.path, labels, intake.rejects, rate=headers.rate)
    return write_sounds(
        items, intake.folder, labels=labels.labels, rate=headers.rate, ratio=intake.ratio
    )


def write_sounds(
    items: Iterable[SoundItem], folder: Path, *, labels: tuple[str, ...], rate: int, ratio: Ratio
) -> Content:
    """Write `sounds.npy`, all samples in a row, `offsets.npy`, `split.npy` and, where labelled,
    `labels.npy`.

    All or none are labelled. Labels that no sound has are dropped.
    """
    noted, offsets = SplitsAndLabels(), array("q", [0])
    with ArrayWriter(folder / "sounds.npy", np.int16) as sounds:
        for item in items:
            sounds.extend(item.samples)
            offsets.append(sounds.rows)
            noted.add(item.samples.tobytes(), item.label, item.split)
    if not sounds.rows:
        return Shape("audio"), (0, 0, 0)
    np.save(folder / "offsets.npy", np.frombuffer(offsets, np.int64))
    used, counts = noted.write(folder, labels, ratio)
    return Shape("audio", used, sample_rate=rate), counts


class AudioMedium(Medium):
    """Sounds."""

    name = "audio"
    precedence = 1
    sources = (
        SourceFormat(
            "sounds",
            f"a folder or zip of sounds ({', '.join(sound_files.DECODERS)})",
            take_sound_files,
            inside=frozenset(sound_files.DECODERS),
        ),
    )
    signature = b"RIFF"
    suffix = ".wav"
    container = Tar
    downloads: ClassVar[Downloads] = {
        "files": SampleFiles(lambda sample, record: {".json": record, ".wav": sample}),
        "webdataset": Whole.OBJECTS,
        "jsonl": Whole.RECORDS,
    }
    page = Page(rows=10, columns=2, micro_batch=20, suffix=".png", media_type="image/png")
    pipeline_tag = "text-to-audio"

    def encode(self, output: Output, record: Record, shape: Shape) -> bytes:
        """A WAV, 16-bit PCM, of a float32 (T,) sound in [-1, 1]."""
        return encode_wav(output, shape.sample_rate, record)

    def read_record(self, data: bytes) -> Record:
        """What the WAV's comment holds."""
        return read_wav_record(data)

    def write_page(self, outputs: Sequence[Output], shape: Shape, path: Path) -> None:
        """A sheet of spectrograms."""
        sounds = [np.asarray(output, np.float32) for output in outputs]
        spectrogram_sheet(
            sounds, rate=shape.sample_rate, columns=self.page.columns, names=shape.labels
        ).save(path)


MEDIUM = AudioMedium()
