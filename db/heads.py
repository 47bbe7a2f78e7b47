"""The first queued shards of each group, read from the partial indexes of what may be claimed.

Each step from group to group is one probe of an index, whatever the groups hold. PostgreSQL cannot
remove the entries of claimed shards while an old transaction is open, and a probe that begins among
them must step over each: once that has taken long, a process begins where it has last found one.
"""

import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from sqlalchemy import bindparam, text
from sqlalchemy.orm import Session

from db.columns import Id
from db.tables import IN_ORDER

SLOW_S = 0.01  # a probe of a healthy index takes a tenth of a millisecond
REMEMBERED_S = 60.0  # shards that are added before the remembered one wait this long at most

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
    lost: int = 0  # how many of its claims were lost with their workers


@dataclass
class Group:
    """One group's queued shards of one priority: its first ones, and how many it has `taken`."""

    urgency: int
    group_id: str
    taken: int
    heads: dict[str, Due] = field(default_factory=dict)  # by the index that it was found in


@dataclass(frozen=True)
class Start:
    """Where the fresh shards of one priority begin, until this process looks again."""

    urgency: int
    group_id: str
    job_id: str
    idx: int
    until: float

    @property
    def values(self) -> dict[str, object]:
        """The parameters of statements that begin there."""
        return {f"start_{name}": getattr(self, name) for name in IN_ORDER}


_starts: WeakKeyDictionary[Any, Start] = WeakKeyDictionary()  # by engine


def find_groups(session: Session, room: int, *, undispatched: bool) -> list[Group]:
    """The first groups in order of priority and age: `room` that are not busy, and all before.

    With `undispatched`, groups are also busy with what was rung for.
    """
    start = _start(session)
    only = _only_group(session, start)
    if only is not None:
        return only
    groups: dict[tuple[int, str], Group] = {}
    for index, condition in QUEUED.items():
        busy = _RUNG if undispatched else _RUNNING
        first = _first_of(index, start)
        walk = _WALK.format(condition=condition, busy=busy, first=first)
        values = {"room": room} | (start.values if start and index == "fresh" else {})
        for *columns, taken in session.execute(_typed(walk, *values), values):
            head = Due(*columns)
            key = (head.urgency, head.group_id)
            groups.setdefault(key, Group(*key, taken)).heads[index] = head
    return [groups[key] for key in sorted(groups)]


def fetch(
    session: Session,
    asked: Iterable[tuple[str, Group]],
    counts: Mapping[str, int],
    *,
    undispatched: bool,
) -> list[Due]:
    """The first shards in each of these indexes of each group, `counts` of them by its id."""
    start = _start(session)
    parts: list[str] = []
    values: dict[str, object] = {}
    for n, (index, group) in enumerate(asked):
        condition = QUEUED[index] + (" AND dispatched_at IS NULL" if undispatched else "")
        key = (group.urgency, group.group_id)
        if start and index == "fresh" and key == (start.urgency, start.group_id):
            condition += " AND (job_id, idx) >= (:start_job_id, :start_idx)"
            values |= {"start_job_id": start.job_id, "start_idx": start.idx}
        parts.append(_PART.format(condition=condition, n=n))
        values |= {f"u{n}": key[0], f"g{n}": key[1], f"k{n}": counts[group.group_id]}
    return [
        Due(*row) for row in session.execute(_typed(" UNION ALL ".join(parts), *values), values)
    ]


def _only_group(session: Session, start: Start | None) -> list[Group] | None:
    """The queue's groups if they are one or none: what runs is not counted then. Else None."""
    ends = [
        f"({end}) AS id{2 * n + last}"
        for n, (index, condition) in enumerate(QUEUED.items())
        for last, end in enumerate((_first_of(index, start), _LAST.format(condition=condition)))
    ]
    began = time.monotonic()
    values = start.values if start else {}
    probe = _ENDS.format(ends=", ".join(ends))
    rows = session.execute(_typed(probe, *values), values).all()
    elapsed_s = time.monotonic() - began
    found = {row.id: Due(*row[: len(Due._fields)]) for row in rows if not row.hidden}
    firsts = {index: rows[0][n] for n, index in enumerate(QUEUED, -len(QUEUED))} if rows else {}
    heads = {index: found[each] for index, each in firsts.items() if each in found}
    _remember(session, heads.get("fresh"), start, elapsed_s)
    keys = {(due.urgency, due.group_id) for due in found.values()}
    if len(found) < len(rows) or len(keys) > 1:
        return None
    return [Group(*key, 1, heads) for key in keys]  # its first ones may have been rung for


