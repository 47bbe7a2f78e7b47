"""What the samples of a download are written to: files, tars, JSON Lines, folders of labels.

A file name is generated from the number of its sample. Files of many samples are collected among
the parts of the download, and get their names once they are complete.
"""

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, cast

from db.errors import Refused
from scheduler.results import marks_file
from scheduler.results.conversion import Converter
from scheduler.results.folder_lock import alone_in
from scheduler.results.objects import JOINED, PARTS, StoredObject, file_of
from scheduler.results.replacing import refuse_lost_samples, refuse_other_samples
from scheduler.results.unpack import Sample
from worker.files import atomic_write, durable_rename, open_no_link
from worker.media.base import CombinedFiles, Medium, SampleFiles
from worker.media.samples.containers import Tar, tar_parts
from worker.media.samples.record import to_json

METADATA = "metadata.jsonl"
LONGEST_LABEL = 60  # characters of the name of a folder, 240 bytes at most

_STRANGE = re.compile(r"[^\w .-]")


class Sink(ABC):
    """Where samples of one medium go in `folder`; on the way, files of many are in `part`.

    Writing and closing raise `Refused` where samples of another download are in the way.
    """

    def __init__(self, folder: Path, name: str = "") -> None:
        self.folder, self.name = folder, name

    @property
    def part(self) -> Path:
        """The file of many samples until it is complete."""
        return self.folder / PARTS / self.name

    def open(self) -> None:
        """Begin anew; what an interrupted download has left is removed."""
        self.part.parent.mkdir(parents=True, exist_ok=True)
        self.part.unlink(missing_ok=True)

    @abstractmethod
    def write(self, each: StoredObject, samples: Iterable[Sample]) -> int:
        """Write samples of an object; return how many had anything to write."""

    def close(self) -> None:
        """Give the file of many samples its name."""
        if self.part.exists():
            refuse_lost_samples(self.folder / self.name, self.part)
            durable_rename(self.part, self.folder / self.name)

    def abandon(self) -> None:  # noqa: B027 - most keep no file open
        """Close files that stay incomplete."""


class Files(Sink):
    """Files for each sample."""

    def open(self) -> None:
        """Nothing: each file is complete by itself."""

    def write(self, each: StoredObject, samples: Iterable[Sample]) -> int:
        """See `Sink.write`: the chosen ones of each sample's files."""
        form, written = cast(SampleFiles, each.form), 0
        for entry, data, record in samples:
            contents = self._contents(form, data, record)
            files = {f"{entry.sample:09d}{suffix}": part for suffix, part in contents.items()}
            files = {name: part for name, part in files.items() if each.choice.takes(name)}
            refuse_other_samples(map(self.folder.joinpath, files), record)
            for name, content in files.items():
                write_file(self.folder / name, content)
            if files:
                self._wrote(entry.sample)
            written += bool(contents)
        return written

    def close(self) -> None:
        """Nothing, as above."""

    def _wrote(self, sample: int) -> None:
        """The chosen files of a sample were written."""

    def _contents(self, form: SampleFiles, data: bytes, record: bytes) -> Mapping[str, bytes]:
        return form.contents(data, record)


class Converted(Files):
    """Files made of a job's samples, and one that says what the marks in the folder are."""

    def __init__(self, folder: Path, converter: Converter) -> None:
        super().__init__(folder)
        self.converter = converter

    def close(self) -> None:
        """Write what became of the marks, if the samples had any and were converted."""
        if content := marks_file.updated(self.folder, self.converter.groups):
            write_file(self.folder / marks_file.NAME, content)

    def _wrote(self, sample: int) -> None:
        self.converter.written(sample)

    def _contents(self, form: SampleFiles, data: bytes, record: bytes) -> Mapping[str, bytes]:
        return self.converter.contents(data, record)


class Objects(Files):
    """Tars: whole objects as they are, and of others new ones with the chosen samples."""

    def write(self, each: StoredObject, samples: Iterable[Sample]) -> int:
        """See `Sink.write`."""
        suffix, written = cast(Medium, each.medium).suffix, 0
        with atomic_write(file_of(each.artifact, self.folder)) as target:
            for entry, data, record in samples:
                stem = f"{entry.sample:09d}"
                target.writelines(tar_parts(f"{stem}{suffix}".encode(), data))
                target.writelines(tar_parts(f"{stem}.json".encode(), record))
                written += 1
            target.write(Tar.end_marker)
        return written


class Lines(Sink):
    """One file of JSON Lines: the records, which name the files of samples that are not texts."""

    def write(self, each: StoredObject, samples: Iterable[Sample]) -> int:
        """See `Sink.write`."""
        suffix, written = cast(Medium, each.medium).suffix, 0
        with open_no_link(self.part, "ab") as lines:
            for entry, data, record in samples:
                if record is not data:
                    file = to_json({"file_name": f"{each.beside}{entry.sample:09d}{suffix}"})
                    record = file[:-1].encode() + b"," + record[1:]  # noqa: PLW2901 - it is the line
                lines.write(record + b"\n")
                written += 1
        return written


class Folders(Sink):
    """A folder for each label, and `metadata.jsonl`, as `datasets` reads an image folder."""

    def write(self, each: StoredObject, samples: Iterable[Sample]) -> int:
        """See `Sink.write`."""
        suffix, written = cast(Medium, each.medium).suffix, 0
        with open_no_link(self.part, "ab") as lines:
            for entry, data, line in samples:
                record = json.loads(line)
                name = f"{label_folder(record.get('label'))}{entry.sample:09d}{suffix}"
                self._write(self.folder / name, data, line)
                lines.write(to_json(described(name, record)).encode() + b"\n")
                written += 1
        return written

    def _write(self, path: Path, data: bytes, record: bytes) -> None:
        if path.parent != self.folder and path.parent.is_symlink():
            raise Refused(f"{path.parent} is a link", remedy="remove it")
        # no lock is kept, as there may be more labels than a process can have open files
        with nullcontext() if path.parent == self.folder else alone_in(path.parent):
            refuse_other_samples([path], record)
            write_file(path, data)


def described(name: str, record: Mapping[str, Any]) -> dict[str, Any]:
    """A line of `metadata.jsonl`: the file, its prompt as `text`, and the rest of the record.

    What has no value, or several, is left out: a column has one type.
    """
    plain = {key: value for key, value in record.items() if isinstance(value, str | int | float)}
    prompt = plain.pop("prompt", None)
    return {"file_name": name} | ({"text": prompt} if prompt is not None else {}) | plain


def label_folder(label: object) -> str:
    """The folder of a label with a slash behind it; none without a label.

    Characters that a folder's name may not have are replaced: the metadata hold the label itself.
    """
    if label is None:
        return ""
    name = _STRANGE.sub("_", str(label))[:LONGEST_LABEL].strip(" .")
    return f"{name or '_'}/"


def write_file(path: Path, content: bytes) -> None:
    """Write a file whole. Without fsync, as there are thousands: digests show a torn one."""
    temporary = path.with_name(f".{path.name}.part")
    with open_no_link(temporary, "wb") as new:
        new.write(content)
    temporary.replace(path)


def new_sink(form: SampleFiles | CombinedFiles, folder: Path) -> Sink | None:
    """The sink of a form without a table."""
    match form:
        case CombinedFiles.OBJECTS:
            return Objects(folder)
        case CombinedFiles.RECORDS:
            return Lines(folder, JOINED[form])
        case CombinedFiles.FOLDER:
            return Folders(folder, METADATA)
        case SampleFiles():
            return Files(folder)
    return None
