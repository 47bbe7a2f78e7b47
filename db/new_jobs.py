"""New jobs: the rows that store them, built outside the transaction and inserted in pieces.

A piece has a bounded number of rows, so that inserting it holds locks for a fraction of a second.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from sqlalchemy.orm import Session, undefer

from db import progress
from db.columns import fresh_ids
from db.errors import Refused
from db.session import clock
from db.states import JobState, ShardState
from db.tables import Job, Shard
from db.tuples import Tuple, insert_tuples

PIECE_ROWS = 3000  # 1,500 jobs of one shard: about a tenth of a second

JOB = (
    *("id", "kind", "spec", "spec_hash", "model", "priority", "batch_id", "custom_id"),
    *("schedule_id", "retry_of", "idempotency_key", "prompts_sha256"),
    "samples",
)
SHARD = ("id", "idx", "start", "stop", "job_id", "group_id", "urgency", "work_key")


class NewJob(NamedTuple):
    """A job to insert."""

    kind: str
    spec: str  # JSON
    spec_hash: str
    model: str | None
    ranges: Sequence[tuple[int, int]]  # of samples, from start to stop, one per shard
    priority: int = 0
    work_key: int | None = None  # shards of equal keys can run together
    custom_id: str | None = None
    schedule_id: str | None = None
    retry_of: str | None = None
    idempotency_key: str | None = None
    prompts_sha256: str | None = None  # of long prompts, in the store


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows to insert in one transaction, without what is the same in all of them."""

    jobs: list[Tuple] = field(default_factory=list)
    shards: list[Tuple] = field(default_factory=list)

    @property
    def rows(self) -> int:
        """The number of rows."""
        return len(self.jobs) + len(self.shards)


def pieces(jobs: Iterable[NewJob], *, batch_id: str | None = None) -> Iterator[Piece]:
    """The rows of jobs, all queued, in pieces; a job with many shards is spread over several.

    Raises `Refused` for a job without a shard.
    """
    piece = Piece()
    job_ids, shard_ids = fresh_ids(), fresh_ids()
    for job in jobs:
        if not job.ranges:
            raise Refused("a job needs at least one shard: there is nothing to do")
        job_id = next(job_ids)
        piece.jobs.append(_job_row(job, job_id, batch_id))
        common = (job_id, batch_id or job_id, -job.priority, job.work_key)
        for idx, (start, stop) in enumerate(job.ranges):
            piece.shards.append((next(shard_ids), idx, start, stop, *common))
            if piece.rows >= PIECE_ROWS:
                yield piece
                piece = Piece()
    if piece.rows:
        yield piece


def insert_piece(session: Session, piece: Piece) -> None:
    """Insert a piece; raises `sqlalchemy.exc.IntegrityError` if an idempotency key is taken."""
    now = clock(session)
    queued = JobState.QUEUED.value
    insert_tuples(session, Job, JOB, piece.jobs, status=queued, created_at=now)
    queued = ShardState.QUEUED.value
    insert_tuples(session, Shard, SHARD, piece.shards, status=queued, not_before=now)


def insert_job(session: Session, job: NewJob, *, batch_id: str | None = None) -> Job:
    """Insert one job with all its shards and return it, with its spec."""
    rows = list(pieces([job], batch_id=batch_id))
    for piece in rows:
        insert_piece(session, piece)
    return session.get_one(Job, rows[0].jobs[0][0], options=[undefer(Job.spec)])


def _job_row(job: NewJob, job_id: str, batch_id: str | None) -> Tuple:
    return (
        *(job_id, job.kind, job.spec, job.spec_hash, job.model, job.priority),
        *(batch_id, job.custom_id, job.schedule_id, job.retry_of, job.idempotency_key),
        job.prompts_sha256,
        progress.total(job.kind, job.ranges),
    )
