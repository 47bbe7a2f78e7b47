"""Downloading what jobs made into a folder: complete, checked against the record, resumable.

Objects are fetched several at once. File names are generated, or checked to be plain names; nothing
is ever written outside the folder. Files that are there already with the right digest are not
fetched again; files of many samples are begun anew. Samples of other downloads are not replaced
(`replacing`). A second download into the same folder, or one inside it, waits for the first.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, groupby, islice
from pathlib import Path
from types import TracebackType
from typing import Any

from db import artifacts
from db.errors import BadInput, DigestMismatch, GenmillError, NotFound, Refused
from db.jobs import as_they_are
from db.states import FINAL
from db.tables import Artifact, Job
from scheduler.results.choice import ALL, Choice
from scheduler.results.conversion import Converter, converter_of
from scheduler.results.fetching import Fetched, try_to_fetch
from scheduler.results.folder_lock import FolderLocks
from scheduler.results.marks_file import total
from scheduler.results.objects import ABOUT_SAMPLES, JOINED, PARTS, Listing, StoredObject
from scheduler.results.shortfalls import SHOWN, incomplete, no_samples, not_ended, nothing
from scheduler.results.sinks import Converted, Sink, new_sink
from scheduler.results.table import Table
from scheduler.results.threads import in_order
from scheduler.results.unpack import read_samples
from worker.files import disk_errors, inside
from worker.media import all_media
from worker.media.base import CombinedFiles, Conversion, Medium, SampleFiles
from worker.services import Services
from worker.store.base import OnBytes, ignore_bytes

FORMS = tuple(dict.fromkeys(form for medium in all_media() for form in medium.downloads))
OnTotal = Callable[[int | None], object]  # bytes to come, if that is known


@dataclass
class Downloaded:
    """What a download has fetched so far."""

    folder: Path
    objects: int = 0
    samples: int = 0
    size_bytes: int = 0
    silent: int = 0  # texts without notes, skipped in a download as MIDI or WAV
    expected: int | None = None  # samples that the jobs are to make; None: some were chosen
    unfinished: int = 0  # jobs
    numbers: set[int] = field(default_factory=set)  # of the samples, if some were chosen
    # of converted files, what each mark of their samples did, as in a manifest
    marks: dict[str, Any] = field(default_factory=dict)

    @property
    def partial(self) -> bool:
        """Whether samples are missing that jobs may still make, or did not make."""
        return self.unfinished > 0 or (self.expected or 0) > self.samples

    def document(self) -> dict[str, Any]:
        """It as plain data."""
        keys = ("objects", "samples", "size_bytes", "silent", "expected", "partial", "marks")
        return {"folder": str(self.folder)} | {key: getattr(self, key) for key in keys}


class Sinks:
    """The sinks that a download writes to; those left open at its end are abandoned."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._open: dict[tuple[Path, str], Sink] = {}
        self.converters: list[Converter] = []

    def unpack(self, fetched: Fetched) -> int:
        """Write what an object holds; return how many samples had anything to write.

        One thread does it for all: a folder takes one new file at a time, so more would only wait.
        Raises `DigestMismatch`.
        """
        each = fetched.object
        if fetched.unpacked or each.medium is None:
            return fetched.samples
        with fetched.open() as file:
            samples = read_samples(file, fetched.entries, each.medium)
            return self._of(each, each.medium).write(each, samples)

    def finish(self, folder: Path) -> None:
        """Give files of many samples in `folder` their names, and remove the parts."""
        for key in [key for key in self._open if key[0] == folder]:
            self._open[key].close()
            del self._open[key]
        _remove_parts(folder)

    def __enter__(self) -> "Sinks":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for sink in self._open.values():
            sink.abandon()
            if isinstance(error, Refused):  # it will not be resumed
                _remove_parts(sink.folder)

    def _of(self, each: StoredObject, medium: Medium) -> Sink:
        key = (each.folder, medium.name)
        if key not in self._open:
            if isinstance(each.form, Conversion):
                sink: Sink = self._converted(each, each.form)
            else:
                sink = new_sink(each.form, each.folder) or self._table(each.folder, medium)
            sink.open()
            self._open[key] = sink
        return self._open[key]

    def _converted(self, each: StoredObject, form: Conversion) -> Converted:
        self.converters.append(converter_of(self._services, each.artifact.job_id, form))
        return Converted(each.folder, self.converters[-1])

    def _table(self, folder: Path, medium: Medium) -> Table:
        """A table of this medium; one of another medium in the same folder has the usual name."""
        name = JOINED[CombinedFiles.TABLE]
        if any(sink.folder == folder for sink in self._open.values()):
            name = f"samples-{medium.name}.parquet"
        return Table(folder, name, medium)


def _remove_parts(folder: Path) -> None:
    if (parts := folder / PARTS).is_dir() and not parts.is_symlink():
        for part in parts.iterdir():
            part.unlink()
        parts.rmdir()


