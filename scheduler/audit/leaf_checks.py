"""What the ledger tells is on record, unchanged, and what belongs in the ledger is there."""

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import groupby
from typing import Any

from sqlalchemy import Connection, Select, and_, exists, func, or_, select

from db.errors import BadRecord
from db.leaves import (
    AUDIT,
    DATASET,
    DATASET_VERSION,
    EVALUATION,
    KEY,
    MANIFEST,
    MODEL,
    MODEL_VERSION,
    PROMOTION,
    REMOVAL,
    SOURCES,
    WITHDRAWAL,
    leaf_text,
    row_data,
)
from scheduler.audit.history import Row
from scheduler.audit.readable import readable
from scheduler.audit.record import TABLES
from scheduler.audit.violations import Violation, Violations

LEAVES = TABLES["ledger_leaves"]
AT_ONCE = 500
SHOWN = 80  # characters of a value
LASTING = (  # kinds whose leaves take nothing back
    *(MANIFEST, PROMOTION, WITHDRAWAL, AUDIT, KEY),
    *(MODEL, MODEL_VERSION, DATASET, DATASET_VERSION, EVALUATION),
)
MAY_CHANGE = {(MODEL, "marks"), (DATASET_VERSION, "removed_at")}


def rows_are_as_told(connection: Connection) -> Violations:
    """Every row that differs from the last leaf about it, and every one that has no leaf.

    So that a changed row is not covered up by one more leaf, no leaf may take back an earlier one.
    """
    for kind, source in SOURCES.items():
        for page in _pages(connection, _last_leaves(kind), LEAVES.c.id):
            yield from _compare(connection, kind, page)
        table = TABLES[source.table]
        for page in _pages(connection, _rows_with_leaf(kind), table.c.id):
            yield from _without_leaf(connection, kind, page)
    for kind in LASTING:
        yield from _taken_back(connection, kind)


def _last_leaves(kind: str) -> Select[Any]:
    """The last leaf of a kind about each row."""
    other = LEAVES.alias()
    later = or_(
        other.c.idx > LEAVES.c.idx,
        and_(other.c.idx.is_(None), or_(LEAVES.c.idx.is_not(None), other.c.id > LEAVES.c.id)),
    )
    same = and_(other.c.subject == LEAVES.c.subject, other.c.kind == LEAVES.c.kind)
    return select(LEAVES).where(LEAVES.c.kind == kind, ~exists().where(same, later))


def _rows_with_leaf(kind: str) -> Select[Any]:
    """The rows that must be in the ledger, by their ids.

    A job is when its garbage has been collected, unless it ended before the ledger looked there.
    """
    source = SOURCES[kind]
    table = TABLES[source.table]
    rows = select(table.c.id)
    if source.but is not None:
        column, value = source.but
        rows = rows.where(table.c[column] != value)
    if kind == MANIFEST:
        seen = TABLES["retention"]
        place = select(seen.c.finished_at).where(seen.c.what == "ledger").scalar_subquery()
        rows = rows.where(
            table.c.manifest_sha256.is_not(None),
            table.c.collected_at.is_not(None),
            table.c.finished_at < place,
        )
    return rows


def _compare(connection: Connection, kind: str, leaves: Sequence[Row]) -> Violations:
    source = SOURCES[kind]
    table = TABLES[source.table]
    names = {"id", *source.fields, *source.later}
    subjects = [leaf["subject"] for leaf in leaves]
    columns = [table.c[name] for name in sorted(names)]

    def read(ids: Sequence[str]) -> dict[str, Row]:
        wanted = select(*columns).where(table.c.id.in_(ids))
        return {row["id"]: row for row in connection.execute(wanted).mappings()}

    rows = dict[str, Row | BadRecord]()
    for some, found in readable(read, subjects):
        rows |= dict.fromkeys(some, found) if isinstance(found, BadRecord) else found
    with_what = {leaf["subject"]: _goes_with(kind, leaf) for leaf in leaves}
    removed = _removed(connection, [each for each in with_what.values() if each])
    for leaf in leaves:
        row = rows.get(leaf["subject"])
        if row is None and with_what[leaf["subject"]] in removed:
            continue
        if isinstance(row, BadRecord):
            text = f"{kind} {leaf['subject']} was changed since it was recorded: {row.message}"
            yield Violation(text, source.table, leaf["subject"])
            continue
        data = {} if row is None else row_data(kind, row)
        if source.later and not _told(leaf).keys() & set(source.later):
            data = {name: data[name] for name in source.fields if data}
        if leaf["text"] != leaf_text(kind, leaf["subject"], data):
            yield _differs(kind, leaf, data)


