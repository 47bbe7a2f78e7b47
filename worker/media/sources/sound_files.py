"""Sounds in WAV files: of one sample rate, mixed to mono; labelled by folders or by file names."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from db.errors import BadInput
from worker.data.arrays import SoundItem
from worker.data.source_files import Member, members
from worker.media.samples.wav import rate_of, read_wav
from worker.media.sources.image_files import MAX_LABELS, Layout, Rejecting, layout, natural

SUFFIXES = {".wav", ".wave"}
FEWEST = 2  # sounds of each label that file names give


@dataclass
class Survey:
    """What a first look at the headers of all sounds tells."""

    rates: Counter[int] = field(default_factory=Counter)
    folders: set[tuple[str, ...]] = field(default_factory=set)
    prefixes: Counter[str] = field(default_factory=Counter)  # of names: before the first `_`

    @property
    def rate(self) -> int:
        """The sample rate that most of the sounds have, the lowest of such."""
        return min(self.rates, key=lambda rate: (-self.rates[rate], rate), default=0)

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels in file names like `{label}_{rest}.wav`; none where they do not look so.

        All names must have such a head, and there must be two heads or more, of two files or more
        each: as in the Free Spoken Digit Dataset's `{digit}_{speaker}_{take}.wav`.
        """
        heads = self.prefixes
        if "" in heads or not 2 <= len(heads) <= MAX_LABELS or min(heads.values()) < FEWEST:
            return ()
        return tuple(sorted(heads, key=natural))


@dataclass(frozen=True)
class Plan:
    """What is taken of the sounds, and how each one's label is told."""

    rate: int
    folders: Layout
    named: tuple[str, ...]  # the labels, where file names and not folders tell them

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels in order; none where the sounds are unlabelled."""
        return self.folders.labels or self.named

    def read(self, member: Member) -> tuple[int | None, int]:
        """The number of a sound's label and its split's code; `BadInput` where it has no label."""
        label, given = self.folders.read(member.parents)
        if self.named:
            label = head_of(member)
        if self.labels and label is None:
            raise BadInput("lies beside the folders of the labels, in none of them")
        return (None if label is None else self.labels.index(label)), given


def survey(path: Path) -> Survey:
    """Look at every sound's header. Files that are none count for nothing here."""
    seen = Survey()
    for member in members(path):
        if member.suffix in SUFFIXES:
            try:
                with member.open() as file:
                    seen.rates[rate_of(file)] += 1
            except BadInput:
                continue
            seen.folders.add(member.parents)
            seen.prefixes[head_of(member)] += 1
    return seen


def planned(seen: Survey) -> Plan:
    """Labels by folders where there are any, else by names like `{label}_{rest}.wav`."""
    folders = layout(seen.folders)
    return Plan(seen.rate, folders, () if folders.labels else seen.labels)


def items(path: Path, plan: Plan, *, reject: Rejecting) -> Iterator[SoundItem]:
    """Every usable sound with its label and split; the others go to `reject`."""
    for member in members(path):
        try:
            if member.suffix not in SUFFIXES:
                raise BadInput(f"no sound by its name; taken are {', '.join(sorted(SUFFIXES))}")
            with member.open() as file:
                rate, samples = read_wav(file)
            label, given = plan.read(member)
            if rate != plan.rate:
                raise BadInput(
                    f"{rate:,} Hz, and most have {plan.rate:,}: resample it, or add it separately"
                )
        except BadInput as error:
            reject(member.name, str(error))
        else:
            yield SoundItem(samples, label, given)


def head_of(member: Member) -> str:
    """What a file's name has before its first `_`; nothing where it has none."""
    head, mark, _ = PurePosixPath(member.name).stem.partition("_")
    return head if mark else ""
