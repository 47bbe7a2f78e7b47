"""A backup is taken while things run, and brings everything back: on both databases and stores."""

import json
import os
import resource
import shutil
import signal
from pathlib import Path

import pytest
from sqlalchemy import create_engine, make_url, text

from db import artifacts, copies, jobs, shards
from db.states import ShardState
from db.tables import Artifact, Base
from scheduler.audit.auditor import Auditor
from scheduler.submission.enqueue import enqueue
from worker.identity import who
from worker.services import open_services
from worker.specs import parse_spec

from .conftest import commit_job, commit_together, make_samples

SPEC = {"kind": "generate", "model": "prose", "count": 4, "seed": 7}


@pytest.fixture(params=["sqlite_url", "postgresql_database_url"], ids=["sqlite", "postgresql"])
def database_url(request) -> str:
    return request.getfixturevalue(request.param)


@pytest.fixture
def store(request, database_url, home, monkeypatch):
    """A folder with SQLite, a bucket with PostgreSQL."""
    if not database_url.startswith("sqlite"):
        s3 = request.getfixturevalue("s3")
        monkeypatch.setenv("GENMILL_STORE_URL", s3.url)
        monkeypatch.setenv("GENMILL_S3_ENDPOINT_URL", s3.endpoint_url)
        return "s3"
    return "folder"


@pytest.fixture
def busy(store, services, prose, tmp_path) -> dict[str, str]:
    """A job of its own objects, two in a pack, one of which a shard runs, and one that waits."""
    alone = make_samples(services, prose, 3, tmp_path)
    packed = [enqueue(services, parse_spec(SPEC | {"seed": n})).id for n in range(2)]
    commit_together(services, packed, tmp_path)
    running, queued = (enqueue(services, parse_spec(SPEC), shard_size=2).id for _ in range(2))
    with services.database.write() as session:
        first = jobs.shards_of(session, running)[0]
        assert shards.claim(session, first.id, owner="0" * 36, lease_s=3600)
    return {"alone": alone, "packed": packed[0], "running": running, "queued": queued}


@pytest.fixture
def wipe(services, database_url, monkeypatch, tmp_path):
    """Lose everything: another home, an empty database, an empty store."""

    def lose(*, objects: bool = True) -> None:
        if objects and services.settings.store_url:
            for key in [*services.store.listed("jobs"), *services.store.listed("packs")]:
                services.store.delete(key)
            for key in [*services.store.listed("models"), "store-id"]:
                services.store.delete(key)
        services.close()
        if database_url.startswith("postgresql"):
            url = make_url(database_url).set(drivername="postgresql+psycopg")
            engine = create_engine(url, isolation_level="AUTOCOMMIT")
            with engine.connect() as connection:
                for table in reversed(Base.metadata.sorted_tables):
                    connection.execute(text(f"DELETE FROM {table.name}"))
                connection.execute(text("DELETE FROM job_counts"))
            engine.dispose()
        else:
            shutil.rmtree(services.settings.home)
        monkeypatch.setenv("GENMILL_HOME", str(tmp_path / "new home"))

    return lose


def audit() -> list[str]:
    services = open_services()
    try:
        return [str(each) for each in Auditor(services).violations()]
    finally:
        services.close()


def test_everything_comes_back_and_goes_on(genmill, busy, wipe, tmp_path):
    made = genmill("backup", "copy", "--objects", "copy", "--json")
    assert made.code == 0, made.err
    assert made.json["problems"] == []
    wipe()
    restored = genmill("restore", "copy", "--json")
    assert restored.code == 0, restored.err
    assert (restored.json["released"], restored.json["stored"]) == (1, made.json["count"] - 1)
    assert audit() == []
    [entry] = genmill("audit", "--action", "restored", "--json").json
    assert (entry["subject"], entry["who"]) == ("record", who())
    assert entry["detail"]["released"] == 1
    assert entry["detail"]["backup"] == json.loads(Path("copy/backup.json").read_text())["made_at"]
    for job in (busy["alone"], busy["packed"]):
        assert genmill("artifact", "verify", job).code == 0
    states = {job["id"]: job["status"] for job in genmill("job", "list", "--json").json}
    assert {states[busy[name]] for name in ("alone", "packed")} == {"succeeded"}
    services = open_services()
    with services.database.write() as session:
        for shard in jobs.shards_of(session, busy["running"]):
            assert (shard.status, shard.failures) == (ShardState.QUEUED, 0)
            claim = shards.claim(session, shard.id, owner="1" * 36, lease_s=60)
            assert claim.fence == 1 + shard.releases
    services.close()


def test_jobs_that_ended_after_the_backup_are_done_again_into_the_same_store(
    genmill, busy, services, wipe, store, tmp_path
):
    if store == "folder":
        pytest.skip("the store goes with its home")
    assert genmill("backup", "copy").code == 0
    commit_job(services, busy["queued"], tmp_path)
    wipe(objects=False)
    restored = genmill("restore", "copy", "--json")
    assert (restored.code, restored.json["stored"]) == (0, 0), restored.err
    again = open_services()
    commit_job(again, busy["queued"], tmp_path)
    again.close()
    assert audit() == []


