"""The object store that belongs to this record, by the id of its sentinel."""

import sqlalchemy as sa
from alembic import op

from db.columns import Id, new_id

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

NAMING_OBJECTS = ("artifacts", "model_versions", "dataset_versions")


def upgrade() -> None:
    """Add the table; a record that names objects gets the id of a sentinel to be made."""
    table = op.create_table(
        "own_store",
        sa.Column("only", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("id", Id(), nullable=False),
        sa.Column("made", sa.Boolean(), nullable=False),
        sa.Column("had_objects", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.PrimaryKeyConstraint("only", name="pk_own_store"),
    )
    if any(_has_rows(name) for name in NAMING_OBJECTS):
        row = {"only": 1, "id": new_id(), "made": False, "had_objects": True}
        op.bulk_insert(table, [row])


def downgrade() -> None:
    """Drop the table; a sentinel in the store harms nobody."""
    op.drop_table("own_store")


def _has_rows(table: str) -> bool:
    first = sa.text(f"SELECT 1 FROM {table} LIMIT 1")  # noqa: S608 - constants
    return op.get_bind().execute(first).first() is not None
