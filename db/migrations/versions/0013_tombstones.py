"""Tombstones: what commands removed, by whom and when."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from db.columns import Id

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)
JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def upgrade() -> None:
    """Add the table."""
    op.create_table(
        "tombstones",
        sa.Column("id", Id(), nullable=False),
        sa.Column("kind", sa.String(10), nullable=False),
        sa.Column("name", sa.String(120)),
        sa.Column("about", JSON),
        sa.Column("who", sa.String(200), nullable=False),
        sa.Column("at", TIME, nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("kept", sa.Boolean(), nullable=False),
        sa.Column("sweep_at", TIME),
        sa.PrimaryKeyConstraint("id", name="pk_tombstones"),
    )
    _index("name", "name", "name IS NOT NULL")
    _index("sweep_at", "sweep_at", "sweep_at IS NOT NULL")
    _index("kept", "id", "kept")


def downgrade() -> None:
    """Drop the table where it is empty: an older schema would list again what is only hidden."""
    if op.get_bind().execute(sa.text("SELECT 1 FROM tombstones LIMIT 1")).first():
        raise NotImplementedError("restore the database from a backup to go back")
    op.drop_table("tombstones")


def _index(name: str, column: str, condition: str) -> None:
    where = sa.text(condition)
    op.create_index(
        f"ix_tombstones_{name}",
        "tombstones",
        [column],
        sqlite_where=where,
        postgresql_where=where,
    )
