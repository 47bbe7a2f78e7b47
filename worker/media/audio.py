"""Sounds: mono, of one sample rate; WAV samples; pages of spectrograms."""

from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from worker.data.arrays import ArrayWriter, SplitsAndLabels
from worker.data.dataset import LocalDataset, Shape
from worker.data.split import Ratio
from worker.media.base import (
    CombinedFiles,
    Content,
    Downloads,
    Intake,
    Medium,
    Page,
    SampleFiles,
    SourceFormat,
)
from worker.media.samples.containers import Output, SampleRecord, Tar
from worker.media.samples.record import Record
from worker.media.samples.spectrogram import spectrogram_picture, spectrogram_sheet
from worker.media.samples.wav import encode_wav, read_wav_record
from worker.media.sources import sound_files
from worker.media.sources.annotations import describe_reading, read_annotations
from worker.media.sources.sound_files import SoundItem


def take_sound_files(intake: Intake) -> Content:
    """Sounds as a dataset, labelled by tables, folders or else by file names."""
    notes = read_annotations(intake.source, sound_files.SUFFIXES, intake.rejects, captions=False)
    headers = sound_files.read_headers(intake.source)
    layout = headers.names.layout(labelled=not notes.labels, named_labels=True)
    resample = intake.options.get("resample", True)
    items = sound_files.read_sounds(
        intake.source, layout, notes, intake.rejects, rate=headers.rate, resample=resample
    )
    intake.reading.update(describe_reading(layout, notes))
    intake.reading["sample rate"] = headers.describe_rates(resample=resample)
    labels = notes.labels or layout.labels
    return write_sounds(items, intake.folder, labels=labels, rate=headers.rate, ratio=intake.ratio)


def write_sounds(
    items: Iterable[SoundItem], folder: Path, *, labels: tuple[str, ...], rate: int, ratio: Ratio
) -> Content:
    """Write `sounds.npy`, `offsets.npy`, `split.npy` and, if labelled, `labels.npy`.

    Either all sounds are labelled or none. Labels that no sound has are dropped.
    """
    splits, offsets = SplitsAndLabels(), array("q", [0])
    with ArrayWriter(folder / "sounds.npy", np.int16) as sounds:
        for item in items:
            sounds.extend(item.samples)
            offsets.append(sounds.rows)
            splits.add(item.samples.tobytes(), item.label, item.split)
    if not sounds.rows:
        return Shape("audio"), (0, 0, 0)
    np.save(folder / "offsets.npy", np.frombuffer(offsets, np.int64))
    used, counts = splits.write(folder, labels, ratio)
    return Shape("audio", used, sample_rate=rate), counts


class AudioMedium(Medium):
    """Sound."""

    name = "audio"
    precedence = 1
    options = ("resample",)
    sources = (
        SourceFormat(
            "sounds",
            "a folder or archive of sounds (WAV, FLAC, Ogg, MP3, AIFF)",
            take_sound_files,
            member_suffixes=sound_files.SUFFIXES,
        ),
    )
    signature = b"RIFF"
    suffix = ".wav"
    container = Tar
    downloads: ClassVar[Downloads] = {
        "files": SampleFiles(lambda sample, record: {".json": record, ".wav": sample}),
        "webdataset": CombinedFiles.OBJECTS,
        "jsonl": CombinedFiles.RECORDS,
    }
    evaluated = 500
    pictured = True
    page = Page(rows=10, columns=2, micro_batch=20, suffix=".png", media_type="image/png")
    pipeline_tag = "text-to-audio"

    def encode(self, samples: Sequence[SampleRecord], shape: Shape) -> list[bytes]:
        """WAV files, 16-bit PCM, of float32 (T,) sounds in [-1, 1]."""
        return [encode_wav(sample, shape.sample_rate) for sample in samples]

    def read_record(self, data: bytes) -> Record:
        """The record in the WAV file's comment."""
        return read_wav_record(data)

    def read_samples(self, dataset: LocalDataset, numbers: Sequence[int]) -> Sequence[Output]:
        """Sounds, float32 (T,) in [-1, 1]."""
        offsets, samples = np.asarray(dataset.array("offsets")), dataset.array("sounds")
        return [
            samples[offsets[number] : offsets[number + 1]].astype(np.float32) / np.float32(32768)
            for number in numbers
        ]

    def pictures(self, samples: Sequence[Output], shape: Shape) -> npt.NDArray[np.uint8]:
        """Spectrograms of the first second, grey, (N, 64, 64, 1)."""
        return np.stack([spectrogram_picture(each, shape.sample_rate) for each in samples])

    def write_page(self, outputs: Sequence[Output], shape: Shape, path: Path) -> None:
        """Write a sheet of spectrograms."""
        sounds = [np.asarray(output, np.float32) for output in outputs]
        spectrogram_sheet(
            sounds, rate=shape.sample_rate, columns=self.page.columns, names=shape.labels
        ).save(path)


MEDIUM = AudioMedium()
