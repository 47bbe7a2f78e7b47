"""Upgrading a database that has rows in it: every row is kept, and means the same."""

import json

import pytest
from alembic import command
from sqlalchemy import delete, select, text, update

from db import datasets, evaluations, jobs, ledger, models, own_store, progress, schema, shards
from db.evaluations import NewEvaluation
from db.tables import Artifact, Job, LedgerLeaf, Model, ModelVersion
from scheduler.audit.ledger_checks import ledger_is_whole
from tests.publications import add_target
from tests.unit.db.old_revisions import AT, add_job, add_shard, insert, migrate, upgrade

A1, A2 = (f"0000000{n}-0000-7000-8000-000000000000" for n in (1, 2))


SUMMARY = {"counts": {"train": 9}, "labels": [], "size_bytes": 9}


@pytest.fixture
def database(unmigrated):
    return unmigrated


def test_jobs_and_shards_from_before_leases_touched_one_row_are_kept(database):
    migrate(database, "0001")
    insert(database, "batches", id="b", size=1, created_at=AT)
    add_job(database, A1, kind="generate", status="running", priority=3, batch_id="b")
    add_shard(database, "s1", A1, status="succeeded", fence=1, claims=1)
    back = {"idx": 1, "start": 4, "stop": 10, "fence": 2, "claims": 2, "releases": 2}
    add_shard(database, "s2", A1, **back)
    said = {"done": 5, "total": 9, "unit": "steps"}
    add_job(database, A2, kind="train", status="running", progress=json.dumps(said))
    lease = {"owner": "w", "lease_until": AT, "status": "running", "fence": 1, "claims": 1}
    add_shard(database, "s3", A2, stop=1, **lease)
    insert(database, "attempts", shard_id="s3", fence=1, worker="w", started_at=AT)
    insert(database, "transitions", id="x", job_id=A2, shard_id="s3", at=AT, new="running")
    upgrade(database)
    with database.write() as session:
        found = {job_id: jobs.get(session, job_id) for job_id in (A1, A2)}
        assert progress.of(session, list(found.values()))[A2] == said
        assert found[A1].samples == 10
        assert found[A2].samples is None
        [second] = shards.claim_due(session, owner="me", lease_s=60)
        assert (second.shard_id, second.fence, second.alone) == ("s2", 3, False)
        assert shards.reap(session) == ["s3"]
        shard = jobs.shards_of(session, A1)[1]
        assert (shard.group_id, shard.urgency, shard.work_key) == ("b", -3, None)
        of_shards = [step for step in jobs.transitions(session, A2) if step.shard_id]
        assert len(of_shards) == 2


def test_downgrading_from_leases_of_one_row_puts_the_old_tables_back(database):
    migrate(database, "0002")
    migrate(database, "0001", command.downgrade)
    add_job(database, "a1", kind="generate", status="queued")
    add_shard(database, "s", "a1")
    assert schema.current(database) == "0001"


def test_what_was_stored_before_packs_keeps_its_place(database):
    migrate(database, "0005")
    job = {"kind": "generate", "status": "succeeded", "manifest_key": "jobs/a/manifest.json"}
    insert(
        database, "jobs", id="a", spec="{}", spec_hash="0" * 64, priority=0, created_at=AT, **job
    )
    add_shard(database, "s", "a", status="succeeded", group_id="a", urgency=0)
    fixed = {"kind": "samples", "size": 9, "media_type": "application/x-tar", "created_at": AT}
    for name, key in (("own.tar", None), ("other.tar", "elsewhere")):
        row = {"id": name, "job_id": "a", "shard_id": "s", "sha256": "b" * 64, "name": name}
        insert(database, "artifacts", key=key, **row, **fixed)
    migrate(database, "head")
    with database.read() as session:
        found = session.scalars(select(Artifact).order_by(Artifact.name)).all()
        kept = session.execute(select(Job.manifest_key, Job.manifest_pack)).one()
    assert [each.key for each in found] == ["elsewhere", f"jobs/a/blobs/{'b' * 64}"]
    assert [each.packed for each in found] == [None, None]
    assert kept == ("jobs/a/manifest.json", None)
    with database.connect() as connection:
        connection.execute(text("UPDATE artifacts SET pack = 7, pack_offset = 3 WHERE key IS NULL"))
    with pytest.raises(NotImplementedError, match="restore the database from a backup"):
        migrate(database, "0005", command.downgrade)
    with database.connect() as connection:  # nothing was forgotten
        assert len(connection.execute(text("SELECT id FROM artifacts")).all()) == 2
        connection.execute(text("UPDATE artifacts SET pack = NULL, pack_offset = NULL"))
    migrate(database, "0005", command.downgrade)
    assert schema.current(database) == "0005"


