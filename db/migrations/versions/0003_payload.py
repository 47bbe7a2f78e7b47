"""Sample indexes in place of one row a sample, prompts beside the jobs, shapes of model versions.

The samples of earlier jobs get their index inside the artifact's row.
"""

import hashlib
import struct
from collections.abc import Iterator
from itertools import groupby
from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

DIGEST = sa.String(64)
JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
ENTRY = struct.Struct("<QI32s")  # offset, size, SHA-256
PAGE = 200  # artifacts

artifacts = sa.table(
    "artifacts",
    *(sa.column(name) for name in ("id", "job_id", "key", "sha256", "members_sha256")),
    sa.column("index_data", sa.LargeBinary),
)
members = sa.table(
    "members",
    *(sa.column(name) for name in ("artifact_id", "sample", "offset", "size", "sha256")),
)


def upgrade() -> None:
    """Change the tables, keeping every row."""
    op.add_column("artifacts", sa.Column("members_sha256", DIGEST))
    op.add_column("artifacts", sa.Column("index_sha256", DIGEST))
    op.add_column("artifacts", sa.Column("index_data", sa.LargeBinary()))
    _index_samples()
    op.drop_table("members")
    op.drop_index("ix_artifacts_job_id", "artifacts")
    # only now: SQLite makes the table anew, which nothing may refer to
    with op.batch_alter_table("artifacts") as table:
        table.alter_column("key", existing_type=sa.String(200), nullable=True)
        # without an index, deleting jobs would read the whole table for each of them
        table.drop_constraint("fk_artifacts_job_id_jobs", type_="foreignkey")
    _drop_derived_keys()
    op.add_column("model_versions", sa.Column("shape", JSON))
    op.add_column("jobs", sa.Column("prompts_sha256", DIGEST))
    named = sa.text("prompts_sha256 IS NOT NULL")
    op.create_index(
        "ix_jobs_prompts_sha256",
        "jobs",
        ["prompts_sha256"],
        sqlite_where=named,
        postgresql_where=named,
    )


def downgrade() -> None:
    """Not supported: indexes in the store cannot be read from here."""
    raise NotImplementedError("restore the database from a backup to go back")


def _index_samples() -> None:
    """Write the members of each artifact into its row, a page of artifacts at a time."""
    connection = op.get_bind()
    update = (
        artifacts.update()
        .where(artifacts.c.id == sa.bindparam("artifact"))
        .values(members_sha256=sa.bindparam("digest"), index_data=sa.bindparam("data"))
    )
    after = ""
    while ids := _page_of_ids(connection, after):
        if rows := list(_indexes(connection, ids)):
            connection.execute(update, rows)
        after = ids[-1]


def _page_of_ids(connection: sa.Connection, after: str) -> list[str]:
    statement = sa.select(artifacts.c.id).where(artifacts.c.id > after).order_by(artifacts.c.id)
    return list(connection.scalars(statement.limit(PAGE)))


def _indexes(connection: sa.Connection, ids: list[str]) -> Iterator[dict[str, Any]]:
    statement = sa.select(members).where(members.c.artifact_id.in_(ids))
    rows = connection.execute(statement.order_by(members.c.artifact_id, members.c.sample))
    for artifact_id, group in groupby(rows, key=lambda row: row.artifact_id):
        digest, data = hashlib.sha256(), bytearray()
        for row in group:
            digest.update(f"{row.sample} {row.sha256}\n".encode())
            data += ENTRY.pack(row.offset, row.size, bytes.fromhex(row.sha256))
        yield {"artifact": artifact_id, "digest": digest.hexdigest(), "data": bytes(data)}


def _drop_derived_keys() -> None:
    derived = sa.literal("jobs/") + artifacts.c.job_id + "/blobs/" + artifacts.c.sha256
    op.execute(artifacts.update().where(artifacts.c.key == derived).values(key=None))
