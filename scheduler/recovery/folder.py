"""The folder that a backup is: its files, and the description that is written last.

backup.json    what it is: format, times, counts, digests
record.db      the record, as an SQLite file
objects.jsonl  a line for each object: key, sha256, size
objects/       the objects by their keys, unless they are only listed
"""

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal, NamedTuple

from db.errors import BadInput, DigestMismatch, NotFound
from db.path_errors import read_whole, reading, require_file, shown
from worker.files import digest_of

FORMAT = 1
DESCRIPTION, RECORD, LIST, OBJECTS = "backup.json", "record.db", "objects.jsonl", "objects"

MAX_DESCRIPTION = 1 << 20  # bytes

Mode = Literal["copy", "list"]


class StoredObject(NamedTuple):
    """An object of a backup. `sha256` is None if it is only listed and has none on record."""

    key: str
    sha256: str | None
    size: int


@dataclass(frozen=True)
class Description:
    """What `backup.json` says."""

    format: int
    genmill: str
    schema: str
    made_at: str
    objects: Mode
    count: int  # of objects
    size_bytes: int  # of them
    record_sha256: str
    list_sha256: str

    def write(self, folder: Path) -> None:
        """Write it into the folder."""
        (folder / DESCRIPTION).write_text(json.dumps(asdict(self), indent=2) + "\n", "utf-8")


def read_description(folder: Path) -> Description:
    """The description of a whole backup. Raises `NotFound`, `BadInput` or `DigestMismatch`."""
    with reading(folder / DESCRIPTION):
        if folder.is_dir() and DESCRIPTION not in os.listdir(folder):  # noqa: PTH208 - names
            raise NotFound(
                f"{shown(folder)} is not a backup: it has no {DESCRIPTION}",
                remedy="give the folder that `genmill backup` printed",
            )
    text = read_whole(folder / DESCRIPTION, "what describes a backup", limit_bytes=MAX_DESCRIPTION)
    try:
        found = Description(**json.loads(text.decode("utf-8", errors="replace")))
        datetime.fromisoformat(found.made_at)
    except (ValueError, TypeError) as error:
        raise BadInput(f"{folder / DESCRIPTION} cannot be read: {error}") from None
    if found.format != FORMAT:
        raise BadInput(
            f"{folder} is a backup of format {found.format}, and this version reads {FORMAT}",
            remedy="use the version of Genmill that made it",
        )
    for name, sha256 in ((RECORD, found.record_sha256), (LIST, found.list_sha256)):
        require_file(folder / name)
        with reading(folder / name):
            if digest_of(folder / name) != sha256:
                raise DigestMismatch(f"{folder / name} has changed since the backup was made")
    return found


def read_list(folder: Path) -> Iterator[StoredObject]:
    """The objects of a backup."""
    with reading(folder / LIST), (folder / LIST).open(encoding="utf-8") as lines:
        for line in lines:
            yield StoredObject(**json.loads(line))
