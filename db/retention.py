"""Retention: what finished jobs leave behind is deleted by age, in small steps.

The jobs themselves, their shards, the model versions that they made and evaluations stay. Jobs are
visited in the order in which they finished; the table `retention` keeps how far each kind of data
has come, so that no job is looked at twice. Several schedulers may take steps at once: they take
turns.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Row,
    Select,
    Table,
    and_,
    delete,
    exists,
    func,
    select,
    tuple_,
    union,
    update,
)
from sqlalchemy.orm import Session

from db import published
from db.ended_jobs import ARTIFACTS, ended_jobs, jobs_again, locked_place, looked_again
from db.journal import log
from db.publications import THERE
from db.session import clock
from db.states import FINAL
from db.tables import (
    Artifact,
    Attempt,
    Checkpoint,
    Evaluation,
    Job,
    LogLine,
    ModelVersion,
    Point,
    Publication,
    Retention,
    Shard,
    Transition,
)

JOBS_AT_ONCE = 500
ROWS_AT_ONCE = 1000

Found = Callable[[Collection[str]], Select[Any]]  # the keys of the rows that some jobs left


@dataclass(frozen=True)
class Step:
    """What one step deleted, by table; `more` if another step would go on."""

    rows: dict[str, int]
    more: bool


def _by_job(table: Any) -> Found:
    return lambda ids: select(*table.__table__.primary_key).where(table.job_id.in_(ids))


def _by_shard(table: Any, *conditions: ColumnElement[bool]) -> Found:
    of_shard = select(*table.__table__.primary_key).join(Shard, Shard.id == table.shard_id)
    return lambda ids: of_shard.where(Shard.job_id.in_(ids), *conditions)


_kept = Artifact.removed_at.is_(None)
# model versions refer to the weights that their job stored
_weights_in_use = and_(
    Artifact.kind == "weights", exists().where(ModelVersion.job_id == Artifact.job_id)
)
# and to their evaluations' reports
_report_in_use = and_(
    Artifact.kind == "report", exists().where(Evaluation.job_id == Artifact.job_id)
)
# strangers may ask where what is at a target comes from
_published = exists().where(Publication.job_id == Artifact.job_id, Publication.state.in_(THERE))
_other = and_(Artifact.kind != "preview", ~_weights_in_use, ~_report_in_use, ~_published)


def _unused_checkpoints(ids: Collection[str]) -> Select[Any]:
    """A retry that has not ended, or one of a retry, may still resume from a checkpoint."""
    first = select(Job.retry_of.label("origin"), Job.id, Job.status).where(Job.retry_of.in_(ids))
    line = first.cte("line", recursive=True)
    later = select(line.c.origin, Job.id, Job.status).join(line, Job.retry_of == line.c.id)
    line = line.union(later)  # not `union_all`, which would follow a circle for ever
    retried = select(line.c.origin).where(line.c.status.not_in(FINAL))
    return _by_shard(Checkpoint, Shard.job_id.not_in(retried))(ids)


def _to_be_published(session: Session, what: str) -> set[str]:
    """The jobs whose samples an unfinished job publishes. They are looked at again at its end."""
    going = published.going(session, take_down=False) if what == ARTIFACTS else ()
    return {each.job_id for each in going if each.job_id}


# by kind of data, the tables and the rows in them
WHAT: dict[str, dict[Any, Found]] = {
    "history": {Attempt: _by_shard(Attempt), Transition: _by_job(Transition)},
    "logs": {LogLine: _by_job(LogLine)},
    "curves": {Point: _by_job(Point)},
    "previews": {Artifact: _by_shard(Artifact, _kept, Artifact.kind == "preview")},
    "artifacts": {Artifact: _by_shard(Artifact, _kept, _other), Checkpoint: _unused_checkpoints},
    "checkpoints": {Checkpoint: _unused_checkpoints},
}


def is_due(session: Session, what: str, *, keep: timedelta) -> bool:
    """Whether a job finished before `keep` ago that `take_step` has not visited."""
    place = session.get(Retention, what, populate_existing=True)
    return bool(_next_jobs(session, what, place, clock(session) - keep, 1))


def take_step(
    session: Session,
    what: str,
    *,
    keep: timedelta,
    limit: int = ROWS_AT_ONCE,
    jobs_at_once: int = JOBS_AT_ONCE,
) -> Step:
    """Delete at most `limit` rows of each table of some jobs that finished before `keep` ago.

    Artifacts are marked as removed, and their objects become garbage, which is collected as ever.
    """
    place = locked_place(session, what)
    jobs = _next_jobs(session, what, place, clock(session) - keep, jobs_at_once)
    if place is None or not jobs:
        return Step({}, more=False)
    kept = _to_be_published(session, what)
    ids = [job.id for job in jobs if job.id not in kept]
    rows = {
        table.__tablename__: delete_rows(session, table, found(ids).limit(limit))
        for table, found in WHAT[what].items()
    }
    if max(rows.values()) < limit:  # nothing is left of these
        _pass(session, place, jobs)
    return Step(rows, more=True)


def pass_over(session: Session, what: str, *, keep: timedelta, reason: str) -> None:
    """Skip what the next job left behind, for good; its log says why."""
    place = locked_place(session, what)
    jobs = _next_jobs(session, what, place, clock(session) - keep, 1)
    if place is None or not jobs:
        return
    _pass(session, place, jobs)
    log(
        session,
        jobs[0].id,
        f"its {what} are older than what is kept, but stay: {reason}",
        "warning",
    )


def _next_jobs(
    session: Session, what: str, place: Retention | None, before: datetime, limit: int
) -> Sequence[Row[*tuple[Any, ...]]]:
    """Ids and ends of the jobs to look at, the ones to look at again before others."""
    again = session.execute(jobs_again(before).limit(limit)).all() if what == ARTIFACTS else ()
    return again or session.execute(ended_jobs(place, before).limit(limit)).all()


def _pass(session: Session, place: Retention, jobs: Sequence[Row[*tuple[Any, ...]]]) -> None:
    """Go on after these jobs."""
    if place.what == ARTIFACTS:
        looked_again(session, [job.id for job in jobs])
    last = jobs[-1].finished_at, jobs[-1].id
    place.finished_at, place.job_id = max((place.finished_at, place.job_id), last)
    session.flush()


def count(session: Session, what: str, *, keep: timedelta) -> dict[str, int]:
    """How many rows of each table `take_step` would delete in all. Reads every such job."""
    before, going = clock(session) - keep, _to_be_published(session, what)
    jobs = ended_jobs(session.get(Retention, what), before).subquery()
    ids: Any = select(jobs.c.id).where(jobs.c.id.not_in(going))
    if what == ARTIFACTS:
        again = jobs_again(before).subquery()
        ids = union(ids, select(again.c.id).where(again.c.id.not_in(going)))
    return {
        table.__tablename__: session.scalar(select(func.count()).select_from(found(ids).subquery()))
        or 0
        for table, found in WHAT[what].items()
    }


def delete_rows(session: Session, table: Any, found: Select[Any]) -> int:
    """Delete the rows with the keys that are found, or mark them if they are artifacts."""
    if table is Artifact:
        return _remove_artifacts(session, found)
    keys = session.execute(found).all()
    if table is Checkpoint:
        _collect_of_shards(session, [shard_id for shard_id, _ in keys])
    target: Table = table.__table__
    columns = tuple_(*target.primary_key)
    session.execute(delete(target).where(columns.in_([tuple(key) for key in keys])))
    return len(keys)


def _remove_artifacts(session: Session, found: Select[Any]) -> int:
    ids = session.scalars(found).all()
    shards = select(Artifact.shard_id).where(Artifact.id.in_(ids)).distinct()
    _collect_of_shards(session, session.scalars(shards).all())
    session.execute(
        update(Artifact)
        .where(Artifact.id.in_(ids))
        .values(removed_at=clock(session), index_data=None)
        .execution_options(synchronize_session=False)
    )
    return len(ids)


def _collect_of_shards(session: Session, shard_ids: Collection[str]) -> None:
    jobs = select(Shard.job_id).where(Shard.id.in_(shard_ids)).distinct()
    collect_again(session, session.scalars(jobs).all())


def collect_again(session: Session, job_ids: Collection[str]) -> None:
    """Let garbage collection visit these jobs once more."""
    session.execute(
        update(Job)
        .where(Job.id.in_(job_ids))
        .values(collected_at=None)
        .execution_options(synchronize_session=False)
    )
