"""Artifacts, the stored objects that shards committed, and which of them holds which sample."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Select, String, case, cast, func, literal_column, or_, select
from sqlalchemy.orm import Session, undefer

from db.errors import NotFound, Removed
from db.lookup import by_prefix
from db.states import JobState
from db.tables import (
    Artifact,
    Checkpoint,
    Evaluation,
    Job,
    Judge,
    ModelVersion,
    Shard,
    Tombstone,
)
from db.tombstones import gone, refuse

AT_ONCE = 500  # ids or digests in one statement
FINGERPRINTS = "fingerprints"  # the kind of artifact with those of a shard's samples


class Stored(NamedTuple):
    """What jobs have committed so far."""

    objects: int = 0
    samples: int = 0
    size_bytes: int = 0


def select_of_job(
    job_id: str, kind: str | None = None, *, without: str | None = None
) -> Select[Artifact]:
    """The statement of a job's artifacts in the order of its shards, then by name.

    Only those of `kind` if given, not those of the kind `without`, nor what retention removed.
    """
    statement = select(Artifact).join(Shard, Shard.id == Artifact.shard_id)
    statement = statement.where(Shard.job_id == job_id, Artifact.removed_at.is_(None))
    if kind is not None:
        statement = statement.where(Artifact.kind == kind)
    if without is not None:
        statement = statement.where(Artifact.kind != without)
    return statement.order_by(Shard.idx, Artifact.name)


def of_job(
    session: Session, job_id: str, kind: str | None = None, *, without: str | None = None
) -> list[Artifact]:
    """A job's artifacts, as `select_of_job` chooses them."""
    return list(session.scalars(select_of_job(job_id, kind, without=without)))


def get(session: Session, id_or_prefix: str) -> Artifact:
    """The artifact with this id or unambiguous prefix.

    Raises `NotFound`, `Refused`, `Gone` if a command removed it, and `Removed` if retention did.
    """
    found = by_prefix(session, Artifact, id_or_prefix, noun="artifact")
    if found.removed_at is not None:
        refuse(session, found.id)
        raise _removed(f"artifact {found.id} was", found.removed_at)
    return found


def shard_of(session: Session, artifact: Artifact) -> Shard:
    """The shard that committed an artifact."""
    return session.get_one(Shard, artifact.shard_id)


def removed_at(session: Session, job_id: str) -> datetime | None:
    """When retention first removed artifacts of a job, previews aside; None if it has not."""
    statement = select(func.min(Artifact.removed_at)).join(Shard, Shard.id == Artifact.shard_id)
    return session.scalar(statement.where(Shard.job_id == job_id, Artifact.kind != "preview"))


def refuse_removed(session: Session, job_id: str) -> None:
    """Raise `Removed`, or `Gone`, if artifacts of a job were removed, previews aside."""
    at = removed_at(session, job_id)
    if at is not None:
        own = select(Artifact.id).join(Shard, Shard.id == Artifact.shard_id)
        with_version = Tombstone.id.in_(own.where(Shard.job_id == job_id))
        if found := session.scalar(select(Tombstone).where(with_version).limit(1)):
            raise gone(found)
        raise _removed(f"the artifacts of job {job_id} were", at)


def marks_of(session: Session, job_id: str) -> dict[str, Any]:
    """What became of the marks of a job's samples, over all of its shards; none, if unmarked.

    Of each mark, how many samples have it, and how many do not for each reason.
    """
    statement = select(Artifact.marks).join(Shard, Shard.id == Artifact.shard_id)
    statement = statement.where(Shard.job_id == job_id, Artifact.marks.is_not(None))
    total: dict[str, Any] = {}
    for marks in session.scalars(statement):
        for name, found in (marks or {}).items():
            mark = total.setdefault(name, {"applied": 0, "not_applied": Counter()})
            mark["applied"] += found["applied"]
            mark["not_applied"].update(found["not_applied"])
    return total


def samples_page(
    session: Session, job_id: str, *, after: int = -1, limit: int = 100
) -> list[tuple[Artifact, Shard]]:
    """Up to `limit` of a job's samples artifacts, of shards numbered above `after`, in order."""
    statement = (
        select(Artifact, Shard)
        .join(Shard, Shard.id == Artifact.shard_id)
        .where(Shard.job_id == job_id, Shard.idx > after)
        .where(Artifact.kind == "samples", Artifact.removed_at.is_(None))
        .options(undefer(Artifact.index_data))
    )
    rows = session.execute(statement.order_by(Shard.idx).limit(limit))
    return [(artifact, shard) for artifact, shard in rows]


def newest_first(
    session: Session,
    kind: str,
    media_types: Collection[str],
    *,
    before: str | None = None,
    limit: int = 100,
) -> list[tuple[Artifact, Shard]]:
    """Up to `limit` artifacts of a kind, of all jobs, of these types and made `before` that one."""
    statement = (
        select(Artifact, Shard)
        .join(Shard, Shard.id == Artifact.shard_id)
        .where(Artifact.kind == kind, Artifact.removed_at.is_(None))
        .where(Artifact.media_type.in_(media_types))
        .options(undefer(Artifact.index_data))
    )
    if before is not None:
        statement = statement.where(Artifact.id < before)
    rows = session.execute(statement.order_by(Artifact.id.desc()).limit(limit))
    return [(artifact, shard) for artifact, shard in rows]


