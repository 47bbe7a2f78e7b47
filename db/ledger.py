"""The ledger: a Merkle log of what must not be changed afterwards. Append only.

A leaf is entered in the transaction of the act that it tells, and waits; `extend` gives those that
wait their places. Manifests of jobs are entered there too, so that finishing a job takes no longer.
Whoever extends locks the row of `Ledger`: any number of schedulers may do it.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Select, and_, or_, select
from sqlalchemy.orm import Session

from db.columns import id_after, new_id
from db.ended_jobs import ended_jobs, locked_place
from db.errors import BadRecord
from db.leaves import MANIFEST, leaf_text, row_data
from db.merkle import GrowingTree, Place, Span, leaf_hash, places, span_hash
from db.session import clock, insert_new
from db.tables import Job, Ledger, LedgerHead, LedgerLeaf, LedgerNode, Retention
from db.tuples import insert_tuples, update_tuples

LEAVES_AT_ONCE = 500
PLACE = "ledger"  # in `retention`: the jobs up to it have been looked at
# Jobs that ended within it wait: one that ended before may not be committed yet. What is passed
# over nevertheless is entered when the job's garbage is collected.
LAG = timedelta(seconds=10)


def append(session: Session, kind: str, subject: str, data: Mapping[str, Any]) -> None:
    """Enter a leaf about the row with the id `subject`; empty data tell that it was deleted."""
    _insert(session, kind, [(subject, leaf_text(kind, subject, data))])


def enter(session: Session, kind: str, *rows: Any) -> None:
    """Enter a leaf for each of some rows that were just made or changed.

    They are mappings, or objects that have been flushed.
    """
    ids = [row["id"] if isinstance(row, Mapping) else row.id for row in rows]
    each = zip(ids, rows, strict=True)
    _insert(session, kind, [(id_, leaf_text(kind, id_, row_data(kind, row))) for id_, row in each])


def enter_manifests(session: Session, job_ids: Collection[str]) -> None:
    """Enter the manifests of those of the jobs that have succeeded and have no leaf yet."""
    if session.execute(_without_leaf(job_ids)).first() is not None:
        _locked(session)
        _enter_manifests(session, job_ids)


def is_behind(session: Session, *, lag: timedelta = LAG) -> bool:
    """Whether `extend` would find anything. Reads a few entries of indexes."""
    place = session.get(Retention, PLACE, populate_existing=True)
    unseen = ended_jobs(place, clock(session) - lag).limit(1)
    waiting = session.scalar(_waiting().limit(1))
    return waiting is not None or session.scalar(unseen) is not None


def extend(session: Session, *, limit: int = LEAVES_AT_ONCE, lag: timedelta = LAG) -> int:
    """Give at most `limit` of the leaves that wait their places; return how many."""
    ledger = _locked(session)
    _look_at_jobs(session, limit, lag)
    waiting = session.execute(_waiting().limit(limit)).all()
    tree = GrowingTree(ledger.size, hashes(session, places(Span(0, ledger.size))))
    made: list[tuple[Place, bytes]] = []
    numbered = []
    for leaf_id, digest in waiting:
        numbered.append((tree.size, leaf_id))
        made += tree.append(bytes.fromhex(digest))
    update_tuples(session, LedgerLeaf, ("idx",), numbered)
    nodes = [(*place, digest.hex()) for place, digest in made]
    insert_tuples(session, LedgerNode, ("level", "number", "hash"), nodes)
    ledger.size = tree.size
    session.flush()
    return len(waiting)


def current(session: Session) -> Ledger | None:
    """The ledger with its size; None before its first leaf."""
    return session.scalar(select(Ledger).execution_options(populate_existing=True))


def leaf_of(session: Session, kind: str, subject: str) -> LedgerLeaf | None:
    """The first leaf about a row; None if there is none, or none with a place."""
    mine = (LedgerLeaf.kind == kind, LedgerLeaf.subject == subject, LedgerLeaf.idx.is_not(None))
    return session.scalar(select(LedgerLeaf).where(*mine).order_by(LedgerLeaf.idx).limit(1))


def root(session: Session, size: int) -> bytes:
    """The root of the tree when it had this many leaves."""
    return span_hash(Span(0, size), hashes(session, places(Span(0, size))))


def proof(session: Session, spans: Collection[Span]) -> list[bytes]:
    """The hashes of nodes, such as `merkle.inclusion_spans` names."""
    found = hashes(session, [place for span in spans for place in places(span)])
    return [span_hash(span, found) for span in spans]


def hashes(session: Session, wanted: Collection[Place]) -> dict[Place, bytes]:
    """The hashes of perfect subtrees. Raises `BadRecord` if one is not there."""
    leaves = [place.number for place in wanted if not place.level]
    of_leaves = select(LedgerLeaf.idx, LedgerLeaf.leaf_hash).where(LedgerLeaf.idx.in_(leaves))
    found = {Place(0, idx or 0): digest for idx, digest in session.execute(of_leaves)}
    above = sorted({place for place in wanted if place.level})
    if above:
        # not as pairs in a list, for which SQLite reads the whole table
        each = [and_(LedgerNode.level == level, LedgerNode.number == n) for level, n in above]
        of_nodes = select(LedgerNode.level, LedgerNode.number, LedgerNode.hash).where(or_(*each))
        found |= {Place(level, n): digest for level, n, digest in session.execute(of_nodes)}
    if missing := set(wanted) - found.keys():
        level, number = min(missing)
        raise BadRecord(
            f"the ledger lacks the hash of its node {number} on level {level}",
            remedy="it was damaged or edited: see `genmill provenance audit`, or restore a backup",
        )
    return {place: bytes.fromhex(digest) for place, digest in found.items()}


def newest_head(session: Session) -> LedgerHead | None:
    """The signed head of the largest size."""
    return session.scalar(select(LedgerHead).order_by(LedgerHead.size.desc()).limit(1))


def add_head(session: Session, head: LedgerHead) -> None:
    """Record a signed head, unless there is one of its size."""
    row = {column.name: getattr(head, column.name) for column in LedgerHead.__table__.columns}
    insert_new(session, LedgerHead, [row])


def require_head(session: Session, head: LedgerHead) -> None:
    """Raise `BadRecord` unless the ledger still begins with the leaves that a head is of."""
    log = current(session)
    size = 0 if log is None else log.size
    if size < head.size:
        told = f"the ledger has {size} leaves, and {head.size} of it were signed"
    elif root(session, head.size).hex() != head.root:
        told = f"the first {head.size} leaves of the ledger are not those that were signed"
    else:
        return
    raise BadRecord(
        f"{told}: it was cut or written anew",
        remedy="restore a backup; `genmill provenance audit` says what differs",
    )


def new_head(session: Session) -> tuple[str, LedgerHead] | None:
    """The ledger's id and the head of all its leaves, unsigned; None before its first leaf."""
    ledger = current(session)
    if ledger is None or not ledger.size:
        return None
    now: datetime = clock(session)
    return ledger.id, LedgerHead(size=ledger.size, root=root(session, ledger.size).hex(), at=now)


