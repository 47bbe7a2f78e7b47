"""Which columns of a table name the files, and which give captions, labels and splits."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from worker.media.sources.tables import Row

FILES = (
    *("file_name", "filename", "file", "image", "image_file", "image_path", "image_name", "img"),
    *("path", "filepath", "filepaths", "file_path", "audio", "wav", "slice_file_name", "fname"),
    *("name", "image_id", "id", "id_code", "image index"),
)
CAPTIONS = ("text", "caption", "prompt", "comment", "description", "sentence", "transcription")
LABELS = (
    *("label", "labels", "class", "class_name", "classname", "label_name", "category", "target"),
    *("species", "breed", "diagnosis", "class_id", "classid", "class id", "finding labels"),
)
SPLITS = ("split", "set", "subset", "partition", "data set", "data_set")


@dataclass(frozen=True)
class Columns:
    """The names of columns; None for what a table does not give."""

    file: str
    caption: str | None = None
    label: str | None = None
    split: str | None = None

    def __str__(self) -> str:
        given = (self.caption, self.label, self.split)
        return ", ".join([self.file, *(each for each in given if each)])


def find_columns(
    name: str, rows: Sequence[Row], is_file: Callable[[str], bool], *, metadata: bool
) -> Columns | None:
    """The columns of a table, from its first rows; None if it does not name the files.

    A `metadata` table has the columns of Hugging Face's image folders even where no file is named.
    A table with one column beside the files' gives labels if they repeat, captions if they are
    several words.
    """
    names = list(dict.fromkeys(column for row in rows for column in row))
    file = _file_column(names, rows, is_file)
    if file is None and metadata:
        file = _named(names, FILES) or "file_name"
    if file is None:
        return None
    others = [each for each in names if each != file]
    caption, label = _named(others, CAPTIONS), _named(others, LABELS)
    split = _named(others, SPLITS)
    if caption or label or metadata:
        return Columns(file, caption or (None if label else "text"), label, split)
    if len(others) != 1:
        return Columns(file, split=split)
    meaning = _meaning(name, [str(row[others[0]]) for row in rows if row.get(others[0])])
    return Columns(file, split=split, **({meaning: others[0]} if meaning else {}))


def _named(columns: Iterable[str], names: Iterable[str]) -> str | None:
    """The first of `names` that is a column, in any case."""
    found = {each.strip().casefold(): each for each in columns}
    return next((found[name] for name in names if name in found), None)


def _file_column(
    names: Sequence[str], rows: Sequence[Row], is_file: Callable[[str], bool]
) -> str | None:
    """The column that names most files, if it does so in at least half of the rows."""
    known = [each for each in names if each.strip().casefold() in FILES]
    hits = {
        name: sum(is_file(str(row[name])) for row in rows if row.get(name) is not None)
        for name in [*known, *names]
    }
    best = max(hits, key=lambda name: hits[name], default=None)
    return best if best is not None and 2 * hits[best] >= len(rows) > 0 else None


def _meaning(name: str, values: Sequence[str]) -> str | None:
    """What the only column of a table gives: labels repeat, captions have several words."""
    stem = PurePosixPath(name).stem.casefold()
    if "caption" in stem:
        return "caption"
    if "label" in stem or "class" in stem or 2 * len(set(values)) <= len(values):
        return "label"
    worded = sum(" " in value.strip() for value in values)
    return "caption" if 2 * worded >= len(values) > 0 else None
