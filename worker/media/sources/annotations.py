"""Captions, labels and splits that files beside the items give.

They are read from `metadata.jsonl`, `.csv` or `.parquet` as in Hugging Face's image folders, from
other tables of file names such as Kaggle's `train.csv`, from COCO's captions, and from a text file
beside each picture as for kohya's scripts. A row that is not usable is reported by its number; a
file that is not is an error, and so is a dataset whose captions are all unusable.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain, islice
from pathlib import PurePosixPath
from typing import NamedTuple

from db.errors import BadInput, Refused
from worker.media.sources import sidecars, tables
from worker.media.sources.columns import Columns, find_columns
from worker.media.sources.file_index import FileIndex
from worker.media.sources.json_lines import require_valid_unicode
from worker.media.sources.layout import SPLITS, Layout, shown, sort_labels
from worker.media.sources.plain_text import OtherEncoding
from worker.media.sources.tables import Row
from worker.source_files.members import Member, Rejects
from worker.source_files.source import Source

METADATA = {"metadata.jsonl", "metadata.csv", "metadata.parquet", "metadata.json"}
MAX_CAPTION = 4_096  # characters
MAX_LABEL = 200  # characters
MAX_TOTAL = 512 << 20  # bytes of all captions of a dataset, because they are kept in memory
_TEXT_TABLES = {"captions.txt", "labels.txt", "annotations.txt"}
_NAMED_TABLES = ("metadata", "meta_", "caption")  # beginnings of names of JSON documents
_LOOKED_AT = 200  # rows from which the columns are told
_REMEDY = "give columns file_name and text (or caption, prompt, label), or take the file away"


_BESIDE = "a text file beside each picture"


class Given(NamedTuple):
    """What a row says of a file."""

    source: str  # "train/metadata.jsonl line 3"
    caption: str | None = None
    label: str | None = None
    split: int | None = None


@dataclass
class Annotations:
    """What the files beside the items say, by the items' names inside the folder or archive."""

    given: dict[str, Given] = field(default_factory=dict)
    files: set[str] = field(default_factory=set)  # that were read, or reported already
    origins: list[str] = field(default_factory=list)  # "metadata.csv (file_name, caption)"
    captioned: bool = False
    labels: tuple[str, ...] = ()

    def of(self, member: Member) -> Given:
        """What is said of a member; `BadInput` if others have a caption or label and it lacks it.

        A member of which nothing is said has no caption, label or split.
        """
        found = self.given.get(member.name, Given(""))
        if self.captioned and found.caption is None:
            raise BadInput("no caption is given for it")
        if self.labels and found.label is None:
            raise BadInput("no label is given for it")
        return found


def read_annotations(
    source: Source, suffixes: Collection[str], rejects: Rejects, *, captions: bool = True
) -> Annotations:
    """What the files of a folder or archive say of its items, which end in one of `suffixes`.

    Without `captions` only labels and splits count. Of several rows about one item, the first does.
    Raises `BadInput` for `metadata` files that cannot be read, and if captions are given and none
    is usable; `Refused` if they do not fit into memory.
    """
    candidates = [each for each in source.members() if each.suffix in _CANDIDATES]
    found = Annotations()
    if not candidates:
        return found
    items = _Items(source, suffixes)
    beside = sidecars.find_sidecars(candidates, items) if captions else []
    texts = {member.name for _, member in beside}
    found.files = texts
    reader = _Reader(items, found, rejects, captions)
    for member in candidates:
        if member.name not in texts and _is_table(member):
            reader.read(member)
    for name, member in beside:
        reader.read_sidecar(name, member)
    reader.require_some()
    found.captioned = any(each.caption is not None for each in found.given.values())
    found.labels = sort_labels({each.label for each in found.given.values() if each.label})
    return found


def describe_reading(layout: Layout, notes: Annotations) -> dict[str, str]:
    """How labels, splits and captions were read, for people."""
    origins = shown(notes.origins, 4)
    labels = f"{shown(notes.labels)}, from {origins}" if notes.labels else layout.describe_labels()
    splits = any(each.split is not None for each in notes.given.values())
    reading = {
        "labels": labels,
        "splits": f"from {origins}" if splits else layout.describe_splits(),
    }
    return reading | ({"captions": f"from {origins}"} if notes.captioned else {})


_CANDIDATES = tables.SUFFIXES | sidecars.SUFFIXES


def _is_table(member: Member) -> bool:
    name = PurePosixPath(member.name).name.casefold()
    if member.suffix in sidecars.SUFFIXES:
        return name in _TEXT_TABLES
    if member.suffix != ".json" or name.startswith(_NAMED_TABLES):
        return "submission" not in name  # Kaggle's example of an answer holds made-up labels
    try:
        with member.open(tables.MAX_JSON) as file:
            return tables.is_coco(file.read(4096))
    except BadInput:
        return False


@dataclass(frozen=True)
class _Items:
    """The members that are items of the dataset."""

    source: Source
    suffixes: Collection[str]

    def __iter__(self) -> Iterator[Member]:
        return (each for each in self.source.members() if each.suffix in self.suffixes)

    @cached_property
    def index(self) -> FileIndex:
        """Their names, which take memory, so they are kept only if a table is read."""
        return FileIndex(member.name for member in self)