@pytest.mark.parametrize("names_objects", [True, False])
def test_a_record_that_names_objects_knows_that_its_store_needs_a_sentinel(database, names_objects):
    migrate(database, "0009")
    if names_objects:
        insert(database, "datasets", id="d", name="digits", created_at=AT)
        version = {"id": "v", "dataset_id": "d", "number": 1, "kind": "image", "summary": "{}"}
        stored = {"manifest_key": "datasets/blobs/m", "manifest_sha256": "m", "created_at": AT}
        insert(database, "dataset_versions", **version, **stored)
    migrate(database, "head")
    with database.read() as session:
        known = own_store.expected(session)
    assert known is None if not names_objects else (known.made, known.had_objects) == (False, True)


def test_versions_from_before_formats_had_numbers_are_of_the_first(database):
    migrate(database, "0012")
    insert(database, "models", id="m", name="digits", family="gan", created_at=AT)
    plain = dict.fromkeys(("params", "files", "metrics"), "{}")
    version = {"id": "v", "model_id": "m", "number": 1, "weights_sha256": "0" * 64}
    insert(database, "model_versions", **version, **plain, created_at=AT)
    migrate(database, "head")
    with database.read() as session:
        [(model, found)] = models.newest(session, 9)
    assert (model.name, found.format, found.made_by) == ("digits", 1, None)
    migrate(database, "0012", command.downgrade)
    assert schema.current(database) == "0012"


def test_what_was_done_before_there_was_a_ledger_waits_for_a_place_in_it(database):
    migrate(database, "0016")
    one, two, three, four, five, six = (bytes.fromhex(f"{n:032x}") for n in range(1, 7))
    insert(database, "models", id=one, name="digits", family="gan", created_at=AT)
    entry = {"alias": "champion", "outcome": "promoted", "who": "ann", "verdict": '{"p": 1.0}'}
    insert(database, "promotions", id=two, model_id=one, at=AT, **entry)
    insert(database, "datasets", id=three, name="faces", created_at=AT)
    item = {"digest": "0" * 16, "who": "ann", "reason": "asked for"}
    insert(database, "withdrawals", id=four, dataset_id=three, at=AT, **item)
    for grave, kind in ((five, "job"), (six, "artifact")):
        rest = {"who": "ann", "at": AT, "size_bytes": 9, "kept": False}
        insert(database, "tombstones", id=grave, kind=kind, **rest)
    migrate(database, "0017")
    with database.write() as session:
        assert ledger.extend(session) == 3
    upgrade(database)
    with database.snapshot() as connection:
        assert list(ledger_is_whole(connection)) == []
    migrate(database, "0016", command.downgrade)
    assert schema.current(database) == "0016"


def test_models_from_before_there_were_marks_have_none(database):
    migrate(database, "0015")
    insert(database, "models", id="m", name="digits", family="gan", created_at=AT)
    migrate(database, "head")
    with database.read() as session:
        assert session.scalars(select(Model.marks)).all() == [None]
        assert session.scalars(select(Artifact.marks)).all() == []
    migrate(database, "0015", command.downgrade)
    assert schema.current(database) == "0015"


def test_models_and_datasets_from_before_they_were_in_the_ledger_wait_for_a_place_in_it(database):
    migrate(database, "0019")
    with database.write() as session:
        kept = {"manifest_key": "k", "manifest_sha256": "0" * 64, "summary": SUMMARY}
        data = datasets.add_version(session, name="faces", kind="image", **kept)
        made = {"params": {"lr": 1e-5}, "files": {}, "weights_sha256": "0" * 64, "metrics": {}}
        version = models.add_version(session, name="portraits", family="gan", **made)
        ids = {"version_id": version.id, "dataset_version_id": data.id}
        job = jobs.add(
            session,
            kind="evaluate",
            spec={},
            spec_hash="0" * 64,
            model="portraits",
            ranges=[(0, 1)],
        )
        items = {"items_key": "k", "items_sha256": "0" * 64, "protocol_sha256": "0" * 64}
        numbers = {"fid": {"value": 2.0}}
        made = NewEvaluation(**ids, job_id=job.id, protocol={"seed": 0}, numbers=numbers, **items)
        evaluations.add(session, made)
        add_target(session)
        session.execute(delete(LedgerLeaf))
    upgrade(database)
    with database.snapshot() as connection:
        assert list(ledger_is_whole(connection)) == []
    migrate(database, "0019", command.downgrade)
    upgrade(database)
    with database.write() as session:
        assert ledger.extend(session) == 6
        session.execute(update(ModelVersion).values(weights_sha256="1" * 64))
    with database.snapshot() as connection:
        [found] = ledger_is_whole(connection)
    assert str(found).startswith(f"model version {version.id} was changed since it was recorded")
    with pytest.raises(NotImplementedError, match="restore the database from a backup"):
        migrate(database, "0019", command.downgrade)