def _locked(session: Session) -> Ledger:
    insert_new(session, Ledger, [{"only": 1, "id": new_id(), "size": 0}])
    locked = select(Ledger).with_for_update().execution_options(populate_existing=True)
    return session.scalars(locked).one()


def _waiting() -> Select[str, str]:
    return (
        select(LedgerLeaf.id, LedgerLeaf.leaf_hash)
        .where(LedgerLeaf.idx.is_(None))
        .order_by(LedgerLeaf.id)
    )


def _look_at_jobs(session: Session, limit: int, lag: timedelta) -> None:
    """Enter the manifests of the next jobs that have ended."""
    place = locked_place(session, PLACE)
    jobs = session.execute(ended_jobs(place, clock(session) - lag).limit(limit)).all()
    if place is None or not jobs:
        return
    _enter_manifests(session, [job.id for job in jobs])
    place.finished_at, place.job_id = jobs[-1].finished_at, jobs[-1].id


def _enter_manifests(session: Session, job_ids: Collection[str]) -> None:
    enter(session, MANIFEST, *session.execute(_without_leaf(job_ids)).mappings())


def _insert(session: Session, kind: str, leaves: Sequence[tuple[str, str]]) -> None:
    """Insert leaves, each given by its subject and its text.

    Each gets its place after those about the same row, whatever clocks say: whoever writes them has
    locked or made that row, so the earlier ones can be seen.
    """
    columns = ("id", "subject", "text", "leaf_hash")
    for start in range(0, len(leaves), LEAVES_AT_ONCE):
        some = leaves[start : start + LEAVES_AT_ONCE]
        about = LedgerLeaf.subject.in_([subject for subject, _ in some])
        earlier = select(LedgerLeaf.id).where(about, LedgerLeaf.kind == kind)
        last, rows = max(session.scalars(earlier), default=""), []
        for subject, text in some:
            last = id_after(last)
            rows.append((last, subject, text, leaf_hash(text.encode()).hex()))
        insert_tuples(session, LedgerLeaf, columns, rows, kind=kind)


def _without_leaf(job_ids: Collection[str]) -> Select[str, str | None]:
    """Those of the jobs that have a manifest, and no leaf of it."""
    leaf = select(LedgerLeaf.id).where(LedgerLeaf.subject == Job.id, LedgerLeaf.kind == MANIFEST)
    ended = (Job.manifest_sha256.is_not(None), Job.finished_at.is_not(None), ~leaf.exists())
    return select(Job.id, Job.manifest_sha256).where(Job.id.in_(job_ids), *ended)