def with_digests(session: Session, digests: Sequence[str]) -> list[Artifact]:
    """Every artifact with one of these digests, oldest first, also those that retention removed.

    Reads the whole table, once for `AT_ONCE` digests: they have no index.
    """
    found: list[Artifact] = []
    for first in range(0, len(digests), AT_ONCE):
        some = Artifact.sha256.in_(digests[first : first + AT_ONCE])
        found += session.scalars(select(Artifact).where(some))
    return sorted(found, key=lambda each: each.id)


def stored(session: Session, job_ids: Sequence[str], *, without: Collection[str]) -> Stored:
    """What these jobs have committed so far, artifacts of the kinds `without` aside."""
    samples = case((Artifact.kind == "samples", Shard.stop - Shard.start), else_=0)
    sums = (func.count(), func.sum(samples), func.sum(Artifact.size))
    statement = select(*sums).select_from(Artifact).join(Shard, Shard.id == Artifact.shard_id)
    kept = (Artifact.removed_at.is_(None), Artifact.kind.not_in(without))
    found = Stored()
    for first in range(0, len(job_ids), AT_ONCE):
        some = Shard.job_id.in_(job_ids[first : first + AT_ONCE])
        row = session.execute(statement.where(some, *kept)).one()
        found = Stored(*(one + int(more or 0) for one, more in zip(found, row, strict=True)))
    return found


def holding(session: Session, job_id: str, sample: int) -> tuple[Artifact, Shard]:
    """The artifact that holds a job's sample, and its shard. Raises `NotFound` or `Removed`."""
    found = samples_page(session, job_id, after=_shard_of(session, job_id, sample) - 1, limit=1)
    refuse_removed(session, job_id)
    if not found or not found[0][1].start <= sample < found[0][1].stop:
        raise NotFound(f"job {job_id} has no sample {sample} yet")
    return found[0]


def count_samples(session: Session, job_id: str) -> int:
    """The number of samples that a job's shards make, committed or not."""
    sizes = select(func.sum(Shard.stop - Shard.start)).where(Shard.job_id == job_id)
    return int(session.scalar(sizes) or 0)


def referenced_keys(session: Session, job_id: str) -> set[str]:
    """Every store key under a job that the record refers to; other objects there are garbage."""
    stored = of_job(session, job_id)
    # of one in a pack too: its URL is that of a copy
    keys = {artifact.own_key for artifact in stored}
    keys.update(artifact.index_key for artifact in stored if artifact.index_key)
    checkpoints = select(Checkpoint.key).join(Shard, Shard.id == Checkpoint.shard_id)
    keys.update(session.scalars(checkpoints.where(Shard.job_id == job_id)))
    # a later model version may refer to files that this job stored
    files = cast(ModelVersion.files, String).contains(f"jobs/{job_id}/", autoescape=True)
    for by_name in session.scalars(select(ModelVersion.files).where(files)):
        keys.update(file["key"] for file in by_name.values())
    keys.update(session.scalars(select(Evaluation.items_key).where(Evaluation.job_id == job_id)))
    keys.update(session.scalars(select(Judge.key).where(Judge.job_id == job_id)))
    manifest = session.scalar(select(Job.manifest_key).where(Job.id == job_id))
    return keys | ({manifest} if manifest else set())


def names_pack(session: Session, number: int) -> bool:
    """Whether an artifact that is kept, or a job's manifest, lies in this pack."""
    kept = select(Artifact.id).where(Artifact.pack == number, Artifact.removed_at.is_(None))
    manifest = select(Job.id).where(Job.manifest_pack == number)
    return session.scalar(select(or_(kept.exists(), manifest.exists()))) is True


def work_is_under_way(session: Session) -> bool:
    """Whether a shard runs or a job is being finished, so that something stored may be recorded."""
    running = select(Shard.id).where(Shard.status == literal_column("'running'"))
    finishing = select(Job.id).where(Job.status == JobState.FINALIZING)
    return session.scalar(select(or_(running.exists(), finishing.exists()))) is True


def _removed(what: str, at: datetime) -> Removed:
    return Removed(
        f"{what} removed on {at:%Y-%m-%d}",
        remedy="submit the job again; GENMILL_KEEP_ARTIFACTS_DAYS says how long artifacts are kept",
    )


def _shard_of(session: Session, job_id: str, sample: int) -> int:
    """The number of the last shard that begins at or before `sample`; -1 if none does.

    The ranges of a job's shards are in order, so a bisection by (job, number) reads a few rows.
    """
    count = session.scalar(select(func.max(Shard.idx)).where(Shard.job_id == job_id))
    start_of = select(Shard.start).where(Shard.job_id == job_id)
    numbers = range(0 if count is None else count + 1)
    return (
        bisect_right(
            numbers, sample, key=lambda idx: session.scalar(start_of.where(Shard.idx == idx)) or 0
        )
        - 1
    )