def _differs(kind: str, leaf: Row, data: dict[str, Any]) -> Violation:
    """Which fields of a row are not as the ledger tells."""
    table, subject = SOURCES[kind].table, leaf["subject"]
    told = _told(leaf)
    if not data:
        text = f"{kind} {subject} is in the ledger, and its row is gone"
    elif not told:
        text = f"{kind} {subject} is on record, and the ledger tells that it was deleted"
    else:
        now = json.loads(leaf_text(kind, subject, data))["data"]
        fields = [name for name in now if now[name] != told.get(name)]
        was = "; ".join(f"{name} was {_short(told.get(name))}" for name in fields)
        text = f"{kind} {subject} was changed since it was recorded: {was or 'its leaf differs'}"
    return Violation(text, table, subject)


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def _goes_with(kind: str, leaf: Row) -> str | None:
    """The id of what takes the row with it when it is removed."""
    if kind == MANIFEST:
        return str(leaf["subject"])
    found: str | None = _told(leaf).get("version_id") if kind == EVALUATION else None
    return found


def _removed(connection: Connection, subjects: Sequence[str]) -> set[str]:
    """Those of the jobs and versions whose removal is in the ledger."""
    told = select(LEAVES.c.subject).where(LEAVES.c.kind == REMOVAL, LEAVES.c.subject.in_(subjects))
    return set(connection.scalars(told))


def _without_leaf(connection: Connection, kind: str, rows: Sequence[Row]) -> Violations:
    ids = [row["id"] for row in rows]
    told = select(LEAVES.c.subject).where(LEAVES.c.kind == kind, LEAVES.c.subject.in_(ids))
    known = set(connection.scalars(told))
    for each in ids:
        if each not in known:
            text = f"{kind} {each} is on record, and not in the ledger"
            yield Violation(text, SOURCES[kind].table, each)


def _taken_back(connection: Connection, kind: str) -> Violations:
    """Rows of which a later leaf tells something else than it may."""
    several = select(LEAVES.c.subject).where(LEAVES.c.kind == kind)
    several = several.group_by(LEAVES.c.subject).having(func.count() > 1)
    leaves = select(LEAVES).where(LEAVES.c.kind == kind, LEAVES.c.subject.in_(several))
    order = (LEAVES.c.subject, LEAVES.c.idx.is_(None), LEAVES.c.idx, LEAVES.c.id)
    rows = connection.execute(leaves.order_by(*order)).mappings()
    for subject, some in groupby(rows, key=lambda leaf: leaf["subject"]):
        before: dict[str, Any] = {}
        for told in map(_told, some):
            lost = [
                f"{name} was {_short(value)}"
                for name, value in before.items()
                if not _may_become(kind, name, value, told.get(name))
            ]
            if lost:
                text = f"a later leaf takes back what the ledger tells of {kind} {subject}: "
                yield Violation(text + "; ".join(lost), SOURCES[kind].table, subject)
            before = told


def _may_become(kind: str, name: str, value: Any, later: Any) -> bool:
    """Whether a field of a row may change so: a key expires, a removed version has no files."""
    if value == later or (kind, name) in MAY_CHANGE:
        return True
    return value is None if kind == KEY else (kind, name, later) == (MODEL_VERSION, "files", {})


def _told(leaf: Row) -> dict[str, Any]:
    """What a leaf repeats of its row; nothing of one that was edited."""
    with suppress(ValueError, LookupError, TypeError):
        return dict(json.loads(leaf["text"])["data"])
    return {}


def _pages(connection: Connection, rows: Select[Any], key: Any) -> Iterator[Sequence[Row]]:
    """The rows in the order of their key, some at a time."""
    last: Any = ""
    while True:
        page = rows.where(key > last).order_by(key).limit(AT_ONCE)
        found = connection.execute(page).mappings().all()
        if found:
            yield found
        if len(found) < AT_ONCE:
            return
        last = found[-1]["id"]