def download(
    services: Services,
    jobs: Sequence[Job],
    folder: Path,
    *,
    form: str | None = None,
    choice: Choice = ALL,
    partial: bool = False,
    on_total: OnTotal = lambda _: None,
    on_bytes: OnBytes = ignore_bytes,
) -> Downloaded:
    """Fetch what the jobs committed, or the chosen samples and files of it.

    Of several jobs, each has a folder of its id; JSON Lines and tables are one file for all.
    `form` is one of the medium's `downloads`, by default the first; converted files are marked as
    `Converter` says. What is damaged or lost is left out, and named once all else is there. Raises
    `NotFound` if nothing is committed yet or chosen, `Refused` for a form that the medium or the
    samples do not have, for other samples in the way and, unless `partial`, for jobs that have not
    ended, `DigestMismatch`, `Removed`, and `Unreachable`, also for a full disk.
    """
    with services.database.read() as session:
        jobs = as_they_are(session, [job.id for job in jobs])
        stored = artifacts.stored(session, [job.id for job in jobs], without=ABOUT_SAMPLES)
    done = _expect(jobs, folder, choice, stored, partial=partial)
    on_total(None if choice else stored.size_bytes)
    damaged: list[tuple[Artifact, GenmillError]] = []
    listing = Listing(services, jobs, folder, form)
    with disk_errors(folder), FolderLocks() as locks, Sinks(services) as sinks:
        locks.take(folder)
        objects = _prepared(listing.objects(choice), locks)
        with closing(in_order(_fetching(services, on_bytes), objects)) as results:
            for target, group in groupby(results, key=lambda each: each.object.folder):
                for each in group:
                    if not each.is_empty:
                        damaged += _take(sinks, done, each)
                if target != folder:
                    sinks.finish(target)
                    locks.leave(target)
        sinks.finish(folder)
        done.marks = total(dict(chain.from_iterable(c.groups.items() for c in sinks.converters)))
    if damaged:
        raise incomplete(done.folder, done.objects, damaged)
    _require_all(listing, jobs, choice, done, form)
    return done


def _fetching(services: Services, on_bytes: OnBytes) -> Callable[[StoredObject], Fetched]:
    return partial(try_to_fetch, services, on_bytes)


def _expect(
    jobs: Sequence[Job], folder: Path, choice: Choice, stored: artifacts.Stored, *, partial: bool
) -> Downloaded:
    """An empty result that says what is to come. Raises `Refused` for jobs that have not ended."""
    _first(jobs)
    unfinished = [job for job in jobs if job.status not in FINAL]
    expected = sum(job.wanted or job.samples or 0 for job in jobs)
    if unfinished and stored.objects and not partial:
        raise not_ended(jobs, unfinished, stored, expected)
    wanted = None if choice or not expected else expected
    return Downloaded(folder, expected=wanted, unfinished=len(unfinished))


def default_folder(jobs: Sequence[Job]) -> Path:
    """Where the jobs are downloaded to unless something else is asked for."""
    first = _first(jobs)
    return inside(Path(), f"genmill-{first.batch_id if len(jobs) > 1 else first.id}")


def _first(jobs: Sequence[Job]) -> Job:
    if not jobs:
        raise NotFound("no job is left to download from", remedy="its jobs were removed")
    return jobs[0]


def _prepared(objects: Iterable[StoredObject], locks: FolderLocks) -> Iterator[StoredObject]:
    """The objects, each folder made and locked before its first one."""
    for folder, group in groupby(objects, key=lambda each: each.folder):
        locks.take(folder)
        if (folder / PARTS).is_symlink():
            raise Refused(f"{folder / PARTS} is a link", remedy="remove it")
        yield from group


def _take(sinks: Sinks, done: Downloaded, fetched: Fetched) -> list[tuple[Artifact, GenmillError]]:
    """Unpack and count an object; what is wrong with it is returned."""
    artifact, damage = fetched.object.artifact, fetched.damage
    done.objects += 1
    if damage is None:
        try:
            done.silent += fetched.samples - sinks.unpack(fetched)
            done.samples += fetched.samples
            done.size_bytes += artifact.size if fetched.content is None else len(fetched.content)
        except (BadInput, DigestMismatch) as error:
            damage = error
        if fetched.object.choice.numbers:
            done.numbers.update(entry.sample for entry in fetched.entries)
    return [(artifact, damage)] if damage is not None else []


def _require_all(
    listing: Listing, jobs: Sequence[Job], choice: Choice, done: Downloaded, form: str | None
) -> None:
    """Raise an error if nothing was found, a chosen sample is missing, or no text holds notes."""
    missing = [] if choice.patterns else _first_missing(choice, done)
    if missing:
        raise no_samples(jobs, missing, done.folder if done.numbers else None)
    if not done.objects:
        raise nothing(jobs, choice.patterns)
    if done.samples and done.silent == done.samples:
        chosen = listing.medium(jobs[0]).download(form)
        needs = chosen.needs if isinstance(chosen, SampleFiles) else "anything"
        raise Refused(
            f"none of the {done.samples} samples holds {needs}, so there is nothing to write",
            remedy="use --as jsonl to read them",
        )


def _first_missing(choice: Choice, done: Downloaded) -> list[int]:
    return list(islice((each for each in choice if each not in done.numbers), SHOWN))
