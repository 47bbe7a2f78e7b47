"""The audit finds whatever is changed of a row that the ledger or a manifest tells of."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import (
    Boolean,
    PrimaryKeyConstraint,
    UniqueConstraint,
    delete,
    insert,
    select,
    text,
    update,
)

from db import datasets, ledger, models
from db.columns import Digest, Id, Json, UtcDateTime, new_id
from db.leaves import PUBLICATION, SOURCES
from db.session import clock
from db.tables import Alias, Artifact, Base, Evaluation, ModelVersion, Promotion, Publication, Shard
from scheduler.audit.alias_checks import aliases_are_as_told
from scheduler.audit.auditor import Auditor, usual_bounds
from scheduler.audit.byte_checks import Objects
from scheduler.audit.leaf_checks import rows_are_as_told
from scheduler.audit.ledger_checks import ledger_is_whole
from scheduler.audit.manifest_checks import COLUMNS, manifests_match
from scheduler.audit.reference_checks import references_lead_somewhere
from scheduler.submission.enqueue import enqueue
from tests.evaluations import add_evaluation, images
from tests.publications import add_target, publish
from worker.services.ledger import write_ledger
from worker.specs import parse_spec

from .conftest import commit_together, make_samples

NOT_TOLD = {  # of what is in the ledger, the columns that no leaf repeats
    "tombstones": {"size_bytes", "kept", "sweep_at"},
    "publications": {"event_id", "by_job_id", "fence"},
    "keys": {"wrapped"},  # `genmill doctor` opens it
    "targets": {"next_at"},
    "models": {"created_at"},
    "model_versions": {"shape"},  # older versions get it later
    "datasets": {"created_at"},
}


@pytest.fixture
def database_url(sqlite_url) -> str:
    """What changes rows below defers SQLite's foreign keys."""
    return sqlite_url


@pytest.fixture
def record(genmill, services, family_tree, prose, picture_job, tmp_path) -> str:
    """A row of each kind that is in the ledger; the id of a job of pictures."""
    add_evaluation(services, "digits:2", images(1), dataset="pictures")
    for version in ("digits:2", "digits:3"):
        assert genmill("model", "alias", version, "--as", "champion").code == 0
    assert genmill("key", "create", "watermark").code == 0
    removed = make_samples(services, prose, 1, tmp_path)
    assert genmill("job", "remove", removed, "--yes").code == 0
    with services.database.write() as session:
        publish(session, add_target(session), job_id=picture_job, samples=[0])
        ledger.enter(session, PUBLICATION, session.scalars(select(Publication)).one())
        data, version = datasets.resolve(session, "pictures")
        barred = {"digests": ["0" * 16], "versions": [version.id]}
        datasets.withdraw(session, dataset=data, **barred, who="ann", reason=None)
        ledger.enter_manifests(session, [picture_job])
    write_ledger(services)
    return picture_job


@contextmanager
def changing(services) -> Iterator:
    """A transaction that changes what it likes, and is rolled back."""
    with services.database.write() as session:
        session.execute(text("PRAGMA defer_foreign_keys = ON"))
        yield session
        session.rollback()


def found(session) -> list[str]:
    checks = (rows_are_as_told, aliases_are_as_told)  # those of the tree read no such rows
    return [str(each) for check in checks for each in check(session.connection())]


def another(column, value):
    """Another value that a column may hold."""
    kind = column.type
    if isinstance(kind, Json):
        return {**(value or {}), "other": {"key": "k", "sha256": "f" * 64, "size": 1}}
    if isinstance(kind, UtcDateTime):
        return datetime(2020, 1, 1, tzinfo=UTC)
    if isinstance(kind, Boolean):
        return not value
    if isinstance(kind, Digest | Id):
        return "f" * 64 if isinstance(kind, Digest) else new_id()
    return (value or 0) + 1000 if kind.python_type in {int, float} else "another"


