"""Counts of jobs kept by triggers, indexes of lists, removed artifacts, settings of hot tables.

On SQLite, a later migration that makes `jobs` anew must create these triggers again.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)

COUNT = """
INSERT INTO job_counts (kind, status, slot, jobs)
VALUES ({row}.kind, {row}.status, {slot}, {change})
ON CONFLICT (kind, status, slot) DO UPDATE SET jobs = job_counts.jobs + excluded.jobs;
"""
SQLITE_TRIGGERS = {
    "job_counts_insert": "AFTER INSERT ON jobs",
    "job_counts_update": "AFTER UPDATE OF status ON jobs WHEN OLD.status <> NEW.status",
    "job_counts_delete": "AFTER DELETE ON jobs",
}

# Into a slot of the transaction's own: no transaction waits for another one.
POSTGRESQL_ROW = f"""
CREATE FUNCTION count_moved_job() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
{COUNT.format(row="OLD", slot="txid_current()", change=-1)}
{COUNT.format(row="NEW", slot="txid_current()", change=1)}
RETURN NULL;
END $$
"""
# One statement may insert or delete a thousand jobs.
POSTGRESQL_STATEMENT = """
CREATE FUNCTION count_many_jobs() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
INSERT INTO job_counts (kind, status, slot, jobs)
SELECT kind, status, txid_current(), count(*) * TG_ARGV[0]::int FROM changed GROUP BY kind, status
ON CONFLICT (kind, status, slot) DO UPDATE SET jobs = job_counts.jobs + excluded.jobs;
RETURN NULL;
END $$
"""
POSTGRESQL_TRIGGERS = [
    "CREATE TRIGGER job_counts_insert AFTER INSERT ON jobs REFERENCING NEW TABLE AS changed "
    "FOR EACH STATEMENT EXECUTE FUNCTION count_many_jobs('1')",
    "CREATE TRIGGER job_counts_delete AFTER DELETE ON jobs REFERENCING OLD TABLE AS changed "
    "FOR EACH STATEMENT EXECUTE FUNCTION count_many_jobs('-1')",
    "CREATE TRIGGER job_counts_update AFTER UPDATE OF status ON jobs FOR EACH ROW "
    "WHEN (OLD.status <> NEW.status) EXECUTE FUNCTION count_moved_job()",
]

# Rows that are updated often get room on their page, and what they leave behind is removed early.
HOT = {"shards": 75, "jobs": 85, "workers": 50, "job_counts": 50}  # fill factors, in per cent
STORAGE = (
    "fillfactor = {}, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000, "
    "autovacuum_analyze_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 1"
)
STORAGE_NAMES = ", ".join(part.split(" = ")[0] for part in STORAGE.split(", "))

LISTS = {  # newest first, by any of these columns together with the state, the kind or both
    "ix_jobs_status_kind_id": (["status", "kind", "id"], None),
    "ix_jobs_model_status_kind_id": (["model", "status", "kind", "id"], "model IS NOT NULL"),
    "ix_jobs_batch_id_status_kind_id": (
        ["batch_id", "status", "kind", "id"],
        "batch_id IS NOT NULL",
    ),
    "ix_jobs_finished_at_id": (["finished_at", "id"], "finished_at IS NOT NULL"),
    "ix_jobs_collectable": (["finished_at"], "finished_at IS NOT NULL AND collected_at IS NULL"),
}
JOURNAL = ("log_lines", "transitions")  # read in the order of the database's times
REPLACED = {
    "ix_jobs_status_id": ["status", "id"],
    "ix_jobs_kind_id": ["kind", "id"],
    "ix_jobs_model_id": ["model", "id"],
    "ix_jobs_created_at": ["created_at"],
    "ix_jobs_finished_at": ["finished_at"],
}


def upgrade() -> None:
    """Add tables, a column and indexes; count the jobs on record."""
    op.create_table(
        "job_counts",
        sa.Column("kind", sa.String(20), nullable=False),
        sa.Column("status", sa.String(12), nullable=False),
        sa.Column("slot", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("jobs", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("kind", "status", "slot", name="pk_job_counts"),
    )
    op.create_table(
        "retention",
        sa.Column("what", sa.String(20), nullable=False),
        sa.Column("finished_at", TIME, nullable=False),
        sa.Column("job_id", sa.String(36), nullable=False),
        sa.PrimaryKeyConstraint("what", name="pk_retention"),
    )
    op.add_column("artifacts", sa.Column("removed_at", TIME))
    _change_indexes(create=LISTS, drop=REPLACED)
    for table in JOURNAL:
        op.drop_index(f"ix_{table}_job_id", table)
        op.create_index(f"ix_{table}_job_id_at_id", table, ["job_id", "at", "id"])
    op.execute(
        "INSERT INTO job_counts (kind, status, slot, jobs) "
        "SELECT kind, status, 0, count(*) FROM jobs GROUP BY kind, status"
    )
    if op.get_bind().dialect.name == "postgresql":
        for statement in [POSTGRESQL_ROW, POSTGRESQL_STATEMENT, *POSTGRESQL_TRIGGERS]:
            op.execute(statement)
        for table, fill in HOT.items():
            op.execute(f"ALTER TABLE {table} SET ({STORAGE.format(fill)})")
    else:
        _create_sqlite_triggers()


def downgrade() -> None:
    """Artifacts that were removed are forgotten: they would look as if they were in the store."""
    if op.get_bind().dialect.name == "postgresql":
        for table in HOT:
            op.execute(f"ALTER TABLE {table} RESET ({STORAGE_NAMES})")
    on_jobs = " ON jobs" if op.get_bind().dialect.name == "postgresql" else ""
    for name in SQLITE_TRIGGERS:
        op.execute(f"DROP TRIGGER {name}{on_jobs}")
    if on_jobs:
        op.execute("DROP FUNCTION count_moved_job(), count_many_jobs()")
    op.execute("DELETE FROM artifacts WHERE removed_at IS NOT NULL")
    for table in JOURNAL:
        op.drop_index(f"ix_{table}_job_id_at_id", table)
        op.create_index(f"ix_{table}_job_id", table, ["job_id", "id"])
    _change_indexes(
        create={name: (columns, None) for name, columns in REPLACED.items()}, drop=LISTS
    )
    op.drop_column("artifacts", "removed_at")
    op.drop_table("retention")
    op.drop_table("job_counts")


def _change_indexes(*, create: dict, drop: dict) -> None:  # type: ignore[type-arg] # name -> columns
    for name in drop:
        op.drop_index(name, "jobs")
    for name, (columns, condition) in create.items():
        where = sa.text(condition) if condition else None
        op.create_index(name, "jobs", columns, sqlite_where=where, postgresql_where=where)


def _create_sqlite_triggers() -> None:
    old = COUNT.format(row="OLD", slot=0, change=-1)
    new = COUNT.format(row="NEW", slot=0, change=1)
    bodies = {"insert": new, "update": old + new, "delete": old}
    for name, when in SQLITE_TRIGGERS.items():
        body = bodies[name.removeprefix("job_counts_")]
        op.execute(f"CREATE TRIGGER {name} {when} BEGIN {body} END")
