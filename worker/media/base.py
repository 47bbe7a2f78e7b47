"""The interface of a medium, which `worker.media.image`, `audio` and `text` implement."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from db.errors import Refused
from worker.cleaning.recipe import Recipe
from worker.cleaning.settle import Settlement
from worker.cleaning.steps import Chain, Step
from worker.data.dataset import TRAIN, VALIDATION, LocalDataset, Shape
from worker.data.split import Counts
from worker.media.faults.pictures import most_compared, picture_faults, spread_over
from worker.media.fingerprints.bits import Fingerprints
from worker.media.samples.containers import Output, SampleRecord, Writer
from worker.media.samples.exhibit import Exhibit
from worker.media.samples.parts import Part
from worker.media.samples.record import Record
from worker.media.samples.tags import Label, Tag
from worker.source_files.members import Rejects
from worker.source_files.source import Source

Content = tuple[Shape, Counts]  # of the dataset that was written
Sketches = npt.NDArray[np.int8]  # (N, D); distances between rows tell how alike items look


@dataclass(frozen=True)
class Intake:
    """A user's files that shall become a dataset version."""

    source: Source  # a file, folder or archive
    folder: Path  # where the dataset is written, as `LocalDataset` describes
    rejects: Rejects
    chain: Chain  # what each item goes through
    settlement: Settlement  # how duplicates and splits are decided once all are written
    options: Mapping[str, Any]  # the given ones of `Medium.options`
    reading: dict[str, str]  # how labels, splits and captions were read, for people


@dataclass(frozen=True)
class SourceFormat:
    """A kind of files that users bring: how it is recognised and how it is read.

    A folder or archive is recognised by the suffixes of its files, a single file by its own suffix;
    all others by `recognises`, which looks into the files.
    """

    name: str  # in the manifest
    description: str  # for people: "a folder or archive of sounds"
    write: Callable[[Intake], Content]
    member_suffixes: frozenset[str] = frozenset()
    file_suffixes: frozenset[str] = frozenset()
    gives_way: bool = False  # to another format of its medium with more files
    any_suffix: bool = False  # takes a single file of any suffix if its medium is asked for
    recognises: Callable[[Source], bool] = lambda _: False


@dataclass(frozen=True)
class Page:
    """How a preview shows samples: a row for each label or example prompt."""

    rows: int
    columns: int
    micro_batch: int  # small, because few samples are made
    suffix: str
    media_type: str


class CombinedFiles(Enum):
    """Downloads with many samples in each file."""

    OBJECTS = "the stored objects as they are"
    RECORDS = "one JSON Lines file of all records"
    TABLE = "one Parquet table of all samples with their records"
    FOLDER = "files in folders of their labels, and one JSON Lines file of their records"


@dataclass(frozen=True)
class SampleFiles:
    """A download with separate files for each sample, named `000000017` and a suffix.

    `contents` makes them, by one of the `suffixes`, from the bytes of a sample and its record. It
    makes none of a sample that lacks what the format `needs`.
    """

    contents: Callable[[bytes, bytes], Mapping[str, bytes]]
    suffixes: tuple[str, ...]
    needs: str = ""

    @property
    def is_exact(self) -> bool:
        """Whether a sample's own bytes are among its files, so that its digest can be checked."""
        return not self.needs


@dataclass(frozen=True)
class Conversion(SampleFiles):
    """A download of files of another kind than the samples, which lack what marks samples have.

    Where they are samples of another medium, of this `shape`, `convert` gives the output and the
    record of such a one, and its marks are made anew; None of a sample that lacks what is needed.
    """

    shape: Shape | None = None
    convert: Callable[[bytes], tuple[Output, Record] | None] | None = None


Downloads = Mapping[str, SampleFiles | CombinedFiles]  # by `--as`, the default first


