"""A folder or zip of sounds of one sample rate, mixed to mono; labelled by folders or by names.

A format of sound files is a suffix in `DECODERS` and two functions of an open file.
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
from worker.media.samples.wav import rate_of, read_wav
from worker.media.sources.folder_labels import MAX_LABELS, FolderLabels, folder_labels, natural_key

LEAST_NAMED = 2  # sounds of each label that file names give

Samples = npt.NDArray[np.int16]  # (T,), mono


class Decoder(NamedTuple):
    """How a format is read; `BadInput` where a file is not of it."""

    rate: Callable[[IO[bytes]], int]  # Hz, from the header alone
    read: Callable[[IO[bytes]], tuple[int, Samples]]  # the rate and the samples


DECODERS = dict.fromkeys((".wav", ".wave"), Decoder(rate_of, read_wav))


class SoundItem(NamedTuple):
    """A sound of any length, its label's number, its split's code."""

    samples: Samples
    label: int | None
    split: int


@dataclass
class SoundHeaders:
    """What the headers and the names of all sounds tell."""

    rates: Counter[int] = field(default_factory=Counter)
    folders: set[tuple[str, ...]] = field(default_factory=set)
    prefixes: Counter[str] = field(default_factory=Counter)  # of names: before the first `_`

    @property
    def rate(self) -> int:
        """The sample rate that most of the sounds have, the lowest of such."""
        return min(self.rates, key=lambda rate: (-self.rates[rate], rate), default=0)

    def labels(self) -> "SoundLabels":
        """Labels by folders where there are any, else by file names."""
        folders = folder_labels(self.folders)
        return SoundLabels(folders, () if folders.labels else self._labels_in_names())

    def _labels_in_names(self) -> tuple[str, ...]:
        """The labels in file names like `{label}_{rest}.wav`; none where they do not look so.

        All names must have such a prefix, and there must be two prefixes or more, of two files or
        more each: as in the Free Spoken Digit Dataset's `{digit}_{speaker}_{take}.wav`.
        """
        found = self.prefixes
        if "" in found or not 2 <= len(found) <= MAX_LABELS or min(found.values()) < LEAST_NAMED:
            return ()
        return tuple(sorted(found, key=natural_key))


@dataclass(frozen=True)
class SoundLabels:
    """How the label of each sound is told."""

    folders: FolderLabels
    named: tuple[str, ...]  # the labels, where file names and not folders tell them

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels in order; none where the sounds are unlabelled."""
        return self.folders.labels or self.named

    def read(self, member: Member) -> tuple[int | None, int]:
        """The number of a sound's label and its split's code; `BadInput` where it has no label."""
        label, split = self.folders.read(member.parents)
        if self.named:
            label = _prefix(member)
        self.folders.require(label)
        return (None if label is None else self.labels.index(label)), split


def read_headers(path: Path) -> SoundHeaders:
    """Look at every sound's header. Files that are not sounds are skipped."""
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
    """Every usable sound with its label and split; the others go to `rejects`."""

    def read(member: Member) -> SoundItem:
        with member.open() as file:
            own_rate, samples = DECODERS[member.suffix].read(file)
        label, split = labels.read(member)
        if own_rate != rate:
            raise BadInput(
                f"{own_rate:,} Hz, and most have {rate:,}", remedy="resample it, or add it apart"
            )
        return SoundItem(samples, label, split)

    return read_each(members(path, rejects), DECODERS, read, rejects)


def _prefix(member: Member) -> str:
    """What a file's name has before its first `_`; nothing where it has none."""
    prefix, mark, _ = PurePosixPath(member.name).stem.partition("_")
    return prefix if mark else ""
