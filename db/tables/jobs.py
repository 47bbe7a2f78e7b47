"""Batches and jobs, the counts of jobs, and each job's changes of state, log and curves."""

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from db.checked import BigInteger, String
from db.columns import Digest, Id, PlainText, new_id
from db.commits import Range
from db.tables.base import Base, index_where, partial_index


class Batch(Base):
    """Jobs submitted together.

    Until `complete_at`, when all of them are stored, its jobs are neither listed nor run.
    """

    __tablename__ = "batches"
    __table_args__ = (index_where("ix_batches_incomplete", "id", "complete_at IS NULL"),)
    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    size: Mapped[int]
    created_at: Mapped[datetime]
    complete_at: Mapped[datetime | None]
    discarded_at: Mapped[datetime | None]  # when deleting began: it can never be completed


class Job(Base):
    """One request. Everything a worker needs is in `spec`, with every name pinned to a version.

    A job of a chain waits until the job `after_id` has succeeded. Until then its `spec` is as asked
    for, because the version that it names may not exist yet, and it has no shards.

    `spec` is loaded only where it is asked for, and names long prompts by their digest.
    """

    __tablename__ = "jobs"
    __table_args__ = (
        # of lists: newest first, by a column alone or with the state and kind
        Index("ix_jobs_status_kind_id", "status", "kind", "id"),
        partial_index("ix_jobs_model_status_kind_id", "model", "status", "kind", "id"),
        partial_index("ix_jobs_batch_id", "batch_id", "id"),
        partial_index("ix_jobs_batch_id_status_kind_id", "batch_id", "status", "kind", "id"),
        partial_index("ix_jobs_schedule_id", "schedule_id", "id"),
        # of what finished jobs leave behind
        partial_index("ix_jobs_finished_at_id", "finished_at", "id"),
        partial_index("ix_jobs_collectable", "finished_at", also="collected_at IS NULL"),
        partial_index("ix_jobs_retry_of", "retry_of"),
        partial_index("ix_jobs_after_id", "after_id"),
        partial_index("ix_jobs_manifest_pack", "manifest_pack"),
        partial_index("ix_jobs_prompts_sha256", "prompts_sha256"),
    )
    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    kind: Mapped[str] = mapped_column(String(20))
    spec: Mapped[dict[str, Any]] = mapped_column(deferred=True)
    spec_hash: Mapped[str] = mapped_column(Digest)
    status: Mapped[str] = mapped_column(String(12))
    priority: Mapped[int] = mapped_column(default=0)  # higher runs first
    model: Mapped[str | None] = mapped_column(String(100))  # the model's bare name
    batch_id: Mapped[str | None] = mapped_column(ForeignKey("batches.id"))
    custom_id: Mapped[str | None] = mapped_column(String(200))
    schedule_id: Mapped[str | None] = mapped_column(Id)
    retry_of: Mapped[str | None] = mapped_column(ForeignKey("jobs.id"))
    after_id: Mapped[str | None] = mapped_column(Id)  # the one before it in its chain
    idempotency_key: Mapped[str | None] = mapped_column(String(200), unique=True)
    # to make, or items to publish; NULL of any other kind
    samples: Mapped[int | None] = mapped_column(BigInteger)
    # how many must be accepted, of an order with rules; shards are added until they are
    wanted: Mapped[int | None] = mapped_column(BigInteger)
    owner: Mapped[str | None] = mapped_column(String(200))  # who enqueued it, as user@host
    note: Mapped[str | None] = mapped_column(PlainText)  # a user's
    # when a training was told to end early and to keep its best weights, and how far it was then
    stop_asked_at: Mapped[datetime | None]
    stop_after: Mapped[float | None]  # steps, or seconds, as it reports
    error: Mapped[str | None] = mapped_column(PlainText)
    # its manifest is an object of its own, or a range of a pack
    manifest_key: Mapped[str | None] = mapped_column(String(200))
    manifest_pack: Mapped[int | None] = mapped_column(BigInteger)
    manifest_offset: Mapped[int | None]
    manifest_size: Mapped[int | None]
    manifest_sha256: Mapped[str | None] = mapped_column(Digest)
    prompts_sha256: Mapped[str | None] = mapped_column(Digest)  # of long prompts, in the store
    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    collected_at: Mapped[datetime | None]  # when its unreferenced objects were deleted

    @property
    def packed_manifest(self) -> Range | None:
        """Where the manifest lies if it is in a pack."""
        if self.manifest_pack is None:
            return None
        return Range(self.manifest_pack, self.manifest_offset or 0, self.manifest_size or 0)


class JobCount(Base):
    """How many jobs of a kind are in a state: the sum over the slots.

    Triggers on `jobs` keep it. On PostgreSQL each transaction has a slot of its own, which
    `job_lists.fold_counts` adds to slot 0; on SQLite there is no other slot.
    """

    __tablename__ = "job_counts"
    kind: Mapped[str] = mapped_column(String(20), primary_key=True)
    status: Mapped[str] = mapped_column(String(12), primary_key=True)
    slot: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    jobs: Mapped[int] = mapped_column(BigInteger)


class Retention(Base):
    """Up to which finished job something has been deleted, in the order of (finished_at, id).

    And the jobs before that whose artifacts are looked at again (`db.ended_jobs`).
    """

    __tablename__ = "retention"
    what: Mapped[str] = mapped_column(String(20), primary_key=True)
    finished_at: Mapped[datetime]
    job_id: Mapped[str] = mapped_column(Id)


class Transition(Base):
    """A change of state of a job or one of its shards. Append only.

    What went as planned is on the row itself (`db.moves`).
    """

    __tablename__ = "transitions"
    __table_args__ = (Index("ix_transitions_job_id_at_id", "job_id", "at", "id"),)
    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    job_id: Mapped[str] = mapped_column(Id)
    shard_id: Mapped[str | None] = mapped_column(Id)
    at: Mapped[datetime]
    old: Mapped[str | None] = mapped_column(String(12))
    new: Mapped[str] = mapped_column(String(12))
    reason: Mapped[str | None] = mapped_column(PlainText)


class LogLine(Base):
    """A line that a worker wrote about a job, for `job logs`."""

    __tablename__ = "log_lines"
    __table_args__ = (Index("ix_log_lines_job_id_at_id", "job_id", "at", "id"),)
    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    at: Mapped[datetime]
    level: Mapped[str] = mapped_column(String(10))
    message: Mapped[str] = mapped_column(PlainText)


class Point(Base):
    """One point of a curve: a loss or metric at a step of a training job."""

    __tablename__ = "points"
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    name: Mapped[str] = mapped_column(String(60), primary_key=True)
    step: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    value: Mapped[float]
