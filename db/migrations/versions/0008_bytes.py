"""Ids and digests as bytes: half the size, in every row and index that has them.

On SQLite a value's type is its own, so only the values change; a column's type is but a name there.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

from db.columns import ID_DIGITS, digest_bytes, hyphenated, id_bytes

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

IDS = {
    "datasets": ["id"],
    "dataset_versions": ["id", "dataset_id"],
    "models": ["id"],
    "model_versions": ["id", "model_id", "parent_id", "dataset_version_id", "job_id"],
    "aliases": ["model_id", "version_id"],
    "batches": ["id"],
    "jobs": ["id", "batch_id", "schedule_id", "retry_of"],
    "retention": ["job_id"],
    "shards": ["id", "job_id", "group_id", "owner"],
    "attempts": ["shard_id", "worker"],
    "artifacts": ["id", "job_id", "shard_id"],
    "checkpoints": ["shard_id"],
    "points": ["job_id"],
    "transitions": ["id", "job_id", "shard_id"],
    "log_lines": ["id", "job_id"],
    "workers": ["boot_id"],
    "schedules": ["id"],
    "schedule_runs": ["schedule_id", "job_id"],
}
DIGESTS = {
    "dataset_versions": ["manifest_sha256"],
    "model_versions": ["weights_sha256"],
    "jobs": ["spec_hash", "manifest_sha256", "prompts_sha256"],
    "artifacts": ["sha256", "members_sha256", "index_sha256"],
    "checkpoints": ["sha256"],
}
# for PostgreSQL: an id or digest to bytes, and back; text of another form, as its UTF-8
TO_BYTES = (
    "CASE WHEN COLUMN ~ '^([0-9a-f]{64}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12})$' "
    "THEN decode(replace(COLUMN, '-', ''), 'hex') ELSE convert_to(COLUMN, 'UTF8') END"
)
TO_TEXT = (
    "CASE length(COLUMN) WHEN 16 THEN encode(COLUMN, 'hex')::uuid::text "
    "WHEN 32 THEN encode(COLUMN, 'hex') ELSE convert_from(COLUMN, 'UTF8') END"
)


def upgrade() -> None:
    """Convert every value, and keep all rows and what refers to them."""
    if op.get_bind().dialect.name == "sqlite":
        _convert_sqlite(id_bytes, digest_bytes)
    else:
        _convert_postgresql("bytea", "bytea", TO_BYTES)


def downgrade() -> None:
    """Convert every value back to text."""
    if op.get_bind().dialect.name == "sqlite":
        _convert_sqlite(_id_text, _digest_text)
    else:
        _convert_postgresql("varchar(36)", "varchar(64)", TO_TEXT)


def _convert_sqlite(to_id: Any, to_digest: Any) -> None:
    connection = op.get_bind()
    driver: Any = connection.connection.dbapi_connection
    driver.create_function("converted_id", 1, _unless_null(to_id), deterministic=True)
    driver.create_function("converted_digest", 1, _unless_null(to_digest), deterministic=True)
    connection.exec_driver_sql("PRAGMA defer_foreign_keys = ON")  # until the transaction ends
    for table, names in IDS.items():
        ids = (f"{name} = converted_id({name})" for name in names)
        digests = (f"{name} = converted_digest({name})" for name in DIGESTS.get(table, []))
        op.execute(f"UPDATE {table} SET {', '.join([*ids, *digests])}")  # noqa: S608 - constants


def _unless_null(convert: Any) -> Any:
    return lambda value: None if value is None else convert(value)


def _convert_postgresql(id_type: str, digest_type: str, using: str) -> None:
    keys = _drop_foreign_keys()
    op.execute("ALTER TABLE shards ALTER COLUMN group_id DROP DEFAULT")
    for table, names in IDS.items():
        types = dict.fromkeys(names, id_type) | dict.fromkeys(DIGESTS.get(table, []), digest_type)
        changes = (
            f"ALTER COLUMN {name} TYPE {kind} USING {using.replace('COLUMN', name)}"
            for name, kind in types.items()
        )
        op.execute(f"ALTER TABLE {table} {', '.join(changes)}")
    op.execute("ALTER TABLE shards ALTER COLUMN group_id SET DEFAULT ''")
    for table, key in keys:
        op.create_foreign_key(
            key["name"],
            table,
            key["referred_table"],
            key["constrained_columns"],
            key["referred_columns"],
            ondelete=key["options"].get("ondelete"),
        )


def _drop_foreign_keys() -> list[tuple[str, Any]]:
    """Both of a key's columns must have one type, so none may be there in between."""
    inspector = sa.inspect(op.get_bind())
    found = [(table, key) for table in IDS for key in inspector.get_foreign_keys(table)]
    for table, key in found:
        op.drop_constraint(str(key["name"]), table, type_="foreignkey")
    return found


def _id_text(value: bytes) -> str:
    digits = value.hex()
    return hyphenated(digits) if len(digits) == ID_DIGITS else value.decode()


def _digest_text(value: bytes) -> str:
    return value.hex() if len(value) == 32 else value.decode()
