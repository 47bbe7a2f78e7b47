"""A folder or zip of sounds of one sample rate, mixed to mono, labelled by folders or file names.

A format of sound files is an entry of `DECODERS`: a suffix and two functions of an open file.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

import numpy as np
import numpy.typing as npt

from db.errors import BadInput
from worker.data.source_files import Member, Rejects, members, read_each
from worker.media.samples.wav import read_rate, read_wav
from worker.media.sources.folder_labels import MAX_LABELS, FolderLabels, folder_labels, natural_key

MIN_PER_PREFIX = 2  # sounds of each prefix, if file names give the labels

Samples = npt.NDArray[np.int16]  # (T,), mono


class Decoder(NamedTuple):
    """How a format is read. Both functions raise `BadInput` for files of other formats."""

    rate: Callable[[IO[bytes]], int]  # Hz, from the header alone
    read: Callable[[IO[bytes]], tuple[int, Samples]]  # the rate and the samples


DECODERS = dict.fromkeys((".wav", ".wave"), Decoder(read_rate, read_wav))


class SoundItem(NamedTuple):
    """A sound of any length, its label's number and its split's code."""

    samples: Samples
    label: int | None
    split: int


@dataclass
class SoundHeaders:
    """What the headers, folders and names of all sounds tell."""

    rates: Counter[int] = field(default_factory=Counter)
    folders: set[tuple[str, ...]] = field(default_factory=set)
    prefixes: Counter[str] = field(default_factory=Counter)  # of file names, before the first `_`

    @property
    def rate(self) -> int:
        """The most frequent sample rate; the lowest of several."""
        return min(self.rates, key=lambda rate: (-self.rates[rate], rate), default=0)

    def labels(self) -> "SoundLabels":
        """Labels by folders, or else by file names such as `{label}_{rest}.wav`.

        File names count if all have such a prefix and there are at least two prefixes, of at least
        two files each, as in the Free Spoken Digit Dataset's `{digit}_{speaker}_{take}.wav`.
        """
        folders, found = folder_labels(self.folders), self.prefixes
        if folders.labels or "" in found or not 2 <= len(found) <= MAX_LABELS:
            return SoundLabels(folders, ())
        named = min(found.values()) >= MIN_PER_PREFIX
        return SoundLabels(folders, tuple(sorted(found, key=natural_key)) if named else ())


@dataclass(frozen=True)
class SoundLabels:
    """Where the labels of sounds come from."""

    folders: FolderLabels
    named: tuple[str, ...]  # the labels, if they come from file names and not from folders

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels in order; none if the sounds are unlabelled."""
        return self.folders.labels or self.named

    def read(self, member: Member) -> tuple[int | None, int]:
        """The number of a sound's label and its split's code; `BadInput` if it lacks a label."""
        label, split = self.folders.read(member.parents)
        if self.named:
            label = _prefix(member)
        self.folders.require(label)
        return (None if label is None else self.labels.index(label)), split


def read_headers(path: Path) -> SoundHeaders:
    """Read every sound's header. Files that are not sounds are skipped."""
    found = SoundHeaders()

    def look(member: Member) -> None:
        with member.open() as file:
            found.rates[DECODERS[member.suffix].rate(file)] += 1
        found.folders.add(member.parents)
        found.prefixes[_prefix(member)] += 1

    for _ in read_each(members(path), DECODERS, look, Rejects()):
        pass
    return found


def read_sounds(
    path: Path, labels: SoundLabels, rejects: Rejects, *, rate: int
) -> Iterator[SoundItem]:
    """Every usable sound with its label and split; unusable files go to `rejects`."""

    def read(member: Member) -> SoundItem:
        with member.open() as file:
            own_rate, samples = DECODERS[member.suffix].read(file)
        label, split = labels.read(member)
        if own_rate != rate:
            raise BadInput(
                f"a sample rate of {own_rate:,} Hz, while most have {rate:,}",
                remedy="resample it, or add it as another dataset",
            )
        return SoundItem(samples, label, split)

    return read_each(members(path, rejects), DECODERS, read, rejects)


def _prefix(member: Member) -> str:
    """The part of a file's name before its first `_`, or nothing."""
    prefix, mark, _ = PurePosixPath(member.name).stem.partition("_")
    return prefix if mark else ""
