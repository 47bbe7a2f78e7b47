"""What became of the marks of samples, and the profile that a model's samples get by default."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns; samples that were made before have no marks."""
    json = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
    op.add_column("artifacts", sa.Column("marks", json))
    op.add_column("models", sa.Column("marks", json))


def downgrade() -> None:
    """Drop the columns; manifests that count marks no longer follow from the record."""
    op.drop_column("models", "marks")
    op.drop_column("artifacts", "marks")
