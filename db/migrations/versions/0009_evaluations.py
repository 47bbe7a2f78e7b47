"""Evaluations, judges, the history of aliases, jobs in chains, schedules for new data."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from db.columns import Digest, Id

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)
JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
AFTER = "ix_jobs_after_id"
ONE_PER_RECIPE = "uq_judges_dataset_version_id_recipe"
FALSE = sa.text("false")
USED = (
    *("evaluations", "judges", "promotions", "withdrawals"),
    *("jobs WHERE after_id IS NOT NULL", "schedules WHERE only_if_new_data"),
)


def upgrade() -> None:
    """Add the tables and columns."""
    op.create_table(
        "evaluations",
        sa.Column("id", Id(), nullable=False),
        sa.Column("version_id", Id(), nullable=False),
        sa.Column("dataset_version_id", Id(), nullable=False),
        sa.Column("job_id", Id(), nullable=False),
        sa.Column("protocol", JSON, nullable=False),
        sa.Column("protocol_sha256", Digest(), nullable=False),
        sa.Column("numbers", JSON, nullable=False),
        sa.Column("items_key", sa.String(200), nullable=False),
        sa.Column("items_sha256", Digest(), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        *_keys("evaluations", "version_id", "model_versions"),
        *_keys("evaluations", "dataset_version_id", "dataset_versions"),
        *_keys("evaluations", "job_id", "jobs"),
        sa.PrimaryKeyConstraint("id", name="pk_evaluations"),
        sa.UniqueConstraint(
            "version_id", "protocol_sha256", name="uq_evaluations_version_id_protocol_sha256"
        ),
    )
    op.create_index("ix_evaluations_job_id", "evaluations", ["job_id"])
    op.create_table(
        "judges",
        sa.Column("id", Id(), nullable=False),
        sa.Column("dataset_version_id", Id(), nullable=False),
        sa.Column("recipe", sa.String(40), nullable=False),
        sa.Column("job_id", Id(), nullable=False),
        sa.Column("key", sa.String(200), nullable=False),
        sa.Column("sha256", Digest(), nullable=False),
        sa.Column("metrics", JSON, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        *_keys("judges", "dataset_version_id", "dataset_versions"),
        *_keys("judges", "job_id", "jobs"),
        sa.PrimaryKeyConstraint("id", name="pk_judges"),
        sa.UniqueConstraint("dataset_version_id", "recipe", name=ONE_PER_RECIPE),
    )
    op.create_index("ix_judges_job_id", "judges", ["job_id"])
    op.create_table(
        "promotions",
        sa.Column("id", Id(), nullable=False),
        sa.Column("model_id", Id(), nullable=False),
        sa.Column("alias", sa.String(40), nullable=False),
        sa.Column("outcome", sa.String(12), nullable=False),
        sa.Column("version_id", Id()),
        sa.Column("previous_id", Id()),
        sa.Column("job_id", Id()),
        sa.Column("who", sa.String(200), nullable=False),
        sa.Column("why", sa.Text()),
        sa.Column("verdict", JSON),
        sa.Column("at", TIME, nullable=False),
        *_keys("promotions", "model_id", "models"),
        *_keys("promotions", "version_id", "model_versions"),
        *_keys("promotions", "previous_id", "model_versions"),
        *_keys("promotions", "job_id", "jobs"),
        sa.PrimaryKeyConstraint("id", name="pk_promotions"),
    )
    op.create_index("ix_promotions_model_id_id", "promotions", ["model_id", "id"])
    op.create_index("ix_promotions_job_id", "promotions", ["job_id"])
    op.create_table(
        "withdrawals",
        sa.Column("id", Id(), nullable=False),
        sa.Column("dataset_id", Id(), nullable=False),
        sa.Column("digest", sa.String(16), nullable=False),
        sa.Column("who", sa.String(200), nullable=False),
        sa.Column("reason", sa.Text()),
        sa.Column("at", TIME, nullable=False),
        *_keys("withdrawals", "dataset_id", "datasets"),
        sa.PrimaryKeyConstraint("id", name="pk_withdrawals"),
    )
    op.create_index("ix_withdrawals_digest", "withdrawals", ["digest"])
    op.add_column("model_versions", sa.Column("card", JSON))
    op.add_column("jobs", sa.Column("after_id", Id()))
    op.add_column("jobs", sa.Column("wanted", sa.BigInteger()))
    where = sa.text("after_id IS NOT NULL")
    op.create_index(AFTER, "jobs", ["after_id"], sqlite_where=where, postgresql_where=where)
    op.add_column(
        "schedules",
        sa.Column("only_if_new_data", sa.Boolean(), nullable=False, server_default=FALSE),
    )
    op.add_column("schedules", sa.Column("new_data_wait_s", sa.Float()))


def downgrade() -> None:
    """Go back where nothing waits or was evaluated: an older schema could not say so."""
    for used in USED:
        if op.get_bind().execute(sa.text(f"SELECT 1 FROM {used} LIMIT 1")).first():  # noqa: S608 - constants
            raise NotImplementedError("restore the database from a backup to go back")
    op.drop_column("schedules", "new_data_wait_s")
    op.drop_column("schedules", "only_if_new_data")
    op.drop_index(AFTER, "jobs")
    op.drop_column("jobs", "wanted")
    op.drop_column("jobs", "after_id")
    op.drop_column("model_versions", "card")
    op.drop_table("withdrawals")
    op.drop_table("promotions")
    op.drop_table("judges")
    op.drop_table("evaluations")


def _keys(table: str, column: str, referred: str) -> list[sa.ForeignKeyConstraint]:
    name = f"fk_{table}_{column}_{referred}"
    return [sa.ForeignKeyConstraint([column], [f"{referred}.id"], name=name)]
