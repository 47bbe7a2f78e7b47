"""Setbacks: what fails in the scheduler's loops, and when it is tried next."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Add the table."""
    op.create_table(
        "setbacks",
        sa.Column("loop", sa.String(40), nullable=False),
        sa.Column("item", sa.Text(), nullable=False),
        sa.Column("times", sa.Integer(), nullable=False),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("since", TIME, nullable=False),
        sa.Column("tried_at", TIME, nullable=False),
        sa.Column("again_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("loop", "item", name="pk_setbacks"),
    )


def downgrade() -> None:
    """Forget them: what fails is tried again at once."""
    op.drop_table("setbacks")
