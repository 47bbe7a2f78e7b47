"""The checked jobs of a batch between two passes: in memory, or on disk if they are many."""

import marshal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import SpooledTemporaryFile, gettempdir
from typing import IO, Any

from db.new_jobs import NewJob
from scheduler.submission.requests import Request
from worker.files import full_disk
from worker.specs import Spec, parse_spec

Show = Callable[[str, int, int | None], None]  # what is done, to how many lines, of how many

IN_MEMORY_BYTES = 8 << 20
AT_ONCE = 500  # lines


def show_nothing(what: str, done: int, total: int | None) -> None:
    """Show no progress."""


@contextmanager
def spooled(
    requests: Iterable[Request], *, key: str | None = None, show: Show = show_nothing
) -> Iterator["Spool"]:
    """Spool requests until the end of the block. Raises `Unreachable` if the disk is full."""
    with SpooledTemporaryFile(IN_MEMORY_BYTES) as file:
        spool = Spool(file, key)
        with full_disk(Path(gettempdir())):
            spool.write(requests, show)
        yield spool


class Spool:
    """Checked jobs, in the order of their lines; `key` is the batch's idempotency key."""

    def __init__(self, file: IO[bytes], key: str | None) -> None:
        self.key = key
        self.count = 0
        self._file = file

    def write(self, requests: Iterable[Request], show: Show) -> None:
        """Add jobs as they are checked."""
        rows: list[Any] = []
        for request in requests:
            # only a repeated key compares what was asked for
            asked = request.asked.model_dump(mode="json", exclude_unset=True) if self.key else None
            rows.append((asked, *request.new_job()))
            if len(rows) == AT_ONCE:
                self._add(rows)
                show("lines checked", self.count, None)
                rows = []
        self._add(rows)

    def jobs(self) -> Iterator[NewJob]:
        """The jobs to insert; the first holds the idempotency key."""
        key = self.key
        for _, job in self._rows():
            yield job._replace(idempotency_key=key) if key else job
            key = None

    def asked(self) -> Iterator[tuple[Spec, str]]:
        """Each spec as it was submitted, and the hash of the pinned one. Needs a key."""
        return ((parse_spec(asked), job.spec_hash) for asked, job in self._rows())

    def _rows(self) -> Iterator[tuple[Any, NewJob]]:
        self._file.seek(0)
        while size := int.from_bytes(self._file.read(8)):
            rows = marshal.loads(self._file.read(size))  # noqa: S302 - this process wrote it
            for asked, *values in rows:
                yield asked, NewJob(*values)

    def _add(self, rows: list[Any]) -> None:
        data = marshal.dumps(rows)
        self._file.write(len(data).to_bytes(8) + data)
        self.count += len(rows)
