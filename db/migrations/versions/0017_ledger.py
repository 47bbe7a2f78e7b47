"""The audit trail, and the ledger; what it would hold of the rows on record waits for a place."""

from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from db.columns import Digest, Id, JsonObject, UtcDateTime, new_id
from db.leaves import PROMOTION, REMOVAL, SOURCES, WITHDRAWAL, leaf_text, row_data
from db.merkle import leaf_hash

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)
JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
ROWS_AT_ONCE = 1000
TYPES = {"at": UtcDateTime(), "verdict": JsonObject()}
IDS = {"model_id", "version_id", "previous_id", "dataset_id"}

LEAVES = sa.table(
    "ledger_leaves",
    *(sa.column(name, Id()) for name in ("id", "subject")),
    *(sa.column(name, sa.Text()) for name in ("kind", "text")),
    sa.column("leaf_hash", Digest()),
)


def upgrade() -> None:
    """Add the tables, and a leaf for each promotion, withdrawal and removal on record."""
    op.create_table(
        "audit_entries",
        sa.Column("id", Id(), nullable=False),
        sa.Column("at", TIME, nullable=False),
        sa.Column("who", sa.String(200), nullable=False),
        sa.Column("action", sa.String(40), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("detail", JSON),
        sa.PrimaryKeyConstraint("id", name="pk_audit_entries"),
    )
    op.create_index("ix_audit_entries_at_id", "audit_entries", ["at", "id"])
    _create_ledger()
    for kind in (PROMOTION, WITHDRAWAL, REMOVAL):
        for page in _pages(kind):
            op.get_bind().execute(sa.insert(LEAVES), page)


def downgrade() -> None:
    """Drop the tables where nothing was done on record: else the proof of it would be lost."""
    for table in ("audit_entries", "ledger_heads"):
        if op.get_bind().execute(sa.text(f"SELECT 1 FROM {table} LIMIT 1")).first():  # noqa: S608 - named here
            raise NotImplementedError("restore the database from a backup to go back")
    for table in ("ledger_heads", "ledger_nodes", "ledger_leaves", "ledger", "audit_entries"):
        op.drop_table(table)


def _create_ledger() -> None:
    op.create_table(
        "ledger",
        sa.Column("only", sa.Integer(), nullable=False, autoincrement=False),
        sa.Column("id", Id(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("only", name="pk_ledger"),
    )
    op.create_table(
        "ledger_leaves",
        sa.Column("id", Id(), nullable=False),
        sa.Column("idx", sa.BigInteger()),
        sa.Column("kind", sa.String(20), nullable=False),
        sa.Column("subject", Id(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("leaf_hash", Digest(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_ledger_leaves"),
        sa.UniqueConstraint("idx", name="uq_ledger_leaves_idx"),
    )
    op.create_index("ix_ledger_leaves_subject_kind", "ledger_leaves", ["subject", "kind"])
    waiting = sa.text("idx IS NULL")
    op.create_index(
        "ix_ledger_leaves_waiting",
        "ledger_leaves",
        ["id"],
        sqlite_where=waiting,
        postgresql_where=waiting,
    )
    op.create_table(
        "ledger_nodes",
        sa.Column("level", sa.Integer(), nullable=False, autoincrement=False),
        sa.Column("number", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("hash", Digest(), nullable=False),
        sa.PrimaryKeyConstraint("level", "number", name="pk_ledger_nodes"),
    )
    op.create_table(
        "ledger_heads",
        sa.Column("size", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("root", Digest(), nullable=False),
        sa.Column("at", TIME, nullable=False),
        sa.Column("key_id", sa.String(60), nullable=False),
        sa.Column("signature", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("size", name="pk_ledger_heads"),
    )


def _pages(kind: str) -> Iterator[list[dict[str, Any]]]:
    """The leaves of the rows of a kind that are on record, some at a time."""
    source = SOURCES[kind]
    types = {name: Id() if name in IDS else TYPES.get(name, sa.Text()) for name in source.fields}
    table = sa.table(
        source.table,
        sa.column("id", Id()),
        *(sa.column(name, kept) for name, kept in types.items()),
    )
    last = ""
    while True:
        rows = sa.select(table).where(table.c.id > last).order_by(table.c.id).limit(ROWS_AT_ONCE)
        found = op.get_bind().execute(rows).mappings().all()
        column, value = source.but or ("id", "")
        page = [_leaf(kind, row) for row in found if row[column] != value]
        if page:
            yield page
        if len(found) < ROWS_AT_ONCE:
            return
        last = found[-1]["id"]


def _leaf(kind: str, row: Any) -> dict[str, Any]:
    text = leaf_text(kind, row["id"], row_data(kind, row))
    digest = leaf_hash(text.encode()).hex()
    return {
        "id": new_id(),
        "kind": kind,
        "subject": row["id"],
        "text": text,
        "leaf_hash": digest,
    }
