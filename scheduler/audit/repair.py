"""Making again what an audit found missing or damaged, with the same digests as on record.

Samples are made by workers, by the seed of their job; manifests follow from the record; a lost
checkpoint is marked as bad, so that training resumes from the one before. Nothing is stored whose
digest differs.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial

from sqlalchemy.orm import undefer

from db import jobs, own_store, shards
from db.causes import Cause
from db.errors import GenmillError
from db.states import JobState
from db.tables import Artifact, Job, Shard
from scheduler.audit.byte_checks import Objects
from scheduler.audit.objects import Part, pack_key, pack_parts
from scheduler.audit.violations import OWN_STORE, Violation
from scheduler.results.waiting import wait
from scheduler.submission.enqueue import enqueue
from worker.files import canonical_json
from worker.services import Services
from worker.services.marking import with_same_marks
from worker.services.prompts import load_spec
from worker.services.samples import open_artifact, read_index, sample_objects
from worker.store import packs
from worker.store.base import SENTINEL

Show = Callable[[str], None]


class NotRepaired(GenmillError):
    """It could not be made again."""

    cause = Cause.WORK
    lasting = True


@dataclass(frozen=True)
class Content:
    """The bytes of a samples artifact and of its index."""

    data: bytes
    index: bytes


@dataclass
class Plan:
    """What can be made again, in the order in which it is."""

    sentinel: bool = False
    checkpoints: dict[str, None] = field(default_factory=dict)  # `shard:step`
    samples: dict[str, Artifact] = field(default_factory=dict)  # by their artifact's id
    packs: dict[int, None] = field(default_factory=dict)
    manifests: dict[str, None] = field(default_factory=dict)  # by their job's id
    hopeless: list[Violation] = field(default_factory=list)

    def steps(self) -> Iterator[str]:
        """A sentence for each step."""
        if self.sentinel:
            yield f"make the store's object {SENTINEL!r}, by which this record knows it"
        for place in self.checkpoints:
            yield f"mark the checkpoint {place} as bad: training resumes from the one before"
        for artifact in self.samples.values():
            yield f"run the shard of {artifact.name} of job {artifact.job_id} again"
        for number in self.packs:
            yield f"put the pack {pack_key(number)} together again"
        for job_id in self.manifests:
            yield f"write the manifest of job {job_id} again"

    def __bool__(self) -> bool:
        return next(self.steps(), None) is not None


def plan_repairs(services: Services, violations: Iterable[Violation]) -> Plan:
    """Sort violations into what can be made again and what is `hopeless`."""
    plan, objects = Plan(), Objects(services.store)
    for violation in violations:
        number = packs.number_in(violation.key)
        if violation.table == OWN_STORE:
            plan.sentinel = True
        elif number is not None:
            _plan_pack(services, plan, objects, number)
        elif violation.table == "checkpoints":
            plan.checkpoints[violation.id] = None
        elif violation.table == "jobs" and violation.key.endswith("/manifest.json"):
            plan.manifests[violation.id] = None
        elif violation.table == "artifacts" and violation.key:
            _plan_samples(services, plan, violation)
        else:
            plan.hopeless.append(violation)
    return plan


def repair(services: Services, plan: Plan, show: Show = lambda _: None) -> list[str]:
    """Do what is planned; return a sentence for each thing that could not be made again."""
    return list(_repair(services, plan, show))


def _repair(services: Services, plan: Plan, show: Show) -> Iterator[str]:
    if plan.sentinel:
        yield from _try(lambda: _make_sentinel(services))
    for place in plan.checkpoints:
        shard_id, _, step = place.partition(":")
        mark = partial(shards.mark_bad, shard_id=shard_id, step=int(step))
        services.database.transact(mark)
    made: dict[str, Content] = {}
    for artifact, content in _make_samples(services, list(plan.samples.values()), show):
        if isinstance(content, Content):
            made[artifact.id] = content
            yield from _try(partial(_store_samples, services, artifact, content))
        else:
            yield content
    for job_id in plan.manifests:
        show(f"writing the manifest of job {job_id}")
        yield from _try(partial(_write_manifest, services, job_id))
    for number in plan.packs:
        show(f"putting {pack_key(number)} together")
        yield from _try(partial(_rebuild_pack, services, number, made))
    services.store.flush()


def _plan_samples(services: Services, plan: Plan, violation: Violation) -> None:
    with services.database.read() as session:
        artifact = session.get(Artifact, violation.id)
    if artifact is None or artifact.kind != "samples":
        plan.hopeless.append(violation)
    else:
        plan.samples[artifact.id] = artifact


def _plan_pack(services: Services, plan: Plan, objects: Objects, number: int) -> None:
    plan.packs[number] = None
    data = objects.read(pack_key(number)) or b""
    with services.database.snapshot() as connection:
        parts = pack_parts(connection, number)
    for part in parts:
        if part.table == "artifacts" and not _is_whole(data, part):
            with services.database.read() as session:
                plan.samples[part.id] = session.get_one(Artifact, part.id)


def _make_sentinel(services: Services) -> None:
    with services.database.read() as session:
        known = own_store.expected(session)
    if known is not None:
        services.store.put_as(SENTINEL, known.id.encode())
        services.database.transact(partial(own_store.confirm, store_id=known.id))
    services.store.verify()


def _make_samples(
    services: Services, artifacts: list[Artifact], show: Show
) -> Iterator[tuple[Artifact, Content | str]]:
    """Run the shards of samples artifacts again, all at once; the bytes of each, or what failed."""
    again: dict[str, Artifact] = {}
    for artifact in artifacts:
        try:
            again[_run_again(services, artifact)] = artifact
        except GenmillError as error:
            yield artifact, f"{artifact.name} of job {artifact.job_id}: {error}"
    if again:
        show(f"waiting for {len(again)} shards that are run again")
    for job in wait(services, list(again)) if again else ():
        artifact = again[job.id]
        try:
            yield artifact, _content(services, job, artifact)
        except GenmillError as error:
            yield artifact, f"{artifact.name} of job {artifact.job_id}: {error}"


def _run_again(services: Services, artifact: Artifact) -> str:
    """Enqueue a job for the samples of an artifact alone; its id."""
    with services.database.read() as session:
        job = session.get_one(Job, artifact.job_id, options=[undefer(Job.spec)])
        shard = session.get_one(Shard, artifact.shard_id)
    spec = with_same_marks(load_spec(services.store, job.spec)).model_copy(update={"accept": None})
    ranges = [(shard.start, shard.stop)]
    return enqueue(services, spec, ranges=ranges, priority=job.priority, custom_id=job.custom_id).id


def _content(services: Services, job: Job, old: Artifact) -> Content:
    if job.status != JobState.SUCCEEDED:
        raise NotRepaired(f"job {job.id}, which ran it again, {job.status}: {job.error}")
    [(artifact, shard)] = sample_objects(services, job.id)
    with open_artifact(services, artifact) as file:
        data = file.read()
    if hashlib.sha256(data).hexdigest() != old.sha256:
        raise NotRepaired(
            f"job {job.id} made other bytes",
            remedy="another version or device made the first, or they are signed: a signature "
            "carries a time",
        )
    return Content(data, read_index(services, artifact, shard).data)


def _store_samples(services: Services, artifact: Artifact, content: Content) -> None:
    """Store an artifact that is an object of its own, and its index; packs are put together."""
    if artifact.packed is not None:
        return
    prefix = artifact.key.rpartition("/")[0]
    _replace(services, artifact.key, content.data, prefix)
    if artifact.index_key is not None:
        _replace(services, artifact.index_key, content.index, prefix)


def _replace(services: Services, key: str, data: bytes, prefix: str) -> None:
    if f"{prefix}/{hashlib.sha256(data).hexdigest()}" != key:
        raise NotRepaired(f"what was made again is not {key}")
    services.store.delete(key)
    services.store.put_bytes(prefix, data)


def _write_manifest(services: Services, job_id: str) -> None:
    with services.database.read() as session:
        job = session.get_one(Job, job_id)
    data = _manifest(services, job)
    if job.manifest_key is not None:
        services.store.delete(job.manifest_key)
        services.store.put_as(job.manifest_key, data)


def _manifest(services: Services, job: Job) -> bytes:
    with services.database.read() as session:
        data = canonical_json(jobs.manifest(session, job.id))
    if hashlib.sha256(data).hexdigest() != job.manifest_sha256:
        raise NotRepaired(f"the rows of job {job.id} have changed since its manifest was written")
    return data


def _rebuild_pack(services: Services, number: int, made: dict[str, Content]) -> None:
    """Put a pack together from what is left of it and what was made again."""
    key = pack_key(number)
    data = bytearray(Objects(services.store).read(key) or b"")
    with services.database.snapshot() as connection:
        parts = pack_parts(connection, number)
    for part in parts:
        if _is_whole(bytes(data), part):
            continue
        if part.table == "jobs":
            with services.database.read() as session:
                job = session.get_one(Job, part.id)
            _lay(data, part.offset, _manifest(services, job))
        elif part.id in made:
            _lay(data, part.offset, made[part.id].data)
            if part.index_sha256:
                _lay(data, part.offset + part.size, made[part.id].index)
        else:
            raise NotRepaired(f"{key} stays as it is: a part of it could not be made again")
    services.store.delete(key)
    services.store.put_as(key, bytes(data))


def _is_whole(data: bytes, part: Part) -> bool:
    piece = data[part.offset : part.offset + part.size]
    return hashlib.sha256(piece).hexdigest() == part.sha256


def _lay(data: bytearray, offset: int, piece: bytes) -> None:
    if len(data) < offset:
        data.extend(bytes(offset - len(data)))
    data[offset : offset + len(piece)] = piece


def _try(step: Callable[[], None]) -> Iterator[str]:
    try:
        step()
    except GenmillError as error:
        yield str(error)
