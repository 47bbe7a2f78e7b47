"""The audit trail, and the ledger; what it would hold of the rows on record waits for a place."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from db.columns import Digest, Id, JsonObject, UtcDateTime
from db.leaves import PROMOTION, REMOVAL, WITHDRAWAL
from db.migrations.leaves import enter_rows

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)
JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
TYPES = {
    "at": UtcDateTime(),
    "verdict": JsonObject(),
    **dict.fromkeys(("model_id", "version_id", "previous_id", "dataset_id"), Id()),
}


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
        enter_rows(op.get_bind(), kind, TYPES)


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
