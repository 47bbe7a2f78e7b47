"""Who enqueued a job, a note on it, and when a training was told to end early."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns; who enqueued the jobs on record is not known."""
    op.add_column("jobs", sa.Column("owner", sa.String(200)))
    op.add_column("jobs", sa.Column("note", sa.Text()))
    op.add_column("jobs", sa.Column("stop_asked_at", sa.DateTime(timezone=True)))
    op.add_column("jobs", sa.Column("stop_after", sa.Float()))


def downgrade() -> None:
    """Forget them: a training that was told to end early goes on to the end of its budget."""
    for name in ("owner", "note", "stop_asked_at", "stop_after"):
        op.drop_column("jobs", name)
