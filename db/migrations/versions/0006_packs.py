"""Packs: objects that hold the bytes of many small artifacts, or the manifests of many jobs."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

INDEXES = {  # of what a pack holds and garbage collection must keep
    "ix_artifacts_pack": ("artifacts", "pack", "pack IS NOT NULL AND removed_at IS NULL"),
    "ix_jobs_manifest_pack": ("jobs", "manifest_pack", "manifest_pack IS NOT NULL"),
}


def upgrade() -> None:
    """Add columns and their indexes; what is on record has objects of its own."""
    op.add_column("artifacts", sa.Column("pack", sa.BigInteger()))
    op.add_column("artifacts", sa.Column("pack_offset", sa.Integer()))
    op.add_column("jobs", sa.Column("manifest_pack", sa.BigInteger()))
    op.add_column("jobs", sa.Column("manifest_offset", sa.Integer()))
    op.add_column("jobs", sa.Column("manifest_size", sa.Integer()))
    for name, (table, column, condition) in INDEXES.items():
        where = sa.text(condition)
        op.create_index(name, table, [column], sqlite_where=where, postgresql_where=where)


def downgrade() -> None:
    """Go back where nothing lies in a pack: an older schema could not say where it is."""
    for _, (table, column, _) in INDEXES.items():
        used = sa.text(f"SELECT 1 FROM {table} WHERE {column} IS NOT NULL LIMIT 1")  # noqa: S608 - constants
        if op.get_bind().execute(used).first():
            raise NotImplementedError("restore the database from a backup to go back")
    for name, (table, _, _) in INDEXES.items():
        op.drop_index(name, table)
    for column in ("pack", "pack_offset"):
        op.drop_column("artifacts", column)
    for column in ("manifest_pack", "manifest_offset", "manifest_size"):
        op.drop_column("jobs", column)
