"""Batches become visible when they are complete; what is abandoned can be deleted by indexes."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

NAMING = {"fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s"}


def upgrade() -> None:
    """Every batch on record is complete: it was stored in one transaction."""
    complete_at = sa.Column("complete_at", sa.DateTime(timezone=True), nullable=True)
    op.add_column("batches", complete_at)
    op.execute("UPDATE batches SET complete_at = created_at")
    _create_partial_index("ix_batches_incomplete", "batches", "id", "complete_at IS NULL")
    # without these, deleting a job or a shard reads the whole table of jobs or transitions
    _create_partial_index("ix_jobs_retry_of", "jobs", "retry_of", "retry_of IS NOT NULL")
    with op.batch_alter_table("transitions", naming_convention=NAMING) as batch:
        batch.drop_constraint("fk_transitions_shard_id_shards", type_="foreignkey")


def downgrade() -> None:
    """Incomplete batches become visible: complete or delete them first."""
    with op.batch_alter_table("transitions") as batch:
        batch.create_foreign_key("fk_transitions_shard_id_shards", "shards", ["shard_id"], ["id"])
    op.drop_index("ix_jobs_retry_of", "jobs")
    op.drop_index("ix_batches_incomplete", "batches")
    op.drop_column("batches", "complete_at")


def _create_partial_index(name: str, table: str, column: str, condition: str) -> None:
    where = sa.text(condition)
    op.create_index(name, table, [column], sqlite_where=where, postgresql_where=where)