class Medium(ABC):
    """All that is particular to one kind of content."""

    name: ClassVar[str]  # the module's
    precedence: ClassVar[int]  # in a folder with files of several media, the lowest wins
    options: ClassVar[tuple[str, ...]] = ()  # for adding files, beside those that all media have
    sources: ClassVar[tuple[SourceFormat, ...]]
    smallest: ClassVar[tuple[float, str]]  # items that are taken by default, and the unit
    augmentations: ClassVar[Mapping[str, tuple[float, float]]] = {}  # that can be declared: bounds

    signature: ClassVar[bytes]  # the first bytes of every sample
    suffix: ClassVar[str]  # of a sample's file
    sample_type: ClassVar[str]  # the media type of that file
    schema_type: ClassVar[str]  # https://schema.org/CreativeWork or one of those below it
    container: ClassVar[type[Writer]]  # of the samples of a shard
    downloads: ClassVar[Downloads]
    # the type of a column of samples in the library `datasets`; None: the record has the content
    feature: ClassVar[str | None] = None
    recognised: ClassVar[bool] = False  # whether a sample is known by its look, encoded again
    watermark: ClassVar[str]  # the mark of `worker.marks` that its content can carry

    policy: ClassVar[Mapping[str, Any]]  # the gate's, by default: `worker.gate.policy`
    evaluated: ClassVar[int]  # samples that an evaluation makes where nobody says how many
    pictured: ClassVar[bool] = False  # whether samples can be looked at as pictures
    compared: ClassVar[int] = 10_000  # training pictures that a page of samples is compared with
    page: ClassVar[Page]
    pipeline_tag: ClassVar[str]  # on model cards: https://huggingface.co/tasks

    def claims(self, data: bytes) -> bool:
        """Whether a file begins as the medium's samples do."""
        return data.startswith(self.signature)

    @abstractmethod
    def encode(self, samples: Sequence[SampleRecord], shape: Shape) -> list[bytes]:
        """The bytes of each sample with its record inside.

        Raises `NonFinite` or `Refused` for an output of another medium, shape or type.
        """

    @abstractmethod
    def read_record(self, data: bytes) -> Record:
        """The record inside a sample's bytes; `BadInput` if there is none."""

    def has_record(self, data: bytes, sample: SampleRecord) -> bool:
        """Whether a file has a sample's record, byte for byte, where `encode` writes it.

        False also where that cannot be told without reading the record.
        """
        return False

    @abstractmethod
    def with_tags(self, data: bytes, tags: Sequence[Tag]) -> bytes:
        """A sample's file with tags that it does not have yet."""

    @abstractmethod
    def read_tags(self, data: bytes) -> Mapping[str, str]:
        """What the metadata of a file say, by place, in any format that the medium's readers know.

        Raises `BadInput` if it is damaged, or another medium's.
        """

    def tag_bytes(self, data: bytes) -> bytes:
        """What `with_tags` added to a file: equal bytes are equal tags. Empty if they lie apart."""
        return b""

    @abstractmethod
    def tag_places(self, name: str, xmp: str) -> tuple[str, ...]:
        """Where a sample's file has a tag of this name and XMP property, as `read_tags` says."""

    label_text: ClassVar[str]  # of a label that people see or hear, unless another is asked for

    def check_label(self, text: str) -> None:  # noqa: B027 - most take any
        """Refuse the text of a label that samples cannot have."""

    @abstractmethod
    def label_misfit(self, output: Output, label: Label, shape: Shape) -> str:
        """Why an output has no room for a label; empty if it has."""

    @abstractmethod
    def with_label(self, output: Output, label: Label, shape: Shape) -> Output:
        """A copy of an output with a label."""

    @abstractmethod
    def has_label(self, data: bytes, label: Label) -> bool:
        """Whether a file has a label; `BadInput` if it cannot be read."""

    @abstractmethod
    def decode(self, data: bytes) -> Output:
        """What was encoded in a sample, as far as it was kept; `BadInput` if it is damaged."""

    def content(self, data: bytes) -> bytes:
        """What a sample shows, whatever its encoding and record; `BadInput` if it is damaged."""
        return data

    @abstractmethod
    def parts(self, data: bytes) -> Iterator[Part]:
        """What each stretch of a sample's file is; the file may be damaged."""

    @abstractmethod
    def fingerprints(self, outputs: Sequence[Output], shape: Shape) -> Fingerprints:
        """A fingerprint of each sample, which that of a changed copy is near."""

    @abstractmethod
    def fingerprints_of_file(self, data: bytes) -> Fingerprints:
        """Those of a file in any format, one for each way it may have been cut.

        Raises `BadInput` for a file of another medium, and for one that is damaged.
        """

    @abstractmethod
    def copy_distance(self, sample: bytes, data: bytes) -> float:
        """How far a file is from being a copy of this sample, or a part of one.

        1 is the distance of near-duplicates. Raises `BadInput` as `fingerprints_of_file`.
        """

    @abstractmethod
    def exhibit(self, data: bytes) -> Exhibit:
        """What a page shows of a sample; `BadInput` if it is damaged."""

    @abstractmethod
    def write_page(self, outputs: Sequence[Output], shape: Shape, path: Path) -> None:
        """Write a file that shows outputs row by row, as `page` says."""

    def pictures(self, samples: Sequence[Output], shape: Shape) -> npt.NDArray[np.uint8]:
        """Samples as pictures of one size (N, H, W, C); only of media that are `pictured`."""
        raise Refused(f"{self.name} samples cannot be looked at as pictures")

    def sketches(self, samples: Sequence[bytes]) -> Sketches:
        """What encoding again leaves of samples of one shape; only of media that are `recognised`.

        One row of numbers a sample, near that of the same sample in another encoding.
        """
        raise self._not_recognised()

    def sketch_of_file(self, data: bytes) -> Sketches:
        """The sketch of a file in any format, one row; `BadInput` if it cannot be read."""
        raise self._not_recognised()

    def difference(self, sample: bytes, data: bytes) -> float:
        """How far a file is from being this sample encoded again; 1 is that of near-duplicates."""
        raise self._not_recognised()

    def _not_recognised(self) -> Refused:
        return Refused(f"{self.name} samples are not known by their look")

    def faults(
        self, samples: Sequence[Output], dataset: LocalDataset, shape: Shape, *, tuned: bool
    ) -> list[str]:
        """What is plainly wrong with a page of samples of a version that learnt from `dataset`.

        A version that was `tuned` from another knows more than the dataset. Here for media that are
        `pictured`.
        """
        splits = dataset.splits()

        def some(split: int, most: int) -> npt.NDArray[np.uint8]:
            places = spread_over(np.flatnonzero(splits == split), most)
            return self.pictures(self.outputs(dataset, places.tolist()), shape)

        if not all((splits == split).any() for split in (TRAIN, VALIDATION)):
            return []
        made = self.pictures(samples, shape)
        most = min(self.compared, most_compared(made.shape[1:]))
        return picture_faults(made, some(VALIDATION, len(made)), some(TRAIN, most))

    def check_options(self, name: str, options: Mapping[str, Any]) -> None:
        """Refuse options for adding `name` that this medium does not have."""
        for option in options.keys() - set(self.options):
            shown = option.replace("_", "-")
            raise Refused(
                f"{shown} {options[option]}: {name} is {self.name} data, which has no {shown}",
                remedy=f"leave {shown} out",
            )

    @abstractmethod
    def cleaning(self, recipe: Recipe) -> list[Step]:
        """The steps that each item goes through."""

    @abstractmethod
    def contents(self, dataset: LocalDataset) -> Iterator[bytes]:
        """The bytes of each item of a dataset, in order; equal for equal items."""

    @abstractmethod
    def outputs(self, dataset: LocalDataset, items: Sequence[int]) -> list[Output]:
        """Some items of a dataset, as `write_page` takes them."""

    def recipe_for(self, shape: Shape) -> dict[str, Any]:
        """The options by which further files fit to a dataset of this shape."""
        return {"kind": self.name}

    def open_writer(self, path: Path, shape: Shape) -> Writer:
        """A writer of samples into one object; while it is large, it lies in the file `path`."""
        return self.container(path, self.suffix, lambda samples: self.encode(samples, shape))

    def download(self, form: str | None) -> SampleFiles | CombinedFiles:
        """The format that `--as` names, or the default."""
        if form is None:
            return next(iter(self.downloads.values()))
        if form not in self.downloads:
            known = ", ".join(f"--as {each}" for each in self.downloads)
            raise Refused(
                f"{self.name} samples cannot be downloaded as {form}", remedy=f"use {known}"
            )
        return self.downloads[form]
