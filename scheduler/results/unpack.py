"""Reading the samples in a shard's object, each checked by its digest.

Nothing inside the object is used as a path.
"""

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from db.errors import BadInput, DigestMismatch
from scheduler.results.choice import Choice
from worker.media.base import Medium, SampleFiles
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


def already_written(
    entries: Iterable[IndexEntry], folder: Path, medium: Medium, form: SampleFiles, choice: Choice
) -> bool:
    """Whether all chosen files of every sample are in `folder` already, byte for byte."""
    return form.is_exact and all(
        _is_written(entry, folder, medium, form, choice) for entry in entries
    )


def _is_written(
    entry: IndexEntry, folder: Path, medium: Medium, form: SampleFiles, choice: Choice
) -> bool:
    stem = f"{entry.sample:09d}"
    try:
        data = (folder / f"{stem}{medium.suffix}").read_bytes()
        if not _is_sample(data, entry):
            return False
        record = to_json(medium.read_record(data)).encode()
        contents = form.contents(data, record).items()
        chosen = ((f"{stem}{suffix}", part) for suffix, part in contents)
        return all((folder / name).read_bytes() == part for name, part in chosen
                   if choice.takes(name))  # fmt: skip
    except OSError:
        return False


def _is_sample(data: bytes, entry: IndexEntry) -> bool:
    return hashlib.sha256(data).hexdigest() == entry.sha256
