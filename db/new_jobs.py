"""New jobs: the rows that store them, built outside the transaction and inserted in pieces.

A piece has a bounded number of rows, so that inserting it holds locks for a fraction of a second.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice, pairwise
from typing import NamedTuple

from sqlalchemy.orm import Session, undefer

from db import progress
from db.columns import fresh_ids, new_id
from db.errors import NotFound, Refused
from db.moves import lock_job
from db.session import clock
from db.states import JobState, ShardState
from db.tables import Job, Shard, Transition
from db.tombstones import refuse
from db.tuples import Tuple, insert_tuples

PIECE_ROWS = 6000  # 3,000 jobs of one shard: about a tenth of a second

JOB = (
    *("id", "kind", "spec", "spec_hash", "model", "priority", "batch_id", "custom_id"),
    *("schedule_id", "retry_of", "idempotency_key", "prompts_sha256"),
    *("samples", "after_id", "wanted", "owner", "status"),
)
SHARD = ("id", "idx", "start", "stop", "job_id", "group_id", "urgency", "work_key")
TRANSITION = ("id", "job_id", "new")


class NewJob(NamedTuple):
    """A job to insert; one without ranges waits for the job `after_id`."""

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
    after_id: str | None = None  # the one before it in its chain
    id: str | None = None  # by default a fresh one
    wanted: int | None = None  # accepted samples, of an order with rules
    owner: str | None = None  # who enqueues it, as user@host

    @property
    def waits(self) -> bool:
        """Whether it has no shards until the job before it has succeeded."""
        return not self.ranges and self.after_id is not None


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows to insert in one transaction, without what is the same in all of them."""

    jobs: list[Tuple] = field(default_factory=list)
    shards: list[Tuple] = field(default_factory=list)
    transitions: list[Tuple] = field(default_factory=list)  # of jobs that wait

    @property
    def rows(self) -> int:
        """The number of rows."""
        return len(self.jobs) + len(self.shards) + len(self.transitions)


def pieces(jobs: Iterable[NewJob], *, batch_id: str | None = None) -> Iterator[Piece]:
    """The rows of jobs in pieces; a job with many shards is spread over several.

    Raises `Refused` for a job without a shard that does not wait for another.
    """
    piece = Piece()
    job_ids, shard_ids = fresh_ids(), fresh_ids()
    for job in jobs:
        if not job.ranges and not job.waits:
            raise Refused("a job needs at least one shard: there is nothing to do")
        job_id = job.id or next(job_ids)
        state = JobState.WAITING.value if job.waits else JobState.QUEUED.value
        piece.jobs.append((*_job_row(job, job_id, batch_id), state))
        if job.waits:  # that others begin queued is told by their own rows
            piece.transitions.append((new_id(), job_id, state))
        for row in shard_rows(job, job_id, group_id=batch_id or job_id, ids=shard_ids):
            piece.shards.append(row)
            if piece.rows >= PIECE_ROWS:
                yield piece
                piece = Piece()
        if piece.rows >= PIECE_ROWS:
            yield piece
            piece = Piece()
    if piece.rows:
        yield piece


def insert_piece(session: Session, piece: Piece) -> None:
    """Insert a piece; raises `sqlalchemy.exc.IntegrityError` if an idempotency key is taken."""
    now = clock(session)
    insert_tuples(session, Job, JOB, piece.jobs, created_at=now)
    insert_shards(session, piece.shards, at=now)
    insert_tuples(session, Transition, TRANSITION, piece.transitions, at=now)


def shard_rows(job: NewJob, job_id: str, *, group_id: str, ids: Iterator[str]) -> Iterator[Tuple]:
    """The row of each of a job's shards."""
    common = (job_id, group_id, -job.priority, job.work_key)
    for idx, (start, stop) in enumerate(job.ranges):
        yield (next(ids), idx, start, stop, *common)


def insert_shards(session: Session, rows: Sequence[Tuple], *, at: datetime) -> None:
    """Insert the rows of shards, queued and due."""
    queued = ShardState.QUEUED.value
    insert_tuples(session, Shard, SHARD, rows, status=queued, not_before=at)


def insert_job(session: Session, job: NewJob, *then: NewJob, batch_id: str | None = None) -> Job:
    """Insert a job with its shards, and those that wait, each for the one before.

    Returns the first, with its spec; it keeps an id that it has. Raises `Gone` or `NotFound` for a
    retry of a job that has been removed.
    """
    if job.retry_of is not None:
        hold_original(session, job.retry_of)
    ids = [job.id or new_id(), *islice(fresh_ids(), len(then))]
    waiting = [
        each._replace(id=own, after_id=before)
        for each, (before, own) in zip(then, pairwise(ids), strict=True)
    ]
    for piece in pieces([job._replace(id=ids[0]), *waiting], batch_id=batch_id):
        insert_piece(session, piece)
    return session.get_one(Job, ids[0], options=[undefer(Job.spec)])


def hold_original(session: Session, job_id: str) -> None:
    """Keep a job that is retried from being removed until the transaction ends.

    Raises `Gone` or `NotFound` if it has been.
    """
    found = lock_job(session, job_id, shared=True)
    refuse(session, job_id)
    if found is None:
        raise NotFound(f"job {job_id} is not on record any more, and cannot be retried")


def _job_row(job: NewJob, job_id: str, batch_id: str | None) -> Tuple:
    return (
        *(job_id, job.kind, job.spec, job.spec_hash, job.model, job.priority),
        *(batch_id, job.custom_id, job.schedule_id, job.retry_of, job.idempotency_key),
        job.prompts_sha256,
        *(progress.total(job.kind, job.ranges), job.after_id, job.wanted, job.owner),
    )
