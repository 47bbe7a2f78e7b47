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
from datetime import timedelta
from itertools import groupby
from typing import Any

from sqlalchemy import bindparam, func, select, text, update
from sqlalchemy.orm import Session

from db.heads import DISPATCHED, Due, Group, fetch, find_groups
from db.session import Now, clock
from db.states import ShardState
from db.tables import SHARDS, Shard
from db.workers import count_live

MIN_OUTSTANDING = 4  # while no worker is known yet
WOKEN_AT_ONCE = 500  # shards whose pause has passed
PASSES = 6  # over the groups of one priority, while some have too few shards
FETCHED_AT_ONCE = 100  # groups


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
    session.execute(_FORGET_OVERDUE, {"before": now - timedelta(seconds=deadline_s)})
    outstanding = session.scalar(select(func.count()).select_from(Shard).where(*_DISPATCHED)) or 0
    allowed = max(MIN_OUTSTANDING, per_worker * count_live(session))
    room = allowed - max(outstanding, waiting)
    if room <= 0:
        return []
    wanted = [shard.id for shard in choose(session, room, undispatched=True)]
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


def choose(
    session: Session,
    room: int,
    *,
    undispatched: bool = False,
    served: Mapping[str, int] | None = None,
) -> list[Due]:
    """The `room` shards that come next, in fair order; nothing is locked.

    With `undispatched`, only those that nobody has rung for, and what was rung for counts as taken.
    """
    session.execute(_WAKE)
    groups = find_groups(session, room, undispatched=undispatched)
    chosen: list[Due] = []
    for _, peers in groupby(groups, key=lambda group: group.urgency):
        if len(chosen) < room:
            more = _fill(session, list(peers), room - len(chosen), undispatched=undispatched)
            chosen += in_turn(more, served or {})
    return chosen


def in_turn(ranked: Iterable[tuple[int, Due]], served: Mapping[str, int]) -> list[Due]:
    """Shards by their ranks; among equal ranks by when their groups were `served`, then by age."""
    return [
        due
        for _, due in sorted(ranked, key=lambda it: (it[0], served.get(it[1].group_id, 0), it[1]))
    ]


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


def _fill(
    session: Session, groups: list[Group], room: int, *, undispatched: bool
) -> list[tuple[int, Due]]:
    """The first `room` shards of groups of one priority, each with its rank in its group."""
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
    return [
        (by_id[name].taken + turn, due)
        for name, shards in found.items()
        for turn, due in enumerate(shards)
    ]


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
        for due in fetch(session, some, turns, undispatched=undispatched):
            found[due.group_id].append(due)
    return {name: sorted(shards)[: turns[name]] for name, shards in found.items()}


def _some(condition: str, *more: Any) -> Any:
    """The ids of queued shards that meet a condition of a partial index, which is a literal."""
    queued = select(_shard.id).where(text(f"status = 'queued' AND {condition}"), *more)
    unlocked = queued.limit(WOKEN_AT_ONCE).with_for_update(skip_locked=True, key_share=True)
    return update(SHARDS).where(_shard.id.in_(unlocked))


_shard = SHARDS.c
# shards whose pause has passed become due, and those again whose doorbell nobody has answered
_WAKE = _some("waiting", _shard.not_before <= Now()).values(waiting=False)
_FORGET_OVERDUE = _some(
    "dispatched_at IS NOT NULL", _shard.dispatched_at <= bindparam("before")
).values(dispatched_at=None)

# a literal, so that the partial index is used
_DISPATCHED = (text(DISPATCHED),)