@lru_cache
def _typed(statement: str, *names: str) -> Any:
    """A statement that converts ids in both directions, given its parameters' names."""
    ids = [bindparam(name, type_=Id) for name in names if _IS_ID.fullmatch(name)]
    return text(statement).bindparams(*ids).columns(**_ID_COLUMNS)


def _start(session: Session) -> Start | None:
    start = _starts.get(session.get_bind().engine)
    return start if start and time.monotonic() < start.until else None


def _remember(session: Session, first: Due | None, start: Start | None, elapsed_s: float) -> None:
    """Note where fresh shards begin if it took long to find; an earlier note moves on with it."""
    engine = session.get_bind().engine
    slow = engine.dialect.name == "postgresql" and elapsed_s > SLOW_S
    if first is None or not (start or slow):
        _starts.pop(engine, None)
    else:
        until = start.until if start else time.monotonic() + REMEMBERED_S
        _starts[engine] = Start(*first[:4], until=until)


def _first_of(index: str, start: Start | None) -> str:
    """The statement for the id of the first shard in an index."""
    condition = QUEUED[index]
    if start is None or index != "fresh":
        return _FIRST.format(condition=condition)
    more_urgent = _FIRST.format(condition=f"{condition} AND urgency < :start_urgency")
    onwards = _FIRST.format(condition=f"{condition} AND ({_ORDER}) >= ({_START})")
    return f"SELECT coalesce(({more_urgent}), ({onwards}))"


_IS_ID = re.compile(r"g\d+|start_(group|job)_id")  # of a statement's parameters
_ID_COLUMNS = dict.fromkeys(("id", "group_id", "job_id", "id0", "id2"), Id())
_RUNNING = "SELECT group_id FROM shards WHERE status = 'running'"
_RUNG = f"{_RUNNING} UNION ALL SELECT group_id FROM shards WHERE {DISPATCHED}"  # noqa: S608
_ORDER = ", ".join(IN_ORDER)
_START = ", ".join(f":start_{name}" for name in IN_ORDER)
_FIRST = f"SELECT id FROM shards WHERE {{condition}} ORDER BY {_ORDER} LIMIT 1"  # noqa: S608
_BACKWARDS = ", ".join(f"{name} DESC" for name in IN_ORDER)
_LAST = f"SELECT id FROM shards WHERE {{condition}} ORDER BY {_BACKWARDS} LIMIT 1"  # noqa: S608
_COLUMNS = (
    "urgency, group_id, job_id, idx, id, work_key, stop - start, claims - failures - releases"
)

# from group to group: each step looks up the first shard behind all of the last group
_WALK = """
WITH RECURSIVE
busy AS (SELECT group_id, count(*) AS size FROM ({busy}) AS each_one GROUP BY group_id),
hidden AS (SELECT id FROM batches WHERE complete_at IS NULL),
passed AS (SELECT group_id FROM busy UNION ALL SELECT id FROM hidden),
walk (id, urgency, group_id, free) AS (
    SELECT id, urgency, group_id,
        CASE WHEN group_id IN (SELECT group_id FROM passed) THEN 0 ELSE 1 END
    FROM shards WHERE id = ({first})
    UNION ALL
    SELECT head.id, head.urgency, head.group_id,
        walk.free + CASE WHEN head.group_id IN (SELECT group_id FROM passed) THEN 0 ELSE 1 END
    FROM walk CROSS JOIN shards AS head
    WHERE walk.free < :room AND head.id = coalesce(
        (SELECT id FROM shards
            WHERE {condition} AND urgency = walk.urgency AND group_id > walk.group_id
            ORDER BY group_id, job_id, idx LIMIT 1),
        (SELECT id FROM shards WHERE {condition} AND urgency > walk.urgency
            ORDER BY urgency, group_id, job_id, idx LIMIT 1)
    )
)
SELECT head.urgency, head.group_id, head.job_id, head.idx, head.id, head.work_key,
    head.stop - head.start, head.claims - head.failures - head.releases, coalesce(busy.size, 0)
FROM walk JOIN shards AS head ON head.id = walk.id
LEFT JOIN busy ON busy.group_id = head.group_id
WHERE head.group_id NOT IN (SELECT id FROM hidden)
"""

_ENDS = (
    "WITH ends AS MATERIALIZED (SELECT {ends}) "  # noqa: S608 - constants
    f"SELECT {_COLUMNS}, group_id IN (SELECT id FROM batches WHERE complete_at IS NULL) AS hidden,"
    " id0, id2 FROM ends JOIN shards ON shards.id IN (id0, id1, id2, id3)"
)
_PART = (
    f"SELECT * FROM (SELECT {_COLUMNS} FROM shards WHERE {{condition}}"  # noqa: S608 - constants
    " AND urgency = :u{n} AND group_id = :g{n} ORDER BY job_id, idx LIMIT :k{n}) AS part{n}"
)
