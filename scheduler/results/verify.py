"""Verifying stored objects against the record, and making a sample again to compare it."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO

from db import artifacts, jobs
from db.errors import GenmillError, JobFailed, Refused, Unreachable
from db.states import JobState
from db.tables import Artifact, Job, Shard
from scheduler.results.threads import in_order
from scheduler.results.waiting import wait
from scheduler.submission.enqueue import enqueue
from scheduler.submission.receipts import OnStored, say_nothing
from worker.files import canonical_json
from worker.marks import find_mark
from worker.media import medium_of
from worker.media.samples.index import IndexEntry
from worker.services import Services
from worker.services.finalize import read_manifest
from worker.services.marking import with_same_marks
from worker.services.prompts import load_spec
from worker.services.samples import (
    find_sample,
    open_artifact,
    read_index,
    read_sample,
    stored_objects,
)

CHUNK = 1 << 20
NOT_DAMAGE = (Unreachable, Refused)  # the store's address may be wrong
SOFTWARE = {"genmill", "torch"}  # in a record, the versions that made the sample

Stored = tuple[Artifact, Shard | None]  # an object, and the shard of its samples


@dataclass
class Verified:
    """How much was checked, and what is wrong with it."""

    objects: int
    samples: int
    problems: list[str]


@dataclass(frozen=True)
class Compared:
    """A sample made again: the digests, what differs between the two records, and whether the
    content is the same: the pixels, the sound or the text.
    """

    job: str
    old_sha256: str
    new_sha256: str
    differences: dict[str, Any]
    same_content: bool
    same_but_signed: bool = False  # the files are equal without their signatures

    @property
    def reproduced(self) -> bool:
        """Whether the sample is the same but for the versions of software in its record."""
        upgraded = (
            self.same_content and bool(self.differences) and self.differences.keys() <= SOFTWARE
        )
        return self.equal or upgraded

    @property
    def equal(self) -> bool:
        """Whether the bytes are the same, but for signatures: those carry a time."""
        return self.old_sha256 == self.new_sha256 or self.same_but_signed


def verify(services: Services, job: Job) -> Verified:
    """Read every object of a job and compare it, its samples and the manifest with the record.

    Raises `Removed` if retention removed artifacts, and `Unreachable` or `Refused` for the store.
    """
    done = Verified(0, 0, [])
    for samples, problems in in_order(partial(_check, services), stored_objects(services, job)):
        done.objects += 1
        done.samples += samples
        done.problems += problems
    if job.status == JobState.SUCCEEDED:
        with services.database.read() as session:
            made = artifacts.count_samples(session, job.id)
        # the number is enough: a shard has no sample twice
        if job.kind == "generate" and done.samples != made:
            done.problems.append(f"{done.samples} samples are on record, {made} were made")
        done.problems += _check_manifest(services, job)
    return done


def _check(services: Services, stored: Stored) -> tuple[int, list[str]]:
    """The number of samples in an object, and what is wrong with it, its index or its samples."""
    artifact, shard = stored
    if shard is None:
        return 0, _check_object(services, artifact, [])
    count = shard.stop - shard.start
    try:
        index = read_index(services, artifact, shard)
    except NOT_DAMAGE:
        raise
    except GenmillError as error:
        problem = f"{artifact.name}: index: {error}"
        return count, [problem, *_check_object(services, artifact, [])]
    problems = _check_object(services, artifact, index)
    if index.members_sha256 != artifact.members_sha256:
        problems.append(f"{artifact.name}: index: its digests differ from the record")
    return count, problems


def _check_object(
    services: Services, artifact: Artifact, entries: Iterable[IndexEntry]
) -> list[str]:
    try:
        with open_artifact(services, artifact) as file:
            return list(_compare(file, artifact, entries))
    except NOT_DAMAGE:
        raise
    except GenmillError as error:
        return [f"{artifact.name}: {error}"]


def _compare(file: BinaryIO, artifact: Artifact, entries: Iterable[IndexEntry]) -> Iterator[str]:
    """Read an object once, for its own digest and those of its samples; yield each difference."""
    whole, position = hashlib.sha256(), 0
    for entry in sorted(entries, key=lambda entry: entry.offset):
        one = hashlib.sha256()
        _hash(file, entry.offset - position, whole)
        _hash(file, entry.size, whole, one)
        position = entry.offset + entry.size
        if one.hexdigest() != entry.sha256:
            yield f"{artifact.name}: sample {entry.sample}: SHA-256 differs from the record"
    _hash(file, None, whole)
    if whole.hexdigest() != artifact.sha256:
        yield f"{artifact.name}: SHA-256 is {whole.hexdigest()}, on record {artifact.sha256}"


def _hash(file: BinaryIO, size: int | None, *digests: Any) -> None:
    """Read `size` bytes, or all that are left, into the digests."""
    left = size
    while left is None or left > 0:
        data = file.read(CHUNK if left is None else min(CHUNK, left))
        if not data:
            return
        for digest in digests:
            digest.update(data)
        left = None if left is None else left - len(data)


def _check_manifest(services: Services, job: Job) -> list[str]:
    try:
        data = read_manifest(services, job)
    except NOT_DAMAGE:
        raise
    except GenmillError as error:
        return [f"manifest: {error}"]
    if data is None:
        return ["the job succeeded without a manifest"]
    found = hashlib.sha256(data).hexdigest()
    with services.database.read() as session:
        derived = hashlib.sha256(canonical_json(jobs.manifest(session, job.id))).hexdigest()
    if not found == derived == job.manifest_sha256:
        return [
            f"manifest: SHA-256 is {found}, on record {job.manifest_sha256}, computed {derived}"
        ]
    return []


def reproduce(
    services: Services, job: Job, index: int, *, on_stored: OnStored = say_nothing
) -> Compared:
    """Have a worker make sample `index` of a generate job again, and compare the bytes.

    `on_stored` gets the id of the job that makes it.

    Raises `Refused` for other kinds of job, `NotFound` if the sample is not committed, and
    `JobFailed`.
    """
    if job.kind != "generate":
        raise Refused(
            f"job {job.id} is a {job.kind} job: only a generate job has samples to make again"
        )
    old_artifact, old = find_sample(services, job.id, index)
    spec = with_same_marks(load_spec(services.store, job.spec)).model_copy(update={"accept": None})
    made = enqueue(
        services,
        spec,
        ranges=[(index, index + 1)],
        priority=job.priority,
        custom_id=job.custom_id,
        on_stored=on_stored,
    )
    (ended,) = wait(services, [made.id])
    if ended.status != JobState.SUCCEEDED:
        raise JobFailed(f"making the sample again: job {ended.id} {ended.status}: {ended.error}")
    new_artifact, new = find_sample(services, made.id, index)
    then = read_sample(services, old_artifact, old)
    intact = hashlib.sha256(then).hexdigest() == old.sha256
    was, now = (_unsigned(each, spec) for each in (then, read_sample(services, new_artifact, new)))
    same = was == now or content_of(was) == content_of(now)
    anew = intact and was == now and old.sha256 != new.sha256
    return Compared(made.id, old.sha256, new.sha256, find_differences(was, now), same, anew)


def _unsigned(sample: bytes, spec: Any) -> bytes:
    """What the signatures of a sample sign; all of a sample that has none."""
    medium = medium_of(sample)
    for name in spec.marks.marks:
        sample = find_mark(name).signed_part(sample, medium)
    return sample


def content_of(sample: bytes) -> bytes:
    """What a sample shows, whatever its encoding and record."""
    return medium_of(sample).content(sample)


def find_differences(old: bytes, new: bytes) -> dict[str, Any]:
    """How the records of two samples differ, and whether only their encoding does."""
    medium = medium_of(new)
    then, now = medium.read_record(old), medium.read_record(new)
    differences: dict[str, Any] = {
        key: {"then": then.get(key), "now": now.get(key)}
        for key in sorted(then.keys() | now.keys())
        if then.get(key) != now.get(key)
    }
    if old != new and not differences and content_of(old) == content_of(new):
        differences["encoding"] = {"then": "that of another version", "now": "of equal content"}
    return differences
