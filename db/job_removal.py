"""Removing jobs: their rows first, tombstones in their place, in one transaction.

Their objects are deleted afterwards, by whoever finds the tombstone: killed in between, nothing is
on record that is not in the store. What something else names is not removed (`db.holders`).
"""

from collections.abc import Collection, Sequence, Set
from typing import Any, NamedTuple

from sqlalchemy import case, delete, func, select, update
from sqlalchemy.orm import Session

from db import holders, lineage
from db.holders import Held
from db.moves import lock_jobs
from db.retention import ROWS_AT_ONCE, WHAT, delete_rows
from db.session import clock
from db.tables import (
    Artifact,
    Attempt,
    Batch,
    Checkpoint,
    Job,
    Judge,
    LogLine,
    ModelVersion,
    Point,
    Promotion,
    Shard,
    Tombstone,
    Transition,
)
from db.tombstones import SWEEP_AFTER, bury, bury_artifacts

INDEX_ENTRY = 44  # bytes for each sample in an object's index
LONGEST_NAME = 120  # of a tombstone; longer are only aliases that no job has resolved
AROUND_ARTIFACTS = ("logs", "curves", "previews", "checkpoints")  # what goes where they are kept


class Size(NamedTuple):
    """Bytes and objects on record."""

    size_bytes: int = 0
    objects: int = 0

    def __add__(self, other: Any) -> "Size":
        return Size(self.size_bytes + other.size_bytes, self.objects + other.objects)


class Removed(NamedTuple):
    """The jobs that are held and stayed, and the packs that held objects of the removed ones."""

    held: Held
    packs: frozenset[int] = frozenset()


def job_sizes(session: Session, ids: Collection[str], *, kept: bool) -> dict[str, Size]:
    """What removing jobs will free; where artifacts are `kept`, their previews and checkpoints."""
    entries = (Shard.stop - Shard.start) * INDEX_ENTRY
    index = case((Artifact.index_sha256.is_not(None), entries), else_=0)
    stored = select(Shard.job_id, func.sum(Artifact.size + index), func.count())
    stored = stored.join(Artifact, Artifact.shard_id == Shard.id)
    stored = stored.where(Artifact.removed_at.is_(None))
    if kept:
        stored = stored.where(Artifact.kind == "preview")
    saved = select(Shard.job_id, func.sum(Checkpoint.size), func.count())
    saved = saved.join(Checkpoint, Checkpoint.shard_id == Shard.id)
    found = dict.fromkeys(ids, Size())
    for statement in (stored, saved):
        mine = statement.where(Shard.job_id.in_(ids)).group_by(Shard.job_id)
        for job_id, size, count in session.execute(mine):
            found[job_id] += Size(int(size or 0), count)
    return found


def remove_jobs(
    session: Session, ids: Collection[str], *, leaving: Set[str], who: str, kept: bool
) -> Removed:
    """Remove those of the jobs that nothing holds but jobs that are `leaving`.

    Where artifacts are `kept`, a job is only hidden, and loses what is not an artifact.
    """
    locked = lock_jobs(session, ids, shared=False)
    held = holders.of_jobs(session, list(locked), leaving, kept=kept)
    going = [each for each in locked if each not in held]
    if not going:
        return Removed(held)
    _bury_jobs(session, going, who=who, kept=kept)
    if kept:
        for what in AROUND_ARTIFACTS:
            for table, found in WHAT[what].items():
                while delete_rows(session, table, found(going).limit(ROWS_AT_ONCE)) == ROWS_AT_ONCE:
                    pass
        return Removed(held)
    packs = _packs_of(session, going)
    together = select(Job.batch_id).where(Job.id.in_(going), Job.batch_id.is_not(None))
    batch_ids = session.scalars(together.distinct()).all()
    _delete_jobs(session, going)
    _remove_batches(session, batch_ids, who=who)
    return Removed(held, packs)


def _bury_jobs(session: Session, ids: Sequence[str], *, who: str, kept: bool) -> None:
    sizes, now = job_sizes(session, ids, kept=kept), clock(session)
    columns = (Job.id, Job.kind, Job.model, Job.status, Job.samples, Job.batch_id, Job.finished_at)
    started = (Job.spec["model"].as_string().label("of"), lineage.spec_seed)
    for job in session.execute(select(*columns, *started).where(Job.id.in_(ids))).all():
        known = ("kind", "model", "status", "samples")
        about = {name: getattr(job, name) for name in known} | {"batch": job.batch_id}
        about["seed"] = job[-1]
        grave = Tombstone(id=job.id, kind="job", about=about, who=who, kept=kept)
        if job.of and len(job.of) <= LONGEST_NAME:
            grave.name = job.of
        grave.size_bytes = sizes[job.id].size_bytes
        if not kept:
            grave.sweep_at = max(now, (job.finished_at or now) + SWEEP_AFTER)
            own = Artifact.shard_id.in_(select(Shard.id).where(Shard.job_id == job.id))
            bury_artifacts(session, [own], f"job {job.id}", who=who)
        bury(session, grave)


def _remove_batches(session: Session, ids: Collection[str | None], *, who: str) -> None:
    """Remove those batches whose jobs have all been removed."""
    has_jobs = select(Job.id).where(Job.batch_id == Batch.id).exists()
    for batch in session.scalars(select(Batch).where(Batch.id.in_(ids), ~has_jobs)).all():
        bury(session, Tombstone(id=batch.id, kind="batch", about={"jobs": batch.size}, who=who))
        _run(session, delete(Batch).where(Batch.id == batch.id))


def _packs_of(session: Session, ids: Collection[str]) -> frozenset[int]:
    packs = select(Artifact.pack).join(Shard, Shard.id == Artifact.shard_id)
    packs = packs.where(Shard.job_id.in_(ids), Artifact.pack.is_not(None)).distinct()
    manifests = select(Job.manifest_pack).where(Job.id.in_(ids), Job.manifest_pack.is_not(None))
    found = (*session.scalars(packs), *session.scalars(manifests))
    return frozenset(each for each in found if each is not None)


def _delete_jobs(session: Session, ids: Sequence[str]) -> None:
    """Delete jobs with all of their rows; what was removed before, and named them, forgets them."""
    shards = select(Shard.id).where(Shard.job_id.in_(ids))
    of_shards: tuple[Any, ...] = (Artifact, Checkpoint, Attempt)
    of_jobs: tuple[Any, ...] = (Transition, LogLine, Point, Judge, Shard)
    for table in of_shards:
        _run(session, delete(table).where(table.shard_id.in_(shards)))
    for table in of_jobs:
        _run(session, delete(table).where(table.job_id.in_(ids)))
    for other in (ModelVersion, Promotion):
        _run(session, update(other).where(other.job_id.in_(ids)).values(job_id=None))
    _run(session, delete(Job).where(Job.id.in_(ids)))


def _run(session: Session, statement: Any) -> None:
    session.execute(statement.execution_options(synchronize_session=False))
