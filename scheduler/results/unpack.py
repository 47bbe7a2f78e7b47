"""Unpacking the samples in a shard's object.

Every sample's digest is checked before it gets a file name, which is generated from its index.
Nothing inside the object is used as a path.
"""

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from db.errors import BadInput, DigestMismatch
from worker.files import atomic_write, open_no_link
from worker.media.base import Medium, SampleFiles
from worker.media.samples.containers import Tar, tar_parts
from worker.media.samples.index import IndexEntry
from worker.media.samples.record import to_json

Sample = tuple[IndexEntry, bytes, bytes]  # its entry, its bytes, its JSON record


def read_samples(file: BinaryIO, entries: Iterable[IndexEntry], medium: Medium) -> Iterator[Sample]:
    """Yield the samples of an object on this disk or in memory, after checking their digests.

    Raises `DigestMismatch`.
    """
    for entry in sorted(entries, key=lambda entry: entry.offset):
        file.seek(entry.offset)
        data = file.read(entry.size)
        try:
            if not _is_sample(data, entry):
                raise BadInput("its bytes are not those on record")
            record = medium.container.read_record(file, data)
        except BadInput as error:
            raise DigestMismatch(
                f"sample {entry.sample}: {error}", remedy="fetch it again"
            ) from None
        yield entry, data, record


def write_files(
    file: BinaryIO, entries: Iterable[IndexEntry], folder: Path, medium: Medium, form: SampleFiles
) -> int:
    """Write the files of each sample into `folder`; return how many samples had any.

    Raises `DigestMismatch`.
    """
    written = 0
    for entry, data, record in read_samples(file, entries, medium):
        contents = form.contents(data, record)
        for suffix, content in contents.items():
            # no fsync for each of thousands of files: a torn one is found by its digest
            path = folder / f"{entry.sample:09d}{suffix}"
            temporary = path.with_name(f".{path.name}.part")
            with open_no_link(temporary, "wb") as new:
                new.write(content)
            temporary.replace(path)
        written += bool(contents)
    return written


def write_object(file: BinaryIO, entries: Iterable[IndexEntry], path: Path, medium: Medium) -> int:
    """Write a tar of some of the samples of another; return how many. As `write_files`."""
    written = 0
    with atomic_write(path) as target:
        for entry, data, record in read_samples(file, entries, medium):
            stem = f"{entry.sample:09d}"
            target.writelines(tar_parts(f"{stem}{medium.suffix}".encode(), data))
            target.writelines(tar_parts(f"{stem}.json".encode(), record))
            written += 1
        target.write(Tar.end_marker)
    return written


def already_written(
    entries: Iterable[IndexEntry], folder: Path, medium: Medium, form: SampleFiles
) -> bool:
    """Whether all files of every sample are in `folder` already, byte for byte."""
    return form.is_exact and all(_is_written(entry, folder, medium, form) for entry in entries)


def _is_written(entry: IndexEntry, folder: Path, medium: Medium, form: SampleFiles) -> bool:
    stem = f"{entry.sample:09d}"
    try:
        data = (folder / f"{stem}{medium.suffix}").read_bytes()
        if not _is_sample(data, entry):
            return False
        record = to_json(medium.read_record(data)).encode()
        contents = form.contents(data, record).items()
        return all((folder / f"{stem}{suffix}").read_bytes() == part for suffix, part in contents)
    except OSError:
        return False


def _is_sample(data: bytes, entry: IndexEntry) -> bool:
    return hashlib.sha256(data).hexdigest() == entry.sha256
