"""Sounds mixed to mono, brought to one rate, and labelled by folders, file names or tables."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from io import BytesIO
from typing import IO, NamedTuple

from db.errors import BadInput
from worker.cleaning.steps import Chain
from worker.media.sources import codecs, wav_files
from worker.media.sources.annotations import Annotations
from worker.media.sources.codecs import Samples
from worker.media.sources.layout import Layout, Names
from worker.source_files.members import Member, Rejects, read_each
from worker.source_files.source import Source

SUFFIXES = frozenset(
    {
        *(".wav", ".wave", ".w64", ".flac", ".ogg", ".oga", ".opus", ".mp3"),
        *(".aif", ".aiff", ".aifc", ".caf", ".au", ".snd"),
    }
)


class SoundItem(NamedTuple):
    """A sound of any length, its label's number and its split's code."""

    samples: Samples
    label: int | None
    split: int


@dataclass
class SoundHeaders:
    """What the headers, folders and names of all sounds tell."""

    rates: Counter[int] = field(default_factory=Counter)
    names: Names = field(default_factory=Names)

    @property
    def rate(self) -> int:
        """The most frequent sample rate; the lowest of several."""
        return min(self.rates, key=lambda rate: (-self.rates[rate], rate), default=0)

    def describe_rates(self, rate: int, *, resample: bool) -> str:
        """The rate of the dataset and what became of files of others, for people."""
        others = sum(self.rates.values()) - self.rates[rate]
        fate = "resampled" if resample else "left out"
        return f"{rate:,} Hz" + (f"; {others:,} of other rates {fate}" if others else "")


def read_headers(source: Source) -> SoundHeaders:
    """Read every sound's header. Files that are not sounds are skipped."""
    found = SoundHeaders()

    def look(member: Member) -> None:
        with member.open() as file:
            decoder, sound = _recognise(file)
            found.rates[decoder.rate_of(sound)] += 1
        found.names.add(member)

    for _ in read_each(source.members(), SUFFIXES, look, Rejects()):
        pass
    return found


def read_sounds(
    source: Source,
    layout: Layout,
    notes: Annotations,
    rejects: Rejects,
    chain: Chain,
    *,
    rate: int,
    resample: bool = True,
) -> Iterator[SoundItem]:
    """Every usable sound with its label and split; unusable files go to `rejects`.

    What the `notes` say of a sound goes before what its folders and name say. Sounds of another
    rate are resampled, or else left out.
    """
    numbers = {label: number for number, label in enumerate(notes.labels or layout.labels)}

    def found() -> Iterator[Member]:
        return (each for each in source.members(rejects) if each.name not in notes.files)

    def read(member: Member) -> SoundItem:
        with member.open() as file:
            decoder, sound = _recognise(file)
            own_rate, samples = decoder.read(sound)
        label, split = layout.read(member)
        given = notes.of(member)
        label = given.label if notes.labels else label
        if own_rate != rate and not resample:
            raise BadInput(
                f"a sample rate of {own_rate:,} Hz, while most have {rate:,}",
                remedy="leave out --no-resample, or add it as another dataset",
            )
        if own_rate != rate:
            samples = codecs.resample(samples, own_rate, rate)
        samples = chain(samples, len(samples) / rate)
        code = split if given.split is None else given.split
        return SoundItem(samples, numbers[label] if label else None, code)

    return read_each(found(), SUFFIXES, read, rejects)


def decode_sound(data: bytes) -> tuple[int, Samples]:
    """The sample rate and the samples of a sound in any format; `BadInput` if it cannot be read."""
    decoder, file = _recognise(BytesIO(data))
    return decoder.read(file)


class Decoder(NamedTuple):
    """How a format is read. Both functions raise `BadInput` for files of other formats."""

    rate_of: Callable[[IO[bytes]], int]  # Hz, from the header alone
    read: Callable[[IO[bytes]], tuple[int, Samples]]  # the rate and the samples


_WAV, _OTHERS = (
    Decoder(wav_files.read_rate, wav_files.read_wav),
    Decoder(codecs.rate_of, codecs.decode),
)


def _recognise(file: IO[bytes]) -> tuple[Decoder, IO[bytes]]:
    """The decoder of a file, judged by its first bytes, because names are often wrong.

    An ID3 tag in front of a WAV is taken off.
    """
    head = file.read(10)
    file.seek(0)
    if not head:
        raise BadInput("empty")
    if head[:3] == b"ID3" and len(head) == 10:
        size = sum((byte & 0x7F) << 7 * place for place, byte in enumerate(head[:5:-1]))
        file.seek(10 + size)
        if (mark := file.read(4)) in wav_files.MARKS:
            return _WAV, BytesIO(mark + file.read())
        file.seek(0)
    return (_WAV if head[:4] in wav_files.MARKS else _OTHERS), file