@dataclass
class _Reader:
    """Reads tables and captions into `found`."""

    items: _Items
    found: Annotations
    rejects: Rejects
    captions: bool
    meant: list[str] = field(default_factory=list)  # files that were to give captions or labels
    room: int = field(default_factory=lambda: MAX_TOTAL)

    def read(self, member: Member) -> None:
        """Add the rows of a table; if it is none, report it."""
        name = PurePosixPath(member.name).name
        metadata = name in METADATA
        self.found.files.add(member.name)
        try:
            self._read_rows(member, metadata)
        except BadInput as error:
            if metadata or member.name in self.meant:
                raise BadInput(f"{member.name}: {error.message}", remedy=error.remedy) from error
            self.rejects.add(member.name, str(error))
            if isinstance(error, OtherEncoding) or name.casefold().startswith("caption"):
                self.meant.append(member.name)

    def _read_rows(self, member: Member, metadata: bool) -> None:
        def is_file(value: str) -> bool:
            return self.items.index.resolve(member.parents, value) is not None

        rows = tables.read_table(member, is_file)
        first = list(islice(rows, _LOOKED_AT))
        usable = [row for _, row in first if not isinstance(row, BadInput)]
        columns = find_columns(member.name, usable, is_file, metadata=metadata)
        if columns is None:
            raise BadInput("a table that names no file here: it is not used")
        if not self.captions and not (columns.label or columns.split):
            self.rejects.add(member.name, "its texts are not used: sounds have labels only")
            return
        if not (columns.caption or columns.label or columns.split):
            raise BadInput("none of its columns is called caption, text, prompt, label or class")
        self.meant.append(member.name)
        self.found.origins.append(f"{member.name} (columns {columns})")
        for place, row in chain(first, rows):
            try:
                self._add(member, f"{member.name} {place}", columns, row)
            except BadInput as error:
                self.rejects.add(f"{member.name} {place}", str(error))

    def _add(self, member: Member, source: str, columns: Columns, row: Row | BadInput) -> None:
        if isinstance(row, BadInput):
            raise row
        value = row.get(columns.file)
        if not isinstance(value, str | int) or not str(value).strip():
            raise BadInput(
                f'it has no "{columns.file}", the path of an item from this file\'s folder'
            )
        caption = self._caption(row, columns) if columns.caption and self.captions else None
        label = _label(row, columns.label) if columns.label else None
        split = SPLITS.get(str(row.get(columns.split)).casefold()) if columns.split else None
        resolved = self.items.index.resolve(member.parents, str(value))
        name = resolved or str(PurePosixPath(*member.parents, str(value)))
        self._give(name, Given(source, caption, label, split))

    def _caption(self, row: Row, columns: Columns) -> str:
        text = row.get(columns.caption or "")
        if not isinstance(text, str) or not text.strip():
            raise BadInput(f'it has no "{columns.caption}", the caption of an image')
        return self._checked(text)

    def _checked(self, text: str) -> str:
        if len(text) > MAX_CAPTION:
            raise BadInput(
                f"a caption of {len(text):,} characters", remedy=f"use at most {MAX_CAPTION:,}"
            )
        require_valid_unicode(text)
        return text.strip()

    def _give(self, name: str, given: Given) -> None:
        before = self.found.given.get(name, Given(given.source))
        for what in ("caption", "label"):
            if None not in (getattr(before, what), getattr(given, what)):
                raise BadInput(f"{name} already has a {what} from {before.source}")
        self.room -= len(name) + 4 * len(given.caption or "")
        if self.room < 0:
            raise Refused(f"{given.source}: more than {MAX_TOTAL:,} bytes of captions in all")
        known = {key: value for key, value in before._asdict().items() if value is not None}
        self.found.given[name] = given._replace(**known)

    def read_sidecar(self, name: str, member: Member) -> None:
        """Add the caption in the text file beside item `name`."""
        try:
            text = sidecars.read_sidecar(member)
            if sidecars.is_boxes(text):
                self.rejects.add(member.name, "numbers such as boxes of objects, not a caption")
                return
            self._give(name, Given(member.name, self._checked(text)))
        except BadInput as error:
            self.rejects.add(member.name, str(error))
        if _BESIDE not in self.found.origins:
            self.found.origins.append(_BESIDE)
            self.meant.append(member.name)

    def require_some(self) -> None:
        """Refuse a dataset for which captions or labels were given and none could be read."""
        if self.meant and not self.found.given:
            first = self.rejects.first[0] if self.rejects.first else None
            reason = f" ({first.name}: {first.reason})" if first else ""
            raise BadInput(
                f"{self.meant[0]}: no caption or label could be read{reason}", remedy=_REMEDY
            )


def _label(row: Row, column: str) -> str:
    value = row.get(column)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    label = str(value).strip() if isinstance(value, str | int) else ""
    if not label or len(label) > MAX_LABEL:
        raise BadInput(f'it has no "{column}", a label of at most {MAX_LABEL} characters')
    require_valid_unicode(label)
    return label
