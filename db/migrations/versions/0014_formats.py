"""Of a model version, the number of the format of its parameters, and the code that made it."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns; what was made before there were numbers is of format 1."""
    number = sa.Column("format", sa.Integer(), server_default=sa.text("1"), nullable=False)
    op.add_column("model_versions", number)
    op.add_column("model_versions", sa.Column("made_by", sa.String(100), nullable=True))


def downgrade() -> None:
    """Drop the columns."""
    op.drop_column("model_versions", "made_by")
    op.drop_column("model_versions", "format")
