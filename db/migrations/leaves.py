"""Leaves of the ledger for rows that were on record before their kind was in it."""

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from db.columns import Digest, Id, new_id
from db.leaves import SOURCES, leaf_text
from db.merkle import leaf_hash

ROWS_AT_ONCE = 1000
LEAVES = sa.table(
    "ledger_leaves",
    *(sa.column(name, Id()) for name in ("id", "subject")),
    *(sa.column(name, sa.Text()) for name in ("kind", "text")),
    sa.column("leaf_hash", Digest()),
)


def enter_rows(connection: sa.Connection, kind: str, types: Mapping[str, Any]) -> None:
    """Enter a leaf for each row of a kind; `types` are those of columns that no driver converts.

    Leaves have the kind's first fields alone: the columns of later ones may not be there yet.
    """
    source = SOURCES[kind]
    columns = (sa.column(name, types.get(name)) for name in source.fields)
    table = sa.table(source.table, sa.column("id", Id()), *columns)
    column, value = source.but or ("id", "")
    last, found = "", None
    while found is None or len(found) == ROWS_AT_ONCE:
        rows = sa.select(table).where(table.c.id > last).order_by(table.c.id).limit(ROWS_AT_ONCE)
        found = connection.execute(rows).mappings().all()
        if page := [_leaf(kind, row) for row in found if row[column] != value]:
            connection.execute(sa.insert(LEAVES), page)
        last = found[-1]["id"] if found else last


def _leaf(kind: str, row: Any) -> dict[str, Any]:
    text = leaf_text(kind, row["id"], {name: row[name] for name in SOURCES[kind].fields})
    digest = leaf_hash(text.encode()).hex()
    about = {"kind": kind, "subject": row["id"]}
    return {"id": new_id(), **about, "text": text, "leaf_hash": digest}
