"""Publications: which items are at which target, and which were refused or taken down.

An item is on record as `begun` before it is put at its target, and what became of it afterwards. So
the record knows everything that may be there, wherever a worker was killed. The attempt that began
an item is named by its job and fence; nothing is recorded for any other.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any, NamedTuple

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from db import ended_jobs, ledger
from db.claims import Claim, hold
from db.columns import fresh_ids, new_id
from db.leaves import PUBLICATION, row_data
from db.session import clock, insert_new
from db.tables import Job, Publication, Target

BEGUN, PUBLISHED, REFUSED = "begun", "published", "refused"
TAKEN_DOWN, ABANDONED = "taken down", "abandoned"
STATES = (BEGUN, PUBLISHED, REFUSED, TAKEN_DOWN, ABANDONED)
THERE = (BEGUN, PUBLISHED)  # what is, or may be, at the target
MISSING, ALTERED = "it was missing", "it was altered"  # why a published item was put again
REPAIRS = (MISSING, ALTERED)


class NewItem(NamedTuple):
    """An item that is about to be published: a sample, or a file of a model version."""

    item: str  # its key at the target
    sha256: str
    size: int
    media_type: str
    job_id: str | None = None
    sample: int | None = None
    version_id: str | None = None
    marks: str | None = None  # the profile of its marks


class Outcome(NamedTuple):
    """What became of an item that was begun: it is published as `remote_id`, or refused.

    `unrepaired` says why a published item, which is there still, was not repaired.
    """

    item: str
    remote_id: str | None = None
    marks_verified: bool | None = None
    refused: str | None = None
    unrepaired: str | None = None


class Begun(NamedTuple):
    """An item that is to be put at the target, or to be looked for there.

    `was` is its state before, if it is, or may be, at the target: `BEGUN` by an attempt that was
    broken off, or `PUBLISHED` by another job. The record of the latter stays as it was.
    `repairs` says that what was broken off is the repair of a published item.
    """

    item: str
    event: str  # the id of this publishing of it, however often it is tried
    was: str | None = None
    repairs: bool = False


class Chosen(NamedTuple):
    """Which publications are wanted; None: of any."""

    target_id: str | None = None
    job_id: str | None = None  # that made the samples, or that published them
    by_job_id: str | None = None  # that published them
    state: str | None = None


def begin(
    session: Session,
    claim: Claim,
    target: Target,
    items: Sequence[NewItem],
    *,
    expires_after_s: float | None = None,
) -> list[Begun]:
    """Record that these items are about to be put; return those that this job has not published.

    Those that an older job has published expire after that time from now on, if one is given.
    Raises `Cancelled` or `LeaseLost` if the claim is over.
    """
    hold(session, claim)
    fixed = {"target_id": target.id, "by_job_id": claim.job_id, "fence": claim.fence}
    rows = [
        {"id": row_id, "state": BEGUN, "event_id": row_id, **item._asdict(), **fixed}
        for row_id, item in zip(fresh_ids(), items, strict=False)
    ]
    insert_new(session, Publication, rows)
    mine = {row["id"] for row in rows}
    found = {each.item: each for each in _locked(session, target.id, [i.item for i in items])}
    begun, again = [], []
    for item in items:
        row = found[item.item]
        if row.state == PUBLISHED and row.sha256 == item.sha256:
            if expires_after_s is not None and row.by_job_id < claim.job_id:
                row.expires_at = clock(session) + timedelta(seconds=expires_after_s)
            if row.by_job_id != claim.job_id:
                begun.append(Begun(item.item, row.event_id, PUBLISHED))
            continue
        was = BEGUN if row.state in THERE and row.id not in mine else None
        told = row_data(PUBLICATION, row)
        _begin_again(row, item, claim)
        begun.append(Begun(item.item, row.event_id, was, row.reason in REPAIRS))
        # a target that is away is tried again for as long as it takes, with nothing new to tell
        if row_data(PUBLICATION, row) != told:
            again.append(row)
    session.flush()
    ledger.enter(session, PUBLICATION, *again)
    return begun


def begin_repair(
    session: Session, claim: Claim, target: Target, reasons: Mapping[str, str]
) -> set[str]:
    """Record that items are about to be put again, and why, by their keys.

    Returns those that are published still. They expire when they would have. Raises `Cancelled` or
    `LeaseLost` if the claim is over.
    """
    hold(session, claim)
    found = [row for row in _locked(session, target.id, reasons) if row.state == PUBLISHED]
    for row in found:
        row.state, row.reason = BEGUN, reasons[row.item]
        row.by_job_id, row.fence = claim.job_id, claim.fence
        row.remote_id = row.marks_verified = row.published_at = None
    session.flush()
    ledger.enter(session, PUBLICATION, *found)
    return {row.item for row in found}


def record(
    session: Session,
    claim: Claim,
    target: Target,
    outcomes: Sequence[Outcome],
    *,
    expires_after_s: float | None = None,
) -> list[Outcome]:
    """Record what became of items that the claim's attempt began; return those that it recorded.

    They expire after that time, or else as the target says; what is put again only for being
    damaged, when it would have.

    It needs no lease: whoever has begun an item after this attempt has taken it over.
    """
    now = clock(session)
    stays_s = target.expires_after_s if expires_after_s is None else expires_after_s
    expires = None if stays_s is None else now + timedelta(seconds=stays_s)
    found = {each.item: each for each in _locked(session, target.id, [o.item for o in outcomes])}
    done, changed = [], []
    for outcome in outcomes:
        row = found.get(outcome.item)
        if row is None or row.state != BEGUN or not _is_of(row, claim):
            continue
        if outcome.refused is not None:
            row.state, row.reason, row.expires_at = REFUSED, outcome.refused, None
        else:
            row.state, row.remote_id = PUBLISHED, outcome.remote_id
            row.marks_verified, row.published_at = outcome.marks_verified, now
            if row.reason not in REPAIRS or expires_after_s is not None:
                row.expires_at = expires
            if outcome.unrepaired is not None:
                row.reason = outcome.unrepaired
        done.append(outcome)
        changed.append(row)
    session.flush()
    ledger.enter(session, PUBLICATION, *changed)
    return done


def of_part(
    session: Session,
    target_id: str,
    *,
    job_id: str | None,
    version_id: str | None,
    part: range,
    expired: bool = False,
) -> list[Publication]:
    """What is on record at a target of a job's samples in a range, or of a version's files.

    With `expired`, only what has been there for as long as it may be.
    """
    own: Any = Publication.version_id == version_id
    if job_id is not None:
        numbers = Publication.sample.between(part.start, part.stop - 1)
        own = (Publication.job_id == job_id) & numbers
    statement = select(Publication).where(Publication.target_id == target_id, own)
    if expired:
        statement = statement.where(Publication.expires_at <= clock(session))
    return list(session.scalars(statement.order_by(Publication.item)))


def reopen(
    session: Session, claim: Claim, target: Target, items: Collection[str]
) -> list[Publication]:
    """Record that the claim's attempt put items after they had been taken down; return those."""
    gone = {TAKEN_DOWN, ABANDONED}
    found = [each for each in _locked(session, target.id, items) if each.state in gone]
    for row in found:
        row.state, row.reason = BEGUN, None  # this is no repair
        row.by_job_id, row.fence = claim.job_id, claim.fence
    session.flush()
    ledger.enter(session, PUBLICATION, *found)
    return found


