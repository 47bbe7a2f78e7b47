"""Which queued shards come next: by priority, fairly, at a cost that does not grow with the queue.

A group is a batch, or a job on its own. Within one priority every group's first shard goes before
any group's second; what is running counts as a group's first ones. Only the heads of groups are
looked at, found by jumping from group to group in an index of queued shards (`db.tables.Shard`):
as many groups as shards are wanted, and those groups that are busy. A batch that is not complete is
walked over: its jobs must not run yet (`db.batches`).
"""

import heapq
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import groupby
from typing import NamedTuple

from sqlalchemy import bindparam, func, select, text, update
from sqlalchemy.orm import Session

from db.columns import UtcDateTime
from db.session import clock
from db.states import ShardState
from db.tables import Shard
from db.workers import count_live

MIN_OUTSTANDING = 4  # while no worker is known yet
WOKEN_AT_ONCE = 500  # shards whose pause has passed
PASSES = 6  # over the groups of one priority, while some have too few shards
FETCHED_AT_ONCE = 100  # groups

# the partial indexes of what may be claimed; their conditions are literals, so that they are used
QUEUED = {
    "fresh": "status = 'queued' AND fence = 0",
    "requeued": "status = 'queued' AND fence > 0 AND NOT waiting",
}
DISPATCHED = "status = 'queued' AND dispatched_at IS NOT NULL"


class Due(NamedTuple):
    """A shard that may be claimed. `job_id` and `idx` are its place within its group."""

    urgency: int
    group_id: str
    job_id: str
    idx: int
    id: str
    work_key: int | None
    samples: int


@dataclass
class Group:
    """One group's queued shards of one priority: its first ones, and how many it has `taken`."""

    urgency: int
    group_id: str
    taken: int
    heads: dict[str, Due] = field(default_factory=dict)  # by the index that it was found in


def take_due(
    session: Session, *, per_worker: int, deadline_s: float, waiting: int = 0
) -> list[str]:
    """Mark due shards as dispatched and return their ids, to ring for after the commit.

    A shard is due when it is queued, its `not_before` has passed, and it was never dispatched or
    not claimed within `deadline_s`. At most `per_worker` shards are outstanding for each live
    worker: dispatched, but neither claimed nor overdue; nor more than that with the doorbells that
    are `waiting` in the broker, perhaps for shards that have been claimed by others. Two
    dispatchers never take the same shard.
    """
    now = clock(session)
    _forget_overdue(session, now - timedelta(seconds=deadline_s))
    outstanding = session.scalar(select(func.count()).where(*_DISPATCHED)) or 0
    allowed = max(MIN_OUTSTANDING, per_worker * count_live(session))
    room = allowed - max(outstanding, waiting)
    if room <= 0:
        return []
    wanted = [shard.id for shard in choose(session, room, now=now, undispatched=True)]
    # skip what another dispatcher has locked, and look again: what it took is no longer due
    still_due = select(Shard.id).where(
        Shard.id.in_(wanted), Shard.status == ShardState.QUEUED, Shard.dispatched_at.is_(None)
    )
    taken = set(session.scalars(still_due.with_for_update(skip_locked=True, key_share=True)))
    session.execute(
        update(Shard)
        .where(Shard.id.in_(taken))
        .values(dispatched_at=now, dispatch_no=Shard.dispatch_no + 1)
        .execution_options(synchronize_session=False)
    )
    return [shard_id for shard_id in wanted if shard_id in taken]


def reset_dispatched(session: Session) -> None:
    """Make dispatched shards due again, after the broker lost its messages."""
    session.execute(
        update(Shard)
        .where(*_DISPATCHED)
        .values(dispatched_at=None)
        .execution_options(synchronize_session=False)
    )


def choose(session: Session, room: int, *, now: datetime, undispatched: bool = False) -> list[Due]:
    """The `room` shards that come next, in fair order; nothing is locked.

    With `undispatched`, only those that nobody has rung for, and what was rung for counts as taken.
    """
    _wake(session, now)
    groups = _find_groups(session, room, undispatched=undispatched)
    chosen: list[Due] = []
    for _, peers in groupby(groups, key=lambda group: group.urgency):
        if len(chosen) < room:
            chosen += _fill(session, list(peers), room - len(chosen), undispatched=undispatched)
    return chosen


def share(taken: Mapping[str, int], room: int) -> Counter[str]:
    """How many of `room` turns each group gets, if none runs out: the least taken go first.

    Groups that have taken equally many go by their ids, that is by age.
    """
    turns: Counter[str] = Counter()
    queue = [(count, group) for group, count in taken.items()]
    heapq.heapify(queue)
    for _ in range(room if queue else 0):
        count, group = queue[0]
        turns[group] += 1
        heapq.heapreplace(queue, (count + 1, group))
    return turns


def _find_groups(session: Session, room: int, *, undispatched: bool) -> list[Group]:
    """The first groups in order of priority and age: `room` that are not busy, and all before."""
    groups: dict[tuple[int, str], Group] = {}
    for index, condition in QUEUED.items():
        busy = _RUNG if undispatched else _RUNNING
        walk = text(_WALK.format(condition=condition, busy=busy))
        for *columns, taken in session.execute(walk, {"room": room}):
            head = Due(*columns)
            key = (head.urgency, head.group_id)
            groups.setdefault(key, Group(*key, taken)).heads[index] = head
    return [groups[key] for key in sorted(groups)]


