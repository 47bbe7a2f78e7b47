"""What a publish job is about: the samples of a job, or the files of a model version, by number.

Nothing is read before it is asked for. What the record or the store lacks, or what differs from its
digest, is `ItemRefused`: that item is not published, and the others are.
"""

import mimetypes
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from db import artifacts, jobs, lineage
from db.errors import BadInput, DigestMismatch, NotFound, Refused, Removed
from db.publications import NewItem
from db.tables import Artifact, Job, ModelVersion
from worker import media
from worker.mark_profile import Profile
from worker.media import find_medium
from worker.media.samples.index import IndexEntry
from worker.media.samples.record import AI_GENERATED
from worker.publishing.base import ItemRefused, Record
from worker.services import Services
from worker.services.mark_checks import MarkChecks
from worker.services.orders import read_selection
from worker.services.pinned import PinnedPublication
from worker.services.samples import read_index, read_sample, require_digest

MAX_BYTES = 2 << 30  # of a file of a model version, which is held in memory as it is verified
MAX_NAME = 100  # of a profile, which may be a file's path
OTHER_TYPE = "application/octet-stream"
_LOST = (NotFound, Removed, DigestMismatch, BadInput)


@dataclass(frozen=True)
class Publishable:
    """An item that can be published: what the record says of it, and where its bytes are."""

    new: NewItem
    place: Any  # for its source alone


def refuse_too_large(reference: str, version: ModelVersion) -> None:
    """Raise `Refused` for a model version with a file that is too large to be published."""
    for name, file in sorted(version.files.items()):
        if file["size"] > MAX_BYTES:
            raise Refused(
                f"{reference}: {name} has {file['size']:,} bytes, and files of up to "
                f"{MAX_BYTES:,} are published",
                remedy=f"write it all into a folder with `genmill model export {reference} DIR`, "
                "and copy that; `hf upload OWNER/NAME DIR` pushes it to the hub, in parts",
            )


class Source(ABC):
    """Items by their numbers, from 0."""

    @abstractmethod
    def items(self, part: range) -> Iterator[Publishable]:
        """The items with these numbers, in order; those that were not accepted are left out."""

    @abstractmethod
    def read(self, item: Publishable) -> tuple[bytes, Record]:
        """An item's bytes and record, verified. Raises `ItemRefused`, and as the store does."""


def open_source(services: Services, pinned: PinnedPublication, wanted: str | None) -> Source:
    """The items of a publish job. A sample must carry the profile of marks that is `wanted`."""
    if pinned.spec.job is None:
        return _Files(services, pinned)
    with services.database.read() as session:
        job = jobs.get(session, pinned.spec.job)
    return _Samples(services, pinned, job, wanted)


class _Samples(Source):
    def __init__(
        self, services: Services, pinned: PinnedPublication, job: Job, wanted: str | None
    ) -> None:
        self._services, self._job, self._version = services, job, pinned.version
        self._medium = find_medium(pinned.family.media)
        marks = job.spec.get("marks")
        self._marks = Profile.model_validate(marks) if marks else None
        self._wanted = wanted
        self._checks = MarkChecks(services, self._marks, self._medium)
        self._accepted = read_selection(services, job)

    def items(self, part: range) -> Iterator[Publishable]:
        sample = part.start
        while sample < part.stop:
            with self._services.database.read() as session:
                artifact, shard = artifacts.holding(session, self._job.id, sample)
            index = read_index(self._services, artifact, shard)
            for number in range(sample, min(shard.stop, part.stop)):
                if self._accepted is None or number in self._accepted:
                    entry = index.entry(number)
                    yield Publishable(self._new(entry), (artifact, entry))
            sample = shard.stop

    def read(self, item: Publishable) -> tuple[bytes, Record]:
        artifact, entry = item.place
        data = self._stored(artifact, entry)
        try:
            record = media.read_record(data)
        except BadInput as error:
            raise ItemRefused(f"it carries no record: {error.message}") from None
        self._refuse_other(entry.sample, record)
        self._refuse_unmarked(data, artifact.marks)
        return data, record

    def _new(self, entry: IndexEntry) -> NewItem:
        name = f"{entry.sample:09d}{self._medium.suffix}"
        return NewItem(
            item=f"{self._job.id}/{name}",
            sha256=entry.sha256,
            size=entry.size,
            media_type=self._medium.sample_type,
            job_id=self._job.id,
            sample=entry.sample,
            marks=self._marks.name[:MAX_NAME] if self._marks else None,
        )

    def _stored(self, artifact: Artifact, entry: IndexEntry) -> bytes:
        try:
            data = read_sample(self._services, artifact, entry)
            require_digest(f"sample {entry.sample}", data, entry.sha256)
        except _LOST as error:
            raise ItemRefused(str(error)) from error
        return data

    def _refuse_other(self, sample: int, record: Record) -> None:
        """Refuse a sample whose record is that of another one, or does not say what it is."""
        found = (record.get("index"), record.get("weights_sha256"))
        if found != (sample, self._version.weights_sha256):
            raise ItemRefused("its record is that of another sample")
        if record.get("digital_source_type") != AI_GENERATED:
            raise ItemRefused("its record does not say that it was made by AI")

    def _refuse_unmarked(self, data: bytes, counts: Mapping[str, Any] | None) -> None:
        own = self._marks.name if self._marks else "none"
        if self._wanted not in {None, own}:
            raise ItemRefused(
                f"its job's profile of marks is {own!r}, and the target takes {self._wanted!r}"
            )
        if why := self._checks.fault(data, counts):
            raise ItemRefused(why)


class _Files(Source):
    def __init__(self, services: Services, pinned: PinnedPublication) -> None:
        self._services, self._version = services, pinned.version
        self._reference = pinned.spec.model
        refuse_too_large(self._reference, self._version)
        self._prefix = f"models/{pinned.spec.model.replace(':', '/')}"
        self._record = describe(services, pinned)

    def items(self, part: range) -> Iterator[Publishable]:
        for name, file in sorted(self._version.files.items())[part.start : part.stop]:
            media_type = mimetypes.guess_type(name)[0] or OTHER_TYPE
            yield Publishable(
                NewItem(
                    item=f"{self._prefix}/{name}",
                    sha256=file["sha256"],
                    size=file["size"],
                    media_type=media_type,
                    version_id=self._version.id,
                ),
                file,
            )

    def read(self, item: Publishable) -> tuple[bytes, Record]:
        file = item.place
        try:
            with self._services.store.open(file["key"]) as stored:
                data = stored.read()
            require_digest(f"{self._reference}: {item.new.item}", data, file["sha256"])
        except _LOST as error:
            raise ItemRefused(str(error)) from error
        return data, self._record


def describe(services: Services, pinned: PinnedPublication) -> Record:
    """What is on record of a model version, for the cards of those who get it."""
    version: ModelVersion = pinned.version
    with services.database.read() as session:
        made = lineage.describe(session, version)
    return {
        "model": pinned.spec.model,
        "family": pinned.family.name,
        "pipeline_tag": find_medium(pinned.family.media).pipeline_tag,
        "weights_sha256": version.weights_sha256,
        "params": version.params,
        "metrics": {name: each for name, each in version.metrics.items() if _is_number(each)},
        "dataset": made.dataset,
        "parent": made.parent,
        "made_by": version.made_by,
        "created_at": version.created_at.isoformat(),
    }


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)