def test_what_has_changed_in_a_backup_is_not_restored(genmill, busy, wipe, tmp_path):
    assert genmill("backup", "copy", "--objects", "copy").code == 0
    wipe()
    damaged = next(path for path in (tmp_path / "copy/objects/jobs").rglob("*") if path.is_file())
    damaged.write_bytes(b"other bytes")
    refused = genmill("restore", "copy")
    assert (refused.code, "has changed since" in refused.err) == (1, True), refused.err
    assert genmill("job", "list", "--json").json == []
    (tmp_path / "copy/record.db").write_bytes(b"no record")
    refused = genmill("restore", "copy")
    assert (refused.code, "record.db has changed" in refused.err) == (1, True), refused.err


def test_only_an_empty_record_is_restored_into_and_only_a_backup(genmill, busy, tmp_path):
    assert genmill("backup", "copy").code == 0
    again = genmill("backup", "copy")
    assert (again.code, "exists already" in again.err) == (2, True)
    refused = genmill("restore", "copy")
    assert (refused.code, "not empty" in refused.err) == (2, True)
    nothing = genmill("restore", str(tmp_path))
    assert (nothing.code, "is not a backup" in nothing.err) == (4, True)


def test_a_backup_of_a_damaged_store_says_what_is_missing(genmill, busy, services):
    lost = next(services.store.keys(f"jobs/{busy['alone']}/blobs"))
    services.store.delete(lost)
    made = genmill("backup", "copy", "--objects", "copy")
    assert (made.code, lost in made.err) == (1, True)
    assert Path("copy/backup.json").exists()


@pytest.mark.parametrize("name", ["backup.json", "record.db", "objects.jsonl"])
def test_a_pipe_in_a_backup_is_not_waited_for(genmill, tmp_path, monkeypatch, name):
    assert genmill("db", "upgrade").code == 0
    assert genmill("backup", "copy", "--objects", "list").code == 0
    Path("copy", name).unlink()
    os.mkfifo(Path("copy", name))
    monkeypatch.setenv("GENMILL_HOME", str(tmp_path / "other"))
    told = genmill("restore", "copy")
    assert (told.code, f"copy/{name} is not a file; give a file" in told.err) == (2, True)


def test_an_interrupted_backup_has_another_name_and_is_resumed(genmill, busy, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("scheduler.recovery.backup._describe", interrupt)
        assert genmill("backup", "copy", "--objects", "copy").code == 130
    assert not Path("copy").exists()
    kept = {path: path.stat().st_mtime_ns for path in Path("copy.partial/objects").rglob("*")}
    assert genmill("backup", "copy", "--objects", "copy").code == 0
    assert not Path("copy.partial").exists()
    for path, at in kept.items():
        if path.is_file():
            assert Path("copy", path.relative_to("copy.partial")).stat().st_mtime_ns == at


@pytest.fixture
def small_files():
    """No file may grow over 100 KB, as on a disk that is nearly full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))

    def lift() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

    yield limit, lift
    lift()
    signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_is_told_and_the_backup_resumed(genmill, busy, small_files):
    fill, free = small_files
    fill()
    full = genmill("backup", "copy")
    free()
    assert (full.code, full.err.count("\n")) == (3, 1), full.err
    assert not Path("copy").exists()
    assert genmill("backup", "copy").code == 0


def test_what_retention_deletes_meanwhile_is_not_missed(genmill, busy, services, monkeypatch):
    with services.database.read() as session:
        [first, *_] = artifacts.of_job(session, busy["alone"])
    save = copies.save

    def save_and_delete(*words, **options):
        save(*words, **options)
        with services.database.write() as session:
            session.get(Artifact, first.id).removed_at = first.created_at
        services.store.delete(first.key)

    monkeypatch.setattr(copies, "save", save_and_delete)
    made = genmill("backup", "copy", "--objects", "copy", "--json")
    assert (made.code, made.json["problems"]) == (0, []), made.err


def test_a_listed_backup_needs_the_same_objects(genmill, busy, services, wipe, store):
    made = genmill("backup", "copy", "--objects", "list", "--json")
    assert made.code == 0
    assert not Path("copy/objects").exists()
    listed = [json.loads(line) for line in Path("copy/objects.jsonl").read_text().splitlines()]
    assert {each["key"] for each in listed} >= {"store-id"}
    if store == "s3":
        lost = next(services.store.keys(f"jobs/{busy['alone']}/blobs"))
        services.store.delete(lost)
        wipe(objects=False)
        refused = genmill("restore", "copy")
        assert (refused.code, f"{lost} is missing" in refused.err) == (1, True), refused.err