def _fill(session: Session, groups: list[Group], room: int, *, undispatched: bool) -> list[Due]:
    """The first `room` shards of groups of one priority, in fair order."""
    by_id = {group.group_id: group for group in groups}
    taken = {group.group_id: group.taken for group in groups}
    found: dict[str, list[Due]] = {}
    turns = share(taken, room)
    for _ in range(PASSES):
        found |= _first(session, by_id, turns, undispatched=undispatched)
        short = {name for name, wanted in turns.items() if len(found[name]) < wanted}
        if not short:
            break
        left = room - sum(len(found[name]) for name in short)
        # those that have enough share what the others leave
        rest = {name: count for name, count in taken.items() if name not in short}
        taken, room, turns = rest, left, share(rest, left)
    ranked = [
        (by_id[name].taken + turn, name, due)
        for name, shards in found.items()
        for turn, due in enumerate(shards)
    ]
    return [due for _, _, due in sorted(ranked)]


def _first(
    session: Session, groups: Mapping[str, Group], turns: Counter[str], *, undispatched: bool
) -> dict[str, list[Due]]:
    """The first shards of each group, as many as it has turns; fewer if it has no more."""
    found: dict[str, list[Due]] = {}
    asked: list[tuple[str, Group]] = []
    for name, wanted in turns.items():
        group = groups[name]
        heads = sorted(group.heads.values())
        # of a busy group, the first one may have been rung for
        known = wanted == 1 and not (undispatched and group.taken)
        found[name] = heads[:1] if known else []
        if not known:
            asked += [(index, group) for index in group.heads]
    for at in range(0, len(asked), FETCHED_AT_ONCE):
        some = asked[at : at + FETCHED_AT_ONCE]
        for due in _fetch(session, some, turns, undispatched=undispatched):
            found[due.group_id].append(due)
    return {name: sorted(shards)[: turns[name]] for name, shards in found.items()}


def _fetch(
    session: Session,
    asked: Iterable[tuple[str, Group]],
    turns: Mapping[str, int],
    *,
    undispatched: bool,
) -> list[Due]:
    parts: list[str] = []
    values: dict[str, object] = {}
    for n, (index, group) in enumerate(asked):
        condition = QUEUED[index] + (" AND dispatched_at IS NULL" if undispatched else "")
        parts.append(_PART.format(condition=condition, n=n))
        values |= {f"u{n}": group.urgency, f"g{n}": group.group_id, f"k{n}": turns[group.group_id]}
    return [Due(*row) for row in session.execute(text(" UNION ALL ".join(parts)), values)]


def _wake(session: Session, now: datetime) -> None:
    """Make shards due whose pause has passed."""
    _update_some(session, "waiting = false", "waiting AND not_before <= :at", now)


def _forget_overdue(session: Session, before: datetime) -> None:
    """Make shards due again whose doorbell nobody has answered."""
    overdue = "dispatched_at IS NOT NULL AND dispatched_at <= :at"
    _update_some(session, "dispatched_at = NULL", overdue, before)


def _update_some(session: Session, change: str, condition: str, at: datetime) -> None:
    lock = "FOR NO KEY UPDATE SKIP LOCKED" if session.get_bind().dialect.name != "sqlite" else ""
    statement = text(
        f"UPDATE shards SET {change} WHERE id IN (SELECT id FROM shards"  # noqa: S608 - constants
        f" WHERE status = 'queued' AND {condition} LIMIT {WOKEN_AT_ONCE} {lock})"
    )
    session.execute(statement.bindparams(bindparam("at", at, UtcDateTime)))


_DISPATCHED = (Shard.status == ShardState.QUEUED, Shard.dispatched_at.is_not(None))
_RUNNING = "SELECT group_id FROM shards WHERE status = 'running'"
_RUNG = f"{_RUNNING} UNION ALL SELECT group_id FROM shards WHERE {DISPATCHED}"  # noqa: S608
_COLUMNS = "urgency, group_id, job_id, idx, id, work_key, stop - start"

# from group to group: each step looks up the first shard behind all of the last group
_WALK = """
WITH RECURSIVE
busy AS (SELECT group_id, count(*) AS size FROM ({busy}) AS each_one GROUP BY group_id),
hidden AS (SELECT id FROM batches WHERE complete_at IS NULL),
passed AS (SELECT group_id FROM busy UNION ALL SELECT id FROM hidden),
walk (id, urgency, group_id, free) AS (
    SELECT * FROM (
        SELECT id, urgency, group_id,
            CASE WHEN group_id IN (SELECT group_id FROM passed) THEN 0 ELSE 1 END
        FROM shards WHERE {condition} ORDER BY urgency, group_id, job_id, idx LIMIT 1
    ) AS first
    UNION ALL
    SELECT head.id, head.urgency, head.group_id,
        walk.free + CASE WHEN head.group_id IN (SELECT group_id FROM passed) THEN 0 ELSE 1 END
    FROM walk CROSS JOIN shards AS head
    WHERE walk.free < :room AND head.id = (
        SELECT id FROM shards
        WHERE {condition} AND (urgency, group_id) > (walk.urgency, walk.group_id)
        ORDER BY urgency, group_id, job_id, idx LIMIT 1
    )
)
SELECT head.urgency, head.group_id, head.job_id, head.idx, head.id, head.work_key,
    head.stop - head.start, coalesce(busy.size, 0)
FROM walk JOIN shards AS head ON head.id = walk.id
LEFT JOIN busy ON busy.group_id = head.group_id
WHERE head.group_id NOT IN (SELECT id FROM hidden)
"""

_PART = (
    f"SELECT * FROM (SELECT {_COLUMNS} FROM shards WHERE {{condition}}"  # noqa: S608 - constants
    " AND urgency = :u{n} AND group_id = :g{n} ORDER BY job_id, idx LIMIT :k{n}) AS part{n}"
)
