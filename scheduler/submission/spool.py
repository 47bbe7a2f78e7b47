"""The checked jobs of a batch between two passes: in memory, or on disk if they are many."""

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from operator import attrgetter
from pathlib import Path
from tempfile import SpooledTemporaryFile, gettempdir
from typing import IO, Any

from db.new_jobs import NewJob
from scheduler.submission.requests import Request
from worker.files import full_disk
from worker.specs import Spec, parse_spec

Show = Callable[[str, int, int | None], None]  # what is done, to how many lines, of how many

IN_MEMORY_BYTES = 8 << 20
SHOWN_EVERY = 1000  # lines

_FIELDS = tuple(NewJob.__slots__)
_values = attrgetter(*_FIELDS)


def show_nothing(what: str, done: int, total: int | None) -> None:
    """Show no progress."""


@contextmanager
def spooled(
    requests: Iterable[Request], *, key: str | None = None, show: Show = show_nothing
) -> Iterator["Spool"]:
    """Spool requests until the end of the block. Raises `Unreachable` if the disk is full."""
    with SpooledTemporaryFile(IN_MEMORY_BYTES, "w+", encoding="utf-8") as file:
        spool = Spool(file, key)
        with full_disk(Path(gettempdir())):
            spool.write(requests, show)
        yield spool


class Spool:
    """Checked jobs, in the order of their lines; `key` is the batch's idempotency key."""

    def __init__(self, file: IO[str], key: str | None) -> None:
        self.key = key
        self.count = 0
        self._file = file

    def write(self, requests: Iterable[Request], show: Show) -> None:
        """Add jobs as they are checked."""
        for request in requests:
            # only a repeated key compares what was asked for
            asked = request.asked.model_dump(mode="json") if self.key else None
            row = (asked, _values(request.new_job()))
            self._file.write(json.dumps(row, separators=(",", ":")) + "\n")
            self.count += 1
            if self.count % SHOWN_EVERY == 0:
                show("lines checked", self.count, None)

    def jobs(self) -> Iterator[NewJob]:
        """The jobs to insert; the first holds the idempotency key."""
        for number, (_, values) in enumerate(self._rows()):
            fields = dict(zip(_FIELDS, values, strict=True))
            if number == 0:
                fields["idempotency_key"] = self.key
            yield NewJob(**fields)

    def asked(self) -> Iterator[tuple[Spec, str]]:
        """Each spec as it was submitted, and the hash of the pinned one. Needs a key."""
        place = _FIELDS.index("spec_hash")
        for asked, values in self._rows():
            yield parse_spec(asked), values[place]

    def _rows(self) -> Iterator[tuple[Any, list[Any]]]:
        self._file.seek(0)
        return map(json.loads, self._file)