def test_any_field_that_a_leaf_repeats(services, record):
    with changing(services) as session:
        assert found(session) == []
    for kind, source in SOURCES.items():
        table = Base.metadata.tables[source.table]
        for name in (*source.fields, *source.later):
            with changing(services) as session:
                told = table.c.id.in_(subjects(session, kind))
                row = session.execute(select(table).where(told).limit(1)).mappings().one()
                new = another(table.c[name], row[name])
                session.execute(update(table).where(table.c.id == row["id"]).values({name: new}))
                start = f"{kind} {row['id']} was changed since it was recorded: {name} was "
                assert any(each.startswith(start) for each in found(session)), (name, kind)


def subjects(session, kind):
    leaves = Base.metadata.tables["ledger_leaves"]
    return session.scalars(select(leaves.c.subject).where(leaves.c.kind == kind)).all()


def unique_keys(table) -> Iterator[list[str]]:
    """The columns of each key of a table that no two rows share."""
    for each in table.constraints:
        if isinstance(each, UniqueConstraint | PrimaryKeyConstraint):
            yield each.columns.keys()
    yield from (each.columns.keys() for each in table.indexes if each.unique)


def test_a_row_that_was_deleted_or_made(services, record):
    for kind, source in SOURCES.items():
        table = Base.metadata.tables[source.table]
        with changing(services) as session:
            told = table.c.id.in_(subjects(session, kind))
            row = session.execute(select(table).where(told).limit(1)).mappings().one()
            session.execute(delete(table).where(table.c.id == row["id"]))
            assert f"{kind} {row['id']} is in the ledger, and its row is gone" in found(session)
            unique = {name for each in unique_keys(table) for name in each}
            other = {name: another(table.c[name], row[name]) for name in unique & row.keys()}
            session.execute(insert(table).values({**row, **other}))
            if source.table != "jobs":  # one is entered later
                assert f"{kind} {other['id']} is on record, and not in the ledger" in found(session)


@pytest.mark.parametrize("source", SOURCES.values(), ids=lambda source: source.table)
def test_each_column_is_told_or_known_not_to_be(source):
    columns = set(Base.metadata.tables[source.table].columns.keys()) - {"id"}
    if source.table != "jobs":  # of which manifests tell
        assert columns - {*source.fields, *source.later} == NOT_TOLD.get(source.table, set())


def test_a_leaf_from_before_a_field_was_told_is_compared_without_it(services, record):
    source = SOURCES[PUBLICATION]
    with changing(services) as session:
        row = session.scalars(select(Publication)).one()
        before = {name: getattr(row, name) for name in source.fields}
        ledger.append(session, PUBLICATION, row.id, before)
        assert found(session) == []
        row.size += 1
        session.flush()
        assert found(session) == []
        row.sha256 = "0" * 64
        session.flush()
        assert len(found(session)) == 1


def test_an_alias_that_was_moved_made_or_deleted(services, record):
    with services.database.read() as session:
        model, version = models.resolve(session, "digits:2")
        champion = models.resolve(session, "digits@champion")[1].id
    here = f"alias champion of model {model.id} names"
    changes = {
        f"{here} {version.id}, and by its history {champion}": update(Alias).values(
            version_id=version.id
        ),
        f"{here} no version, and by its history {champion}": delete(Alias),
        f"alias stable of model {model.id} names {version.id}, and by its history no version": (
            insert(Alias).values(model_id=model.id, alias="stable", version_id=version.id)
        ),
    }
    for told, change in changes.items():
        with changing(services) as session:
            session.execute(change)
            assert found(session) == [told]


def test_an_alias_that_was_moved_after_the_clock_was_set_back_is_no_change(
    genmill, services, record
):
    ahead = timedelta(days=1)
    with services.database.write() as session:
        for entry in session.scalars(select(Promotion)):
            entry.at += ahead
    for version in ("digits:2", "digits:3", "digits:1"):
        assert genmill("model", "alias", version, "--as", "champion").code == 0
    with services.database.snapshot() as connection:
        assert list(aliases_are_as_told(connection)) == []


