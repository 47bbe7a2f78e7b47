"""Batches become visible when complete; jobs are deleted by indexes alone; rates are learnt."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Every batch on record is complete: it was stored in one transaction."""
    for name in ("complete_at", "discarded_at"):
        op.add_column("batches", sa.Column(name, sa.DateTime(timezone=True), nullable=True))
    op.execute("UPDATE batches SET complete_at = created_at")
    _create_partial_index("ix_batches_incomplete", "batches", "id", "complete_at IS NULL")
    # without it, deleting a job reads the whole table
    _create_partial_index("ix_jobs_retry_of", "jobs", "retry_of", "retry_of IS NOT NULL")
    op.create_table(
        "rates",
        sa.Column("work_key", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("samples_per_second", sa.Float(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("work_key", name="pk_rates"),
    )


def downgrade() -> None:
    """Incomplete batches become visible: complete or delete them first."""
    op.drop_table("rates")
    op.drop_index("ix_jobs_retry_of", "jobs")
    op.drop_index("ix_batches_incomplete", "batches")
    for name in ("complete_at", "discarded_at"):
        op.drop_column("batches", name)


def _create_partial_index(name: str, table: str, column: str, condition: str) -> None:
    where = sa.text(condition)
    op.create_index(name, table, [column], sqlite_where=where, postgresql_where=where)
