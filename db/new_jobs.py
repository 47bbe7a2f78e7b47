"""New jobs: the rows that store them, built outside the transaction and inserted in pieces.

A piece has a bounded number of rows, so that inserting it holds locks for a fraction of a second.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.orm import Session

from db import progress
from db.columns import fresh_ids
from db.errors import Refused
from db.session import clock, insert_rows
from db.states import JobState, ShardState
from db.tables import Job, Shard, Transition

PIECE_ROWS = 3000  # a thousand jobs of one shard: about a tenth of a second

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job to insert. `ranges` are the samples of its shards, each from start to stop."""

    kind: str
    spec: dict[str, Any]
    spec_hash: str
    model: str | None
    ranges: Sequence[Sequence[int]]
    priority: int = 0
    custom_id: str | None = None
    schedule_id: str | None = None
    retry_of: str | None = None
    idempotency_key: str | None = None

    def __post_init__(self) -> None:
        """Refuse a job without a shard."""
        if not self.ranges:
            raise Refused("a job needs at least one shard: there is nothing to do")


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows to insert in one transaction, but for their times."""

    jobs: list[Row] = field(default_factory=list)
    shards: list[Row] = field(default_factory=list)
    transitions: list[Row] = field(default_factory=list)

    @property
    def rows(self) -> int:
        """The number of rows."""
        return len(self.jobs) + len(self.shards) + len(self.transitions)


def pieces(jobs: Iterable[NewJob], *, batch_id: str | None = None) -> Iterator[Piece]:
    """The rows of jobs, all queued, in pieces; a job with many shards is spread over several."""
    piece = Piece()
    job_ids, shard_ids, transition_ids = fresh_ids(), fresh_ids(), fresh_ids()
    for job in jobs:
        job_id = next(job_ids)
        piece.jobs.append(_job_row(job, job_id, batch_id))
        piece.transitions.append(_transition_row(next(transition_ids), job_id))
        for idx, (start, stop) in enumerate(job.ranges):
            piece.shards.append(_shard_row(next(shard_ids), job_id, idx, start, stop))
            if piece.rows >= PIECE_ROWS:
                yield piece
                piece = Piece()
    if piece.rows:
        yield piece


def insert_piece(session: Session, piece: Piece) -> None:
    """Insert a piece; raises `sqlalchemy.exc.IntegrityError` if an idempotency key is taken."""
    now = clock(session)
    for rows, column in (
        (piece.jobs, "created_at"),
        (piece.shards, "not_before"),
        (piece.transitions, "at"),
    ):
        for row in rows:
            row[column] = now
    insert_rows(session, Job, piece.jobs)
    insert_rows(session, Shard, piece.shards)
    insert_rows(session, Transition, piece.transitions)


def insert_job(session: Session, job: NewJob, *, batch_id: str | None = None) -> Job:
    """Insert one job with all its shards and return it."""
    job_id = None
    for piece in pieces([job], batch_id=batch_id):
        insert_piece(session, piece)
        job_id = job_id or piece.jobs[0]["id"]
    return session.get_one(Job, job_id)


def _job_row(job: NewJob, job_id: str, batch_id: str | None) -> Row:
    return {
        "id": job_id,
        "kind": job.kind,
        "spec": job.spec,
        "spec_hash": job.spec_hash,
        "status": JobState.QUEUED.value,
        "priority": job.priority,
        "model": job.model,
        "batch_id": batch_id,
        "custom_id": job.custom_id,
        "schedule_id": job.schedule_id,
        "retry_of": job.retry_of,
        "idempotency_key": job.idempotency_key,
        "progress": progress.initial(job.kind, [(start, stop) for start, stop in job.ranges]),
    }


def _shard_row(shard_id: str, job_id: str, idx: int, start: int, stop: int) -> Row:
    return {
        "id": shard_id,
        "job_id": job_id,
        "idx": idx,
        "start": start,
        "stop": stop,
        "status": ShardState.QUEUED.value,
    }


def _transition_row(transition_id: str, job_id: str) -> Row:
    # one for the job and its shards, which all begin queued
    return {
        "id": transition_id,
        "job_id": job_id,
        "shard_id": None,
        "old": None,
        "new": JobState.QUEUED.value,
        "reason": None,
    }