def test_one_more_leaf_does_not_cover_up_other_weights_or_numbers(services, record):
    with changing(services) as session:
        version = session.scalars(select(ModelVersion).limit(1)).one()
        version.weights_sha256 = "0" * 64
        measured = session.scalars(select(Evaluation)).one()
        measured.numbers = {"fid": {"value": 0.1}}
        session.flush()
        ledger.enter(session, "model version", version)
        ledger.enter(session, "evaluation", measured)
        told = " ".join(found(session))
        assert told.count("a later leaf takes back what the ledger tells of") == 2


def test_what_is_removed_or_hidden_by_commands_is_no_change(genmill, services, record):
    for line in (
        "model alias digits@champion --remove",
        "model remove copy --yes",
        "model remove digits:3 --yes --keep-artifacts",
        "model remove digits:2 --yes",
        "model marks digits none",
        "target remove site --abandon",
    ):
        done = genmill(*line.split())
        assert done.code == 0, done.err
        with services.database.snapshot() as connection:
            assert list(ledger_is_whole(connection)) == []


def test_any_row_that_names_what_is_not_on_record(services, record):
    gone, seen = new_id(), set()
    for table in Base.metadata.sorted_tables:
        for key in table.foreign_keys:
            column, identity = key.parent, next(iter(table.primary_key))
            with changing(services) as session:
                if (row := session.execute(select(table).limit(1)).mappings().first()) is None:
                    continue
                mine = identity == row[identity.name]
                session.execute(update(table).where(mine).values({column.name: gone}))
                told = [str(each) for each in references_lead_somewhere(session.connection())]
            what = f" of {table} names {column.name} {gone}, which is not in {key.column.table}"
            assert any(each.startswith("row ") and each.endswith(what) for each in told), told
            seen.add(table.name)
    assert seen >= {"aliases", "artifacts", "jobs", "model_versions", "publications", "shards"}


def test_a_shard_of_no_job_does_not_end_the_audit(services, record):
    with services.database.write() as session:
        session.execute(text("PRAGMA defer_foreign_keys = ON"))
        shard = session.scalars(select(Shard).limit(1)).one()
        shard.job_id = new_id()
        session.flush()
        found = Auditor(services).check_record(session.connection(), *bounds(services, session))
        assert f"row {shard.id} of shards names job_id {shard.job_id}, which is not in jobs" in [
            str(each) for each in found
        ]
        session.rollback()


def bounds(services, session):
    now = clock(session)
    return now, usual_bounds(services, session.connection(), now)


def test_any_column_of_an_artifact(services, record):
    told = f"the manifest of job {record} does not list its artifacts"
    for name in sorted({*COLUMNS} - {"pack_offset"}):
        assert told in changed(services, record, Artifact, name), name


def test_the_place_of_an_artifact_in_a_pack_and_the_range_of_a_shard(services, digits, tmp_path):
    spec = parse_spec({"kind": "generate", "model": digits, "count": 3, "seed": 0})
    job = enqueue(services, spec).id
    commit_together(services, [job], tmp_path)
    told = [f"the manifest of job {job} does not list its artifacts"]
    assert changed(services, job, Artifact, "pack_offset") == told
    for name in ("idx", "stop"):
        assert changed(services, job, Shard, name) == told


def changed(services, job, table, name) -> list[str]:
    """What the audit of the manifests tells after a column of a job's first row was changed."""
    with changing(services) as session:
        rows = select(table).select_from(Artifact).join(Shard, Shard.id == Artifact.shard_id)
        row = session.scalars(rows.where(Shard.job_id == job).order_by(table.id).limit(1)).one()
        column = table.__table__.c[name]
        new = another(column, getattr(row, "other_key" if name == "key" else name))
        session.execute(update(table.__table__).where(table.id == row.id).values({name: new}))
        connection = session.connection()
        found = manifests_match(lambda: nullcontext(connection), Objects(services.store))
        return [str(each) for each in found]
