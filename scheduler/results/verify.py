"""Checking that the store holds what the record says, and making a sample again to compare."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

from db import artifacts, jobs
from db.errors import GenmillError, JobFailed, Refused
from db.states import JobState
from db.tables import Artifact, Job, Member
from scheduler.results.follow import wait
from scheduler.results.samples import samples_by_artifact
from scheduler.submission.enqueue import enqueue
from worker.files import canonical_json
from worker.services import Services

CHUNK = 1 << 20


@dataclass
class Verified:
    """What was looked at, and what is wrong with it; nothing is where `problems` is empty."""

    objects: int
    samples: int
    problems: list[str]


@dataclass(frozen=True)
class Compared:
    """A sample made again: the digests, and the settings that differ between the two records."""

    job: str
    old_sha256: str
    new_sha256: str
    differences: dict[str, Any]

    @property
    def equal(self) -> bool:
        """Whether the bytes are the same."""
        return self.old_sha256 == self.new_sha256


def verify(services: Services, job: Job) -> Verified:
    """Read every object of a job and compare it, its samples and the manifest with the record."""
    done = Verified(0, 0, [])
    with services.database.read() as session:
        others = [each for each in artifacts.of_job(session, job.id) if each.kind != "samples"]
    for artifact in others:
        _verify_object(services, artifact, [], done)
    for artifact, members in samples_by_artifact(services, job.id):
        _verify_object(services, artifact, members, done)
        done.samples += len(members)
    if job.status == JobState.SUCCEEDED:
        done.problems += _missing(services, job, done.samples)
        done.problems += _verify_manifest(services, job)
    return done


def _verify_object(
    services: Services, artifact: Artifact, members: Sequence[Member], done: Verified
) -> None:
    done.objects += 1
    try:
        with services.store.open(artifact.key) as file:
            done.problems += _compare(file, artifact, members)
    except GenmillError as error:
        if error.exit_code == 3:  # the store is away: nothing can be said
            raise
        done.problems.append(f"{artifact.name}: {error}")


def _compare(file: BinaryIO, artifact: Artifact, members: Sequence[Member]) -> Iterator[str]:
    """Read an object once, for its own digest and those of its members."""
    whole, place = hashlib.sha256(), 0
    for member in members:
        one = hashlib.sha256()
        _read(file, member.offset - place, whole)
        _read(file, member.size, whole, one)
        place = member.offset + member.size
        if one.hexdigest() != member.sha256:
            yield f"{artifact.name}: sample {member.sample}: SHA-256 differs from the record"
    _read(file, None, whole)
    if whole.hexdigest() != artifact.sha256:
        yield f"{artifact.name}: SHA-256 is {whole.hexdigest()}, on record {artifact.sha256}"


def _read(file: BinaryIO, size: int | None, *digests: Any) -> None:
    """Feed `size` bytes, or all that are left, to the digests."""
    left = size
    while left is None or left > 0:
        data = file.read(CHUNK if left is None else min(CHUNK, left))
        if not data:
            return
        for digest in digests:
            digest.update(data)
        left = None if left is None else left - len(data)


def _missing(services: Services, job: Job, samples: int) -> list[str]:
    """Compare their number alone: the database holds no index of a shard twice."""
    if job.kind != "generate":
        return []
    with services.database.read() as session:
        wanted = sum(shard.stop - shard.start for shard in jobs.shards_of(session, job.id))
    return [f"{samples} samples are on record, {wanted} were made"] if samples != wanted else []


def _verify_manifest(services: Services, job: Job) -> list[str]:
    if job.manifest_key is None:
        return ["the job succeeded without a manifest"]
    try:
        with services.store.open(job.manifest_key) as file:
            found = hashlib.sha256(file.read()).hexdigest()
    except GenmillError as error:
        return [f"manifest: {error}"]
    with services.database.read() as session:
        derived = hashlib.sha256(canonical_json(jobs.manifest(session, job.id))).hexdigest()
    if not found == derived == job.manifest_sha256:
        return [
            f"manifest: SHA-256 is {found}, on record {job.manifest_sha256}, of the rows {derived}"
        ]
    return []


def reproduce(services: Services, job: Job, index: int) -> Compared:
    """Have a worker make sample `index` of a generate job again, and compare the bytes.

    Raises `Refused` for other jobs, `NotFound` where the sample is not committed, `JobFailed`.
    """
    if job.kind != "generate":
        raise Refused(
            f"job {job.id} is a {job.kind} job; only samples of generate can be made again"
        )
    with services.database.read() as session:
        old, old_artifact = artifacts.member(session, job.id, index)
    made = enqueue(services, job.spec, ranges=[(index, index + 1)], priority=job.priority)
    (ended,) = wait(services, [made.id])
    if ended.status != JobState.SUCCEEDED:
        raise JobFailed(
            f"job {ended.id}, which made the sample again, {ended.status}: {ended.error}"
        )
    with services.database.read() as session:
        new, new_artifact = artifacts.member(session, made.id, index)
    records = [read_record(services, *each) for each in ((old, old_artifact), (new, new_artifact))]
    return Compared(made.id, old.sha256, new.sha256, _differences(*records))


def read_record(services: Services, member: Member, artifact: Artifact) -> dict[str, Any]:
    """The record inside one sample's bytes, by one ranged read."""
    stop = member.offset + member.size
    with services.store.open(artifact.key, start=member.offset, stop=stop) as file:
        data = file.read()
    from worker.media import record  # noqa: PLC0415  Pillow, which takes long to load

    return record.read_record(data)


def _differences(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    return {
        key: {"then": old.get(key), "now": new.get(key)}
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    }
