"""Models, datasets, their versions, evaluations and targets are in the ledger."""

import sqlalchemy as sa
from alembic import op

from db.columns import Digest, Id, JsonObject, UtcDateTime
from db.leaves import DATASET, DATASET_VERSION, EVALUATION, MODEL, MODEL_VERSION, TARGET
from db.migrations.leaves import LEAVES, enter_rows

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

KINDS = (MODEL, MODEL_VERSION, DATASET, DATASET_VERSION, EVALUATION, TARGET)
IDS = ("model_id", "parent_id", "dataset_version_id", "job_id", "dataset_id", "version_id")
DOCUMENTS = (
    *("params", "files", "metrics", "card", "summary", "protocol", "numbers", "marks"),
    *("settings", "secrets"),
)
DIGESTS = ("weights_sha256", "manifest_sha256", "protocol_sha256", "items_sha256")
TYPES = {
    **dict.fromkeys(IDS, Id()),
    **dict.fromkeys(DIGESTS, Digest()),
    **dict.fromkeys(DOCUMENTS, JsonObject()),
    **dict.fromkeys(("created_at", "removed_at"), UtcDateTime()),
}


def upgrade() -> None:
    """Add a leaf for each of their rows."""
    for kind in KINDS:
        enter_rows(op.get_bind(), kind, TYPES)


def downgrade() -> None:
    """Delete the leaves that have no place yet; with the others, proofs of them would be lost."""
    mine = LEAVES.c.kind.in_(KINDS)
    placed = sa.select(LEAVES.c.id).where(mine, sa.column("idx").is_not(None)).limit(1)
    if op.get_bind().execute(placed).first():
        raise NotImplementedError("restore the database from a backup to go back")
    op.get_bind().execute(sa.delete(LEAVES).where(mine))
