"""Targets, to which samples and models are published, and what is published there."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from db.columns import Digest, Id

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)
JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def upgrade() -> None:
    """Add the tables."""
    op.create_table(
        "targets",
        sa.Column("id", Id(), nullable=False),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("kind", sa.String(20), nullable=False),
        sa.Column("settings", JSON, nullable=False),
        sa.Column("secrets", JSON, nullable=False),
        sa.Column("expires_after_s", sa.Float()),
        sa.Column("next_at", TIME),
        sa.Column("who", sa.String(200), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("removed_at", TIME),
        sa.PrimaryKeyConstraint("id", name="pk_targets"),
        sa.UniqueConstraint("name", name="uq_targets_name"),
    )
    op.create_table(
        "publications",
        sa.Column("id", Id(), nullable=False),
        sa.Column("target_id", Id(), nullable=False),
        sa.Column("item", sa.String(300), nullable=False),
        sa.Column("job_id", Id()),
        sa.Column("sample", sa.BigInteger()),
        sa.Column("version_id", Id()),
        sa.Column("sha256", Digest(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("media_type", sa.String(100), nullable=False),
        sa.Column("marks", sa.String(100)),
        sa.Column("state", sa.String(12), nullable=False),
        sa.Column("remote_id", sa.Text()),
        sa.Column("reason", sa.Text()),
        sa.Column("marks_verified", sa.Boolean()),
        sa.Column("event_id", Id(), nullable=False),
        sa.Column("by_job_id", Id(), nullable=False),
        sa.Column("fence", sa.Integer(), nullable=False),
        sa.Column("published_at", TIME),
        sa.Column("taken_down_at", TIME),
        sa.Column("expires_at", TIME),
        sa.PrimaryKeyConstraint("id", name="pk_publications"),
        sa.ForeignKeyConstraint(
            ["target_id"], ["targets.id"], name="fk_publications_target_id_targets"
        ),
        sa.UniqueConstraint("target_id", "item", name="uq_publications_target_id_item"),
    )
    op.create_index("ix_publications_by_job_id", "publications", ["by_job_id"])
    _index("job_id_sample", "job_id", "sample")
    _index("version_id", "version_id")
    _index("expires_at", "expires_at")


def downgrade() -> None:
    """Drop the tables where nothing was published: nobody would take it down again."""
    if op.get_bind().execute(sa.text("SELECT 1 FROM publications LIMIT 1")).first():
        raise NotImplementedError("restore the database from a backup to go back")
    op.drop_table("publications")
    op.drop_table("targets")


def _index(name: str, *columns: str) -> None:
    where = sa.text(f"{columns[0]} IS NOT NULL")
    op.create_index(
        f"ix_publications_{name}",
        "publications",
        list(columns),
        sqlite_where=where,
        postgresql_where=where,
    )
