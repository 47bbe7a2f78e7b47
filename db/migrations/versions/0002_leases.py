"""Leases that touch one row: what a shard is chosen by, and its progress, are on the shard.

`attempts` and `transitions` lose their foreign keys: each insert locked and checked the rows that
its transaction had just changed.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

ID = sa.String(36)
JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
IN_ORDER = ["urgency", "group_id", "job_id", "idx"]
OLD_INDEXES = ("not_before", "lease_until", "dispatched_at")
INDEXES = {
    "fresh": (IN_ORDER, "status = 'queued' AND fence = 0"),
    "requeued": (IN_ORDER, "status = 'queued' AND fence > 0 AND NOT waiting"),
    "waiting": (["not_before"], "status = 'queued' AND waiting"),
    "dispatched": (["dispatched_at"], "status = 'queued' AND dispatched_at IS NOT NULL"),
    "running": (["group_id", "job_id"], "status = 'running'"),
}
FOREIGN_KEYS = {
    "attempts": {"fk_attempts_shard_id_shards": ("shard_id", "shards")},
    "transitions": {
        "fk_transitions_job_id_jobs": ("job_id", "jobs"),
        "fk_transitions_shard_id_shards": ("shard_id", "shards"),
    },
}


def upgrade() -> None:
    """Add the columns, fill them from the jobs, and index what is queued or running."""
    for name in OLD_INDEXES:
        op.drop_index(f"ix_shards_status_{name}", "shards")
    for column in _shard_columns():
        op.add_column("shards", column)
    op.add_column("jobs", sa.Column("samples", sa.BigInteger(), nullable=True))
    for statement in FILLED:
        op.execute(statement)
    op.drop_column("jobs", "progress")
    for name, (columns, where) in INDEXES.items():
        condition = sa.text(where)
        op.create_index(
            f"ix_shards_{name}",
            "shards",
            columns,
            sqlite_where=condition,
            postgresql_where=condition,
        )
    for table, keys in FOREIGN_KEYS.items():
        with op.batch_alter_table(table) as batch:
            for name in keys:
                batch.drop_constraint(name, type_="foreignkey")


def downgrade() -> None:
    """Put everything back; the progress of jobs is lost."""
    for table, keys in FOREIGN_KEYS.items():
        with op.batch_alter_table(table) as batch:
            for name, (column, referred) in keys.items():
                batch.create_foreign_key(name, referred, [column], ["id"])
    for name in INDEXES:
        op.drop_index(f"ix_shards_{name}", "shards")
    op.add_column("jobs", sa.Column("progress", JSON, nullable=False, server_default="{}"))
    op.drop_column("jobs", "samples")
    for added in _shard_columns():
        op.drop_column("shards", added.name)
    for name in OLD_INDEXES:
        op.create_index(f"ix_shards_status_{name}", "shards", ["status", name])


def _shard_columns() -> list[sa.Column[Any]]:
    return [
        sa.Column("group_id", ID, nullable=False, server_default=sa.text("''")),
        sa.Column("urgency", sa.Integer(), nullable=False, server_default=sa.text("0")),
        sa.Column("work_key", sa.BigInteger(), nullable=True),
        sa.Column("waiting", sa.Boolean(), nullable=False, server_default=sa.text("false")),
        sa.Column("report", JSON, nullable=True),
    ]


# a NULL work_key: shards from before are claimed one at a time
FILLED = (
    """
    UPDATE shards SET
        group_id = (SELECT coalesce(batch_id, id) FROM jobs WHERE jobs.id = shards.job_id),
        urgency = (SELECT -priority FROM jobs WHERE jobs.id = shards.job_id),
        waiting = (status = 'queued' AND fence > 0)
    """,
    """
    UPDATE shards SET report = (SELECT progress FROM jobs WHERE jobs.id = shards.job_id)
    WHERE (SELECT kind FROM jobs WHERE jobs.id = shards.job_id) <> 'generate' AND fence > 0
    """,
    """
    UPDATE jobs SET samples = (SELECT sum(stop - start) FROM shards WHERE job_id = jobs.id)
    WHERE kind = 'generate'
    """,
)
