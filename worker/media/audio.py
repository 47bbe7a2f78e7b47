"""Sounds: mono, of one sample rate; WAV samples; pages of spectrograms."""

import itertools
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from worker.cleaning.alike.sounds import AlikeSounds
from worker.cleaning.augmentations import Bounds
from worker.cleaning.blank import BlankSounds
from worker.cleaning.denoise import SpectralGate, find_filter
from worker.cleaning.loudness import Loudness, parse_loudness
from worker.cleaning.recipe import DROP, Recipe
from worker.cleaning.settle import Settlement
from worker.cleaning.steps import Step
from worker.data.arrays import ArrayWriter, keep_stretches
from worker.data.dataset import LocalDataset, Shape
from worker.data.split import count_splits
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
from worker.media.fingerprints import sounds as fingerprints
from worker.media.fingerprints.bits import Fingerprints
from worker.media.samples import sound_label
from worker.media.samples.containers import Output, SampleRecord, Tar
from worker.media.samples.exhibit import Exhibit, draw
from worker.media.samples.parts import Part, riff_parts
from worker.media.samples.record import Record
from worker.media.samples.spectrogram import (
    spectrogram_image,
    spectrogram_picture,
    spectrogram_sheet,
)
from worker.media.samples.tags import Label, Tag
from worker.media.samples.wav import encode_wav, read_samples, read_sound, read_wav_record
from worker.media.samples.wav_tags import read_wav_tags, tag_wav, wav_places
from worker.media.sources import sound_files
from worker.media.sources.annotations import describe_reading, read_annotations
from worker.media.sources.inheritance import labels_of, merge_labels, write_labels
from worker.media.sources.sound_files import SoundItem


def take_sound_files(intake: Intake) -> Content:
    """Sounds as a dataset, labelled by tables, folders or else by file names."""
    notes = read_annotations(intake.source, sound_files.SUFFIXES, intake.rejects, captions=False)
    headers = sound_files.read_headers(intake.source)
    layout = headers.names.layout(labelled=not notes.labels, named_labels=True)
    resample = intake.options.get("resample", True)
    rate = intake.options.get("rate", headers.rate)
    for step in intake.chain.steps:
        if isinstance(step, Loudness):
            step.rate = rate
    items = sound_files.read_sounds(
        intake.source, layout, notes, intake.rejects, intake.chain, rate=rate, resample=resample
    )
    intake.reading.update(describe_reading(layout, notes))
    intake.reading["sample rate"] = headers.describe_rates(rate, resample=resample)
    labels = notes.labels or layout.labels
    return write_sounds(items, intake.folder, intake.settlement, labels=labels, rate=rate)


def write_sounds(
    items: Iterable[SoundItem],
    folder: Path,
    settlement: Settlement,
    *,
    labels: tuple[str, ...],
    rate: int,
) -> Content:
    """Write `sounds.npy`, `offsets.npy`, `split.npy` and, if labelled, `labels.npy`.

    Either all sounds are labelled or none. Labels that no sound has are dropped. The sounds of the
    version that is updated come first.
    """
    index, offsets = settlement.index(), array("q", [0])
    if settlement.parent is not None:
        labels, numbers = merge_labels(settlement.parent, labels)
        new = (each._replace(label=numbers.get(each.label)) for each in items)
        items = itertools.chain(_sounds_of(settlement.parent), new)
    with ArrayWriter(folder / "sounds.npy", np.int16) as sounds:
        for item in items:
            sounds.extend(item.samples)
            offsets.append(sounds.rows)
            index.add(item.samples.tobytes(), item.label, item.split)
    if not sounds.rows:
        return Shape("audio"), (0, 0, 0)
    path, ends = folder / "sounds.npy", np.frombuffer(offsets, np.int64)
    keep, codes = settlement.settle(index, lambda: AlikeSounds(np.load(path, mmap_mode="r"), ends))
    np.save(folder / "offsets.npy", keep_stretches(path, ends, keep))
    used = write_labels(folder, labels, index.labels[keep] if labels else None, codes)
    return Shape("audio", used, sample_rate=rate), count_splits(codes)


def _sounds_of(parent: LocalDataset) -> Iterator[SoundItem]:
    """The sounds of a version, in their splits."""
    sounds, ends, labels = parent.array("sounds"), parent.array("offsets"), labels_of(parent)
    for start, end, split, label in zip(
        ends[:-1], ends[1:], parent.array("split"), labels, strict=False
    ):
        yield SoundItem(sounds[start:end], label, int(split))