def take_down(session: Session, claim: Claim, rows: Collection[Publication]) -> int:
    """Record that publications were taken down; return how many still were as these rows say.

    Another job may have put the others again: they may be there.
    """
    now, known = clock(session), {_attempt(row) for row in rows}
    ids = [row.id for row in rows]
    statement = select(Publication).where(Publication.id.in_(ids), _IS_THERE)
    locked = session.scalars(statement.order_by(Publication.item).with_for_update()).all()
    found = [row for row in locked if _attempt(row) in known]
    for row in found:
        row.state, row.taken_down_at, row.expires_at = TAKEN_DOWN, now, None
        row.by_job_id, row.fence = claim.job_id, claim.fence
    _let_go(session, found)
    return len(found)


def abandon(session: Session, target_id: str) -> int:
    """Stop tracking what is at a target; return how many items that is."""
    statement = select(Publication).where(Publication.target_id == target_id, _IS_THERE)
    found = session.scalars(statement.order_by(Publication.item).with_for_update()).all()
    for row in found:
        row.state, row.expires_at = ABANDONED, None
    _let_go(session, found)
    return len(found)


def select_chosen(chosen: Chosen, *, limit: int | None = None) -> Select[Publication, str]:
    """The statement of publications and their targets' names, as they were begun."""
    statement = select(Publication, Target.name).join(Target, Target.id == Publication.target_id)
    return statement.where(*_conditions(chosen)).order_by(Publication.id).limit(limit)


def publish_jobs(session: Session, job_ids: Collection[str]) -> list[str]:
    """Those of these jobs that publish."""
    return list(session.scalars(select(Job.id).where(Job.id.in_(job_ids), Job.kind == "publish")))


def _conditions(chosen: Chosen) -> list[Any]:
    wanted: list[Any] = []
    if chosen.target_id is not None:
        wanted.append(Publication.target_id == chosen.target_id)
    if chosen.state is not None:
        wanted.append(Publication.state == chosen.state)
    if chosen.by_job_id is not None:
        wanted.append(Publication.by_job_id == chosen.by_job_id)
    if chosen.job_id is not None:
        made = Publication.job_id == chosen.job_id
        wanted.append(made | (Publication.by_job_id == chosen.job_id))
    return wanted


def _begin_again(row: Publication, item: NewItem, claim: Claim) -> None:
    if row.state not in THERE or row.sha256 != item.sha256:  # other bytes are not a repetition
        row.event_id = new_id()
    if row.state != BEGUN or row.sha256 != item.sha256:  # nor is a repair that was broken off
        row.reason = row.expires_at = None
    row.state, row.remote_id = BEGUN, None
    row.sha256, row.size, row.marks = item.sha256, item.size, item.marks
    row.by_job_id, row.fence = claim.job_id, claim.fence
    row.marks_verified = row.published_at = row.taken_down_at = None


def _let_go(session: Session, rows: Sequence[Publication]) -> None:
    """Tell the ledger of what is at a target no more; retention comes to its jobs again."""
    session.flush()
    ledger.enter(session, PUBLICATION, *rows)
    if made := {row.job_id for row in rows if row.job_id is not None}:
        ended_jobs.look_again(session, made)


def _attempt(row: Publication) -> tuple[str, str, str, int]:
    return row.id, row.state, row.by_job_id, row.fence


def _is_of(row: Publication, claim: Claim) -> bool:
    return (row.by_job_id, row.fence) == (claim.job_id, claim.fence)


def _locked(session: Session, target_id: str, items: Iterable[str]) -> list[Publication]:
    """The rows of items, locked in one order."""
    own = (Publication.target_id == target_id, Publication.item.in_(list(items)))
    statement = select(Publication).where(*own).order_by(Publication.item).with_for_update()
    return list(session.scalars(statement.execution_options(populate_existing=True)))


_IS_THERE = Publication.state.in_(THERE)
