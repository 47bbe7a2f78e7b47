"""Whatever a row names by a foreign key is on record: who edits SQLite by hand may take it away."""

from typing import Any

from sqlalchemy import Column, Connection, Table, exists, select

from scheduler.audit.record import TABLES
from scheduler.audit.violations import Violation, Violations

SHOWN = 20  # rows for each foreign key


def references_lead_somewhere(connection: Connection) -> Violations:
    """Every row that names another one which is not on record."""
    for table in TABLES.values():
        for key in sorted(table.foreign_keys, key=lambda key: str(key.parent)):
            yield from _lost(connection, table, key.parent, key.column)


def _lost(
    connection: Connection, table: Table, column: Column[Any], named: Column[Any]
) -> Violations:
    other = named.table.alias()
    there = exists().where(other.c[named.name] == column)
    rows = select(*table.primary_key, column).where(column.is_not(None), ~there)
    for row in connection.execute(rows.order_by(*table.primary_key).limit(SHOWN)):
        *own, value = row
        name = ":".join(map(str, own))
        yield Violation(
            f"row {name} of {table.name} names {column.name} {value}, "
            f"which is not in {named.table.name}"
        )