class AudioMedium(Medium):
    """Sound."""

    name = "audio"
    precedence = 1
    policy = {  # noqa: RUF012 - read only
        "primary": {"metric": "bits_per_sample"},
        "guard": [{"metric": "class_agreement", "not_worse_by": 0.05, "optional": True}],
    }
    options = ("resample", "rate", "denoise", "loudness")
    smallest = (0.002, "seconds")
    augmentations: ClassVar[Bounds] = {
        "time-shift": (0.001, 10),  # seconds at most
        "gain": (0.1, 24),  # dB at most, up or down
        "noise": (0.0001, 1),  # standard deviation, where a full-scale sound is within -1 and 1
    }
    sources = (
        SourceFormat(
            "sounds",
            "a folder or archive of sounds (WAV, FLAC, Ogg, MP3, AIFF)",
            take_sound_files,
            member_suffixes=sound_files.SUFFIXES,
        ),
    )
    label_text = "AI"
    signature = b"RIFF"
    suffix = ".wav"
    watermark = "sound_watermark"
    sample_type = "audio/wav"
    schema_type = "AudioObject"
    container = Tar
    downloads: ClassVar[Downloads] = {
        "files": SampleFiles(
            lambda sample, record: {".json": record, ".wav": sample}, (".json", ".wav")
        ),
        "webdataset": CombinedFiles.OBJECTS,
        "jsonl": CombinedFiles.RECORDS,
        "parquet": CombinedFiles.TABLE,
        "audiofolder": CombinedFiles.FOLDER,
    }
    feature = "Audio"
    evaluated = 500
    pictured = True
    compared = 500  # a spectrogram takes a millisecond
    page = Page(rows=10, columns=2, micro_batch=20, suffix=".png", media_type="image/png")
    pipeline_tag = "text-to-audio"

    def cleaning(self, recipe: Recipe) -> list[Step]:
        """Silence, noise, loudness."""
        steps: list[Step] = [BlankSounds()] if recipe.blank == DROP else []
        if recipe.denoise is not None:
            steps.append(find_filter({"spectral": SpectralGate}, recipe.denoise, "sounds")())
        if recipe.loudness is not None:
            steps.append(Loudness(*parse_loudness(recipe.loudness)))
        return steps

    def contents(self, dataset: LocalDataset) -> Iterator[bytes]:
        """The samples."""
        return (item.samples.tobytes() for item in _sounds_of(dataset))

    def outputs(self, dataset: LocalDataset, items: Sequence[int]) -> list[Output]:
        """Some sounds, float32 in [-1, 1]."""
        sounds, ends = dataset.array("sounds"), dataset.array("offsets")
        found = (sounds[ends[item] : ends[item + 1]] for item in items)
        return [np.asarray(each, np.float32) / 32768 for each in found]

    def recipe_for(self, shape: Shape) -> dict[str, Any]:
        """Also the sample rate."""
        return super().recipe_for(shape) | {"rate": shape.sample_rate}

    def claims(self, data: bytes) -> bool:
        """WebP pictures and AVI films begin with `RIFF` as well."""
        return super().claims(data) and data[8:12] == b"WAVE"

    def encode(self, samples: Sequence[SampleRecord], shape: Shape) -> list[bytes]:
        """WAV files, 16-bit PCM, of float32 (T,) sounds in [-1, 1]."""
        return [encode_wav(sample, shape.sample_rate) for sample in samples]

    def read_record(self, data: bytes) -> Record:
        """The record in the WAV file's comment."""
        return read_wav_record(data)

    def with_tags(self, data: bytes, tags: Sequence[Tag]) -> bytes:
        """In an XMP packet, ID3 texts and comments."""
        return tag_wav(data, tags)

    def read_tags(self, data: bytes) -> Mapping[str, str]:
        """From a WAV file."""
        return read_wav_tags(data)

    def tag_places(self, name: str, xmp: str) -> tuple[str, ...]:
        """See `Medium`."""
        return wav_places(name, xmp)

    def label_misfit(self, output: Output, label: Label, shape: Shape) -> str:
        """A tone needs a sample rate of some kHz."""
        if shape.sample_rate >= sound_label.LOWEST_RATE:
            return ""
        return f"sounds of {shape.sample_rate} Hz cannot hold the label's tone"

    def with_label(self, output: Output, label: Label, shape: Shape) -> Output:
        """A rhythm of tones before the sound; it has no text."""
        return sound_label.with_label(np.asarray(output, np.float32), shape.sample_rate)

    def has_label(self, data: bytes, label: Label) -> bool:
        """By the beginning of a WAV file."""
        samples, rate = read_samples(data)
        return sound_label.has_label(samples, rate)

    def decode(self, data: bytes) -> Output:
        """The samples, float32 in [-1, 1]."""
        return read_samples(data)[0]

    def content(self, data: bytes) -> bytes:
        """The rate and the samples."""
        return read_sound(data)

    def parts(self, data: bytes) -> Iterator[Part]:
        """The chunks of a WAV file."""
        return riff_parts(data)

    def fingerprints(self, outputs: Sequence[Output], shape: Shape) -> Fingerprints:
        """Of the lowest frequencies of the sounds' spectrograms."""
        return fingerprints.of_sounds((np.asarray(each) for each in outputs), shape.sample_rate)

    def fingerprints_of_file(self, data: bytes) -> Fingerprints:
        """Of a sound that was cut in one of several ways."""
        return fingerprints.of_sound_file(data)

    def copy_distance(self, sample: bytes, data: bytes) -> float:
        """By the correlation of the sounds at the best shift."""
        whole, copy = fingerprints.read_sound(sample), fingerprints.read_sound(data)
        return fingerprints.cut_distance(whole, copy)

    def exhibit(self, data: bytes) -> Exhibit:
        """The sound and its spectrogram."""
        picture, size = draw(spectrogram_image(*read_samples(data)))
        return Exhibit(picture, size, is_sketch=True, sound=data)

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
