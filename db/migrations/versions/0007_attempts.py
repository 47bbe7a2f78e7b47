"""Attempts that go on or succeeded are on their shard's row; `attempts` keeps how others ended.

The transitions of claims and of successes that earlier versions recorded stay.
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)
CURRENT = "attempts.shard_id = shards.id AND attempts.fence = shards.fence"
COLUMNS = {"owner": "worker", "started_at": "started_at", "ended_at": "ended_at"}
MOVED = ", ".join(
    f"{ours} = (SELECT {theirs} FROM attempts WHERE {CURRENT})"  # noqa: S608 - constants
    for ours, theirs in COLUMNS.items()
)


def upgrade() -> None:
    """Move each current or successful attempt to its shard, and finished jobs' reports out."""
    op.add_column("shards", sa.Column("started_at", TIME))
    op.add_column("shards", sa.Column("ended_at", TIME))
    for statement in UPGRADED:
        op.execute(statement)
    _require_ends(nullable=False)


def downgrade() -> None:
    """Move the attempts back to their table."""
    _require_ends(nullable=True)
    for statement in DOWNGRADED:
        op.execute(statement)
    op.drop_column("shards", "ended_at")
    op.drop_column("shards", "started_at")


def _require_ends(*, nullable: bool) -> None:
    with op.batch_alter_table("attempts") as table:
        table.alter_column("ended_at", existing_type=TIME, nullable=nullable)
        table.alter_column("outcome", existing_type=sa.String(20), nullable=nullable)


UPGRADED = (
    f"UPDATE shards SET {MOVED} WHERE status IN ('running', 'succeeded')"  # noqa: S608 - constants
    f" AND EXISTS (SELECT 1 FROM attempts WHERE {CURRENT})",
    "DELETE FROM attempts WHERE EXISTS (SELECT 1 FROM shards"  # noqa: S608 - constants
    f" WHERE {CURRENT} AND status IN ('running', 'succeeded'))",
    "UPDATE shards SET started_at = not_before WHERE status = 'running' AND started_at IS NULL",
    "UPDATE attempts SET ended_at = started_at, outcome = 'lost' WHERE ended_at IS NULL"
    " OR outcome IS NULL",
    "UPDATE shards SET report = NULL WHERE status = 'succeeded' AND report IS NOT NULL"
    " AND (SELECT kind FROM jobs WHERE jobs.id = shards.job_id) = 'generate'",
)
DOWNGRADED = (
    "INSERT INTO attempts (shard_id, fence, worker, started_at, ended_at, outcome)"
    " SELECT id, fence, owner, started_at, ended_at,"
    " CASE status WHEN 'succeeded' THEN 'succeeded' END"
    " FROM shards WHERE status IN ('running', 'succeeded') AND started_at IS NOT NULL",
    "UPDATE shards SET owner = NULL WHERE status = 'succeeded'",
)
