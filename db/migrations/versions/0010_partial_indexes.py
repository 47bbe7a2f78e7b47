"""Jobs without a batch or schedule are left out of the indexes by batch and schedule."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

COLUMNS = ("batch_id", "schedule_id")


def upgrade() -> None:
    """Make the indexes partial."""
    for column in COLUMNS:
        here = sa.text(f"{column} IS NOT NULL")
        op.drop_index(f"ix_jobs_{column}", "jobs")
        op.create_index(
            f"ix_jobs_{column}", "jobs", [column, "id"], sqlite_where=here, postgresql_where=here
        )


def downgrade() -> None:
    """Make the indexes full."""
    for column in COLUMNS:
        op.drop_index(f"ix_jobs_{column}", "jobs")
        op.create_index(f"ix_jobs_{column}", "jobs", [column, "id"])
