"""Lists of jobs, newest first, and how many there are: by index, whatever the number of jobs."""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from datetime import datetime, timedelta
from heapq import nlargest
from typing import Any, NamedTuple

from sqlalchemy import Select, and_, func, or_, select, text, union_all
from sqlalchemy.orm import Session, undefer

from db.batches import incomplete, incomplete_batches, visible
from db.columns import first_id
from db.errors import Refused
from db.session import clock
from db.states import JobState
from db.tables import Job, JobCount, Tombstone
from db.tombstones import KEPT, not_hidden

MAX_LIMIT = 10_000
VISIBLE = and_(visible(Job.batch_id), not_hidden(Job.id))
# Ids hold the time by the clock of the machine that submitted, `created_at` that by the database's.
CLOCK_SKEW = timedelta(minutes=1)

FOLDED_AT_ONCE = 50_000
FOLD = text("""
WITH gone AS (
    DELETE FROM job_counts WHERE ctid = ANY(ARRAY(
        SELECT ctid FROM job_counts WHERE slot <> 0 LIMIT :limit FOR UPDATE SKIP LOCKED
    )) RETURNING kind, status, jobs
), added AS (
    INSERT INTO job_counts (kind, status, slot, jobs)
    SELECT kind, status, 0, sum(jobs) FROM gone GROUP BY kind, status ORDER BY kind, status
    ON CONFLICT (kind, status, slot) DO UPDATE SET jobs = job_counts.jobs + excluded.jobs
)
SELECT count(*) FROM gone
""")


class EndedJob(NamedTuple):
    """A job that has ended, and when."""

    id: str
    finished_at: datetime


def select_jobs(ids: Collection[str], *, with_spec: bool = False) -> Select[Job]:
    """The statement of the jobs with these ids, newest first."""
    found = select(Job).where(Job.id.in_(ids)).order_by(Job.id.desc())
    return found.options(undefer(Job.spec)) if with_spec else found


def listing(session: Session, *, with_spec: bool = False, **filters: Any) -> list[Job]:
    """Jobs that match every filter of `newest`, newest first."""
    ids = newest(session, **filters)
    return list(session.scalars(select_jobs(ids, with_spec=with_spec))) if ids else []


def newest(
    session: Session,
    *,
    limit: int = 50,
    since: datetime | None = None,
    before: str | None = None,
    owner: str | None = None,
    **filters: str | None,
) -> list[str]:
    """The ids of jobs that match every filter, newest first; `before` is the last page's last.

    The filters are `status`, `kind`, `model`, `batch` and `schedule`; `owner` is user@host, or a
    user on any host, and no index has it. At most 10,000 jobs.
    """
    limit = min(limit, MAX_LIMIT)
    statement = select(Job.id).where(VISIBLE).order_by(Job.id.desc()).limit(limit)
    if since is not None:
        earliest = first_id(since - CLOCK_SKEW)
        statement = statement.where(Job.id >= earliest, Job.created_at >= since)
    if before is not None:
        statement = statement.where(Job.id < before)
    if owner is not None:
        on_any_host = Job.owner.startswith(f"{owner}@", autoescape=True)
        statement = statement.where(Job.owner == owner if "@" in owner else on_any_host)
    given = {name: value for name, value in filters.items() if value is not None}
    if hidden := incomplete_batches(session):
        statement = statement.where(or_(Job.batch_id.is_(None), Job.batch_id.not_in(hidden)))
    return _found(session, _searches(session, statement, **given), limit)


def ended_before(
    session: Session, keep: timedelta, *, after: EndedJob | None = None, limit: int
) -> list[EndedJob]:
    """Jobs that ended longer ago than `keep`, the last first; `after` is the previous page's last.

    A job that names another ended after it, and so comes before it.
    """
    ended = select(Job.id, Job.finished_at).where(not_hidden(Job.id))
    ended = ended.where(Job.finished_at < clock(session) - keep)
    if after is not None:
        beyond = and_(Job.finished_at == after.finished_at, Job.id < after.id)
        earlier = or_(Job.finished_at < after.finished_at, beyond)
        ended = ended.where(Job.finished_at <= after.finished_at, earlier)
    rows: Any = session.execute(ended.order_by(Job.finished_at.desc(), Job.id.desc()).limit(limit))
    return [EndedJob(*row) for row in rows]


def counts(session: Session) -> dict[str, int]:
    """The number of jobs in each state."""
    # an index of the batch finds them
    of_incomplete = select(Job.status, func.count()).where(Job.batch_id.in_(incomplete()))
    hidden = Counter(dict(_by_status(session, of_incomplete)))
    kept = select(Tombstone.id).where(KEPT, Tombstone.kind == "job")
    hidden.update(
        dict(_by_status(session, select(Job.status, func.count()).where(Job.id.in_(kept))))
    )
    rows = session.execute(select(JobCount.status, func.sum(JobCount.jobs)).group_by("status"))
    found = dict.fromkeys(map(str, JobState), 0) | {status: int(jobs) for status, jobs in rows}
    return {status: max(0, jobs - hidden[status]) for status, jobs in found.items()}


def _by_status(session: Session, counted: Any) -> Iterator[tuple[str, int]]:
    yield from ((row[0], row[1]) for row in session.execute(counted.group_by(Job.status)))


def fold_counts(session: Session) -> int:
    """Add what transactions have counted to the sums; return how many rows that frees.

    Without it, counts stay right, but reading them takes longer and longer. SQLite needs none.
    """
    if session.get_bind().dialect.name == "sqlite":
        return 0
    return session.scalar(FOLD, {"limit": FOLDED_AT_ONCE}) or 0


def _searches(
    session: Session,
    statement: Select[str],
    *,
    status: str | None = None,
    kind: str | None = None,
    model: str | None = None,
    batch: str | None = None,
    schedule: str | None = None,
) -> list[Select[str]]:
    """The search, as one or several of which each reads a range of an index.

    Most indexes have the state and the kind before the id. Where one of the two is not given, there
    is a search for each of its values, so that each finds its ids in order.
    """
    if status is not None and status not in set(JobState):
        raise Refused.unknown("status", status, [state.value for state in JobState])
    for column, value in ((Job.model, model), (Job.batch_id, batch), (Job.schedule_id, schedule)):
        if value is not None:
            statement = statement.where(column == value)
    if schedule or (status is None and kind is None and (batch or not model)):
        return [statement]  # by an index of the id, or of the one column and the id
    return [
        statement.where(Job.status == each.status, Job.kind == each.kind)
        for each in session.execute(select(JobCount.status, JobCount.kind).distinct())
        if status in (None, each.status) and kind in (None, each.kind)
    ]


def _found(session: Session, searches: Sequence[Select[str]], limit: int) -> list[str]:
    """The newest ids that any of the searches finds."""
    if len(searches) > 1:
        each = (select(search.subquery().c.id) for search in searches)
        found: Any = session.scalars(union_all(*each))
        return nlargest(limit, found)
    return [job_id for search in searches for job_id in session.scalars(search)]
