"""Keys of the installation: public parts, and secrets that the installation key wraps."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Add the table."""
    op.create_table(
        "keys",
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("purpose", sa.String(12), nullable=False),
        sa.Column("tenant", sa.String(100), nullable=False),
        sa.Column("public", sa.Text()),
        sa.Column("wrapped", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("rotated_at", TIME),
        sa.Column("revoked_at", TIME),
        sa.Column("reason", sa.Text()),
        sa.PrimaryKeyConstraint("id", name="pk_keys"),
    )
    current = sa.text("rotated_at IS NULL AND revoked_at IS NULL")
    op.create_index(
        "ix_keys_current",
        "keys",
        ["purpose", "tenant"],
        unique=True,
        sqlite_where=current,
        postgresql_where=current,
    )


def downgrade() -> None:
    """Drop the table where it is empty: without its keys, nothing that was signed is known."""
    if op.get_bind().execute(sa.text("SELECT 1 FROM keys LIMIT 1")).first():
        raise NotImplementedError("restore the database from a backup to go back")
    op.drop_table("keys")
