"""The checked jobs of a batch between two passes: in memory, or on disk if they are many."""

import marshal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from tempfile import SpooledTemporaryFile, gettempdir
from typing import IO, Any

from db.columns import fresh_ids
from db.new_jobs import NewJob
from scheduler.submission.requests import Request, Unchecked
from worker.files import full_disk
from worker.specs import Spec, parse_spec

Show = Callable[[str, int, int | None], None]  # what is done, to how many lines, of how many

IN_MEMORY_BYTES = 8 << 20
AT_ONCE = 500  # lines


def show_nothing(what: str, done: int, total: int | None) -> None:
    """Show no progress."""


@contextmanager
def spooled(
    requests: Iterable[Request | Unchecked], *, key: str | None = None, show: Show = show_nothing
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
        self._chained = False
        self._file = file

    def write(self, requests: Iterable[Request | Unchecked], show: Show) -> None:
        """Add jobs as they are checked."""
        rows: list[Any] = []
        for request in requests:
            # only a repeated key compares what was asked for
            asked = request.asked.model_dump(mode="json", exclude_unset=True) if self.key else None
            job = request.new_job()
            self._chained = self._chained or job.waits
            rows.append((asked, *job))
            if len(rows) == AT_ONCE:
                self._add(rows)
                show("lines checked", self.count, None)
                rows = []
        self._add(rows)

    def jobs(self) -> Iterator[NewJob]:
        """The jobs to insert; the first holds the idempotency key."""
        key, ids, places = self.key, *self._ids_in_chains()
        for number, (_, job) in enumerate(self._rows()):
            linked = job
            if ids:
                after = ids[places[job.after_id]] if job.after_id else None
                linked = job._replace(id=ids[number], after_id=after)
            yield linked._replace(idempotency_key=key) if key else linked
            key = None

    def _ids_in_chains(self) -> tuple[list[str], dict[str, int]]:
        """If any job waits: the ids of all, and the places of those that jobs wait for."""
        if not self._chained:
            return [], {}
        named = {job.after_id for _, job in self._rows() if job.after_id}
        found = enumerate(job.custom_id for _, job in self._rows())
        places = {custom_id: place for place, custom_id in found if custom_id in named}
        return list(islice(fresh_ids(), self.count)), places

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
