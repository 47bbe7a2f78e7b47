"""What a medium is: the contract that `worker.media.image`, `audio` and `text` fulfil."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, ClassVar

from db.errors import Refused
from worker.data.dataset import Shape
from worker.data.source_files import Rejects
from worker.data.split import Counts, Ratio
from worker.media.samples.containers import Output, Writer
from worker.media.samples.record import Record

Content = tuple[Shape, Counts]  # of a dataset that was written


@dataclass(frozen=True)
class Intake:
    """A user's files on their way into a dataset version."""

    path: Path  # a file, folder or zip
    folder: Path  # where the dataset is written, as `LocalDataset` describes
    ratio: Ratio
    rejects: Rejects
    options: Mapping[str, Any]  # those of `Medium.options` that were given


@dataclass(frozen=True)
class SourceFormat:
    """A kind of files that users bring: how it is told from others, and how it is read.

    A folder or zip is told by the suffixes `inside` it, a single file by its own; the rest by
    `recognises`, which looks into the file or folder.
    """

    name: str  # in the manifest
    taken: str  # for people: "a folder or zip of WAV files"
    write: Callable[[Intake], Content]
    inside: frozenset[str] = frozenset()
    alone: frozenset[str] = frozenset()
    any_name: bool = False  # takes a single file of any name where its medium is asked for
    recognises: Callable[[Path], bool] = lambda _: False


@dataclass(frozen=True)
class Page:
    """The samples that a preview shows: a row for each label or example prompt."""

    rows: int
    columns: int
    micro_batch: int  # few at once, so that few samples take little time
    suffix: str
    media_type: str


class Whole(Enum):
    """Downloads of more than one sample a file."""

    OBJECTS = "the stored objects as they are"
    RECORDS = "one JSON Lines file of all records"


@dataclass(frozen=True)
class SampleFiles:
    """A download with files of its own for each sample, called `000000017` and a suffix.

    `contents` makes them of a sample's bytes and its record, by suffix; none of a sample that lacks
    what the format `needs`.
    """

    contents: Callable[[bytes, bytes], Mapping[str, bytes]]
    needs: str = ""

    @property
    def is_exact(self) -> bool:
        """Whether a sample's bytes are among its files, so that a digest tells that it is there."""
        return not self.needs


Downloads = Mapping[str, SampleFiles | Whole]  # by `--as`, the default first


class Medium(ABC):
    """All that is particular to one kind of content."""

    name: ClassVar[str]  # the module's
    precedence: ClassVar[int]  # of media whose files are mixed in one folder, the lowest is taken
    options: ClassVar[tuple[str, ...]] = ()  # of taking files in, beside those that all media have
    sources: ClassVar[tuple[SourceFormat, ...]]

    signature: ClassVar[bytes]  # the first bytes of every sample
    suffix: ClassVar[str]  # of a sample's file
    container: ClassVar[type[Writer]]  # of the samples of a shard
    downloads: ClassVar[Downloads]

    page: ClassVar[Page]
    pipeline_tag: ClassVar[str]  # on model cards: https://huggingface.co/tasks

    @abstractmethod
    def encode(self, output: Output, record: Record, shape: Shape) -> bytes:
        """A sample's bytes with its record inside; `NonFinite` or `Refused` for other outputs."""

    @abstractmethod
    def read_record(self, data: bytes) -> Record:
        """The record inside a sample's bytes; `BadInput` where there is none."""

    @abstractmethod
    def write_page(self, outputs: Sequence[Output], shape: Shape, path: Path) -> None:
        """Write outputs to look at, row by row as `page` says."""

    def check_options(self, name: str, options: Mapping[str, Any]) -> None:
        """Refuse options of taking in `name` that this medium does not have."""
        for option in options.keys() - set(self.options):
            raise Refused(f"{option} {options[option]}: {name} is {self.name} data, which has none")

    def open_writer(self, path: Path, shape: Shape) -> Writer:
        """A writer of samples into the new file `path`."""
        return self.container(
            path, self.suffix, lambda sample: self.encode(sample.output, sample.record, shape)
        )

    def download(self, form: str | None) -> SampleFiles | Whole:
        """The format that `--as` names, the default where it names none."""
        if form is None:
            return next(iter(self.downloads.values()))
        if form not in self.downloads:
            known = ", ".join(f"--as {each}" for each in self.downloads)
            raise Refused(f"{self.name} samples are not kept as {form}", remedy=f"use {known}")
        return self.downloads[form]
