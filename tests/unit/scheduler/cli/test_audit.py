"""`genmill doctor --audit` tells what is wrong in a sentence each, and makes again what it can."""

from datetime import timedelta

import pytest
from sqlalchemy import literal_column, select, text, update

from db import jobs, past_jobs, shards
from db.tables import Checkpoint, OwnStore, Shard, Worker
from scheduler.submission.enqueue import enqueue
from worker.specs import parse_spec

from .conftest import commit_together, make_samples

SPEC = {"kind": "generate", "model": "prose", "count": 4, "seed": 7}


@pytest.fixture(params=["sqlite_url", "postgresql_database_url"], ids=["sqlite", "postgresql"])
def database_url(request) -> str:
    return request.getfixturevalue(request.param)


@pytest.fixture
def alone(services, prose, tmp_path) -> str:
    """A job whose shards have objects of their own."""
    return make_samples(services, prose, 3, tmp_path)


@pytest.fixture
def packed(services, prose, tmp_path) -> list[str]:
    """Two jobs whose shards share a pack; one has an index behind its samples."""
    specs = [SPEC | {"count": count} for count in (9, 2)]
    made = [enqueue(services, parse_spec(spec)).id for spec in specs]
    commit_together(services, made, tmp_path)
    return made


def keys(services, prefix: str) -> list[str]:
    return list(services.store.keys(prefix))


def test_a_sound_home_has_no_violations(genmill, alone, packed):
    done = genmill("doctor", "--audit", "--json")
    assert (done.code, done.json) == (0, {"ok": True, "violations": []})
    assert genmill("doctor", "--audit").err == "no violation\n"


def test_a_record_that_has_used_no_store_yet_misses_none(genmill):
    assert genmill("db", "upgrade").code == 0
    assert genmill("doctor", "--audit").err == "no violation\n"


def test_each_violation_is_a_sentence_and_the_exit_code_is_one(genmill, alone, services):
    blob = keys(services, f"jobs/{alone}/blobs")[0]
    services.store.delete(blob)
    with services.database.write() as session:
        session.execute(text("UPDATE shards SET claims = 3 WHERE idx = 1"))
    done = genmill("doctor", "--audit")
    assert done.code == 1
    assert f"{blob} is on record but not in the store" in done.out
    assert "has fence 1, 3 claims" in done.out
    assert "violations found" in done.err


def test_a_row_that_cannot_be_read_is_named_and_hides_no_other(genmill, alone, packed, services):
    first, last = sorted([alone, *packed])[::2]
    with services.database.write() as session:
        damaged = update(Shard).where(Shard.job_id.in_([first, last]))
        session.execute(damaged.values(report=literal_column("'[1]'")))
        session.execute(update(Shard).values(claims=3))
        bad = session.execute(select(Shard.id, Shard.job_id).where(Shard.report.is_not(None))).all()
    done = genmill("doctor", "--audit")
    assert done.code == 1
    for shard_id, job_id in bad:
        assert f"shard {shard_id} of job {job_id} was not checked: the record holds" in done.out
    assert "has fence 1, 3 claims" in done.out
    assert f"job {first} is" not in done.out  # what is said of it would follow from what is missing
    with services.database.read() as session:  # what the jobs took is known all the same
        assert len(past_jobs.generations(session, "prose")) == 3


def test_repair_shows_what_it_would_do_and_does_nothing_unasked(genmill, alone, services):
    blob = keys(services, f"jobs/{alone}/blobs")[0]
    services.store.delete(blob)
    for words in (["--repair", "--dry-run"], ["--repair"]):
        done = genmill("doctor", "--audit", *words)
        assert (done.code, "run the shard of samples-" in done.err) == (1, True), done.err
    assert not services.store.has(blob)
    assert len(genmill("job", "list", "--json").json) == 1


def test_objects_deleted_by_hand_are_made_again_with_the_same_bytes(
    genmill, alone, services, worker
):
    before = keys(services, f"jobs/{alone}")
    for key in before:
        services.store.delete(key)
    done = genmill("doctor", "--audit", "--repair", "--yes")
    assert done.code == 0, done.err
    assert keys(services, f"jobs/{alone}") == before
    assert genmill("doctor", "--audit").code == 0
    assert genmill("artifact", "verify", alone).code == 0


@pytest.mark.parametrize("damage", ["lost", "cut", "overwritten"])
def test_a_pack_is_put_together_again(genmill, packed, services, worker, damage):
    [first, *_] = keys(services, "packs")
    path = services.store.root / first
    whole = path.read_bytes()
    if damage == "lost":
        path.unlink()
    else:
        path.write_bytes(whole[:100] if damage == "cut" else b"\0" * len(whole))
    done = genmill("doctor", "--audit", "--repair", "--yes")
    assert done.code == 0, done.err
    assert genmill("doctor", "--audit").code == 0
    for job in packed:
        assert genmill("artifact", "verify", job).code == 0


def test_other_bytes_are_not_stored(genmill, alone, services, worker, monkeypatch):
    blob = keys(services, f"jobs/{alone}/blobs")[0]
    services.store.delete(blob)
    monkeypatch.setattr("tests.unit.scheduler.cli.conftest.OTHER_WORDS", "other words {0}")
    done = genmill("doctor", "--audit", "--repair", "--yes")
    assert (done.code, "made other bytes" in done.err) == (1, True), done.err
    assert not services.store.has(blob)


def test_what_cannot_be_made_again_is_told(genmill, alone, services):
    lost = next(key for key in keys(services, "models/blobs"))
    services.store.delete(lost)
    done = genmill("doctor", "--audit", "--repair", "--yes")
    assert (done.code, "cannot be repaired" in done.err) == (1, True), done.err


def test_a_lost_checkpoint_is_marked_as_bad(genmill, services, prose):
    job = enqueue(services, parse_spec(SPEC))
    with services.database.write() as session:
        [shard] = jobs.shards_of(session, job.id)
        claim = shards.claim(session, shard.id, owner="0" * 36, lease_s=60)
        lost = {"key": f"jobs/{job.id}/blobs/{'0' * 64}", "sha256": "0" * 64, "size": 3}
        shards.add_checkpoint(session, claim, step=5, **lost)
    assert genmill("doctor", "--audit", "--repair", "--yes").code == 0
    with services.database.read() as session:
        assert session.get(Checkpoint, (shard.id, 5)).bad


def test_an_emptied_store_is_one_violation_and_only_its_sentinel_is_made(genmill, alone, services):
    for path in [*services.store.root.iterdir()]:
        path.rename(services.settings.home / f"lost-{path.name}")
    done = genmill("doctor", "--audit")
    assert (done.code, done.out.count("\n")) == (1, 1)
    assert "nothing else in it was checked" in done.out
    assert genmill("doctor", "--audit", "--repair", "--yes").code == 0
    with services.database.read() as session:
        assert services.store.read_sentinel() == session.get(OwnStore, 1).id


def test_waiting_is_no_fault_while_no_worker_is_live(genmill, services, prose):
    enqueue(services, parse_spec(SPEC))
    with services.database.write() as session:
        session.execute(text("UPDATE shards SET not_before = '2020-01-01 00:00:00'"))
    assert genmill("doctor", "--audit").code == 0
    with services.database.write() as session:
        now = jobs.clock(session)
        times = {"started_at": now - timedelta(days=1), "heartbeat_at": now}
        session.add(Worker(boot_id="w", host="h", pid=1, device="cpu", **times))
    done = genmill("doctor", "--audit")
    assert (done.code, "1 shards wait, and nobody has rung" in done.out) == (1, True)


def test_history_that_retention_deleted_is_not_missed(genmill, alone, services, monkeypatch):
    with services.database.write() as session:
        for table, column in (("jobs", "finished_at"), ("shards", "ended_at")):
            session.execute(text(f"UPDATE {table} SET {column} = '2021-01-02 00:00:00'"))
    monkeypatch.setenv("GENMILL_KEEP_HISTORY_DAYS", "1")
    assert genmill("db", "prune").code == 0
    found = genmill("doctor", "--audit").out
    assert "transition" not in found
    assert "claims" not in found


@pytest.mark.parametrize(
    "words",
    [
        ["--repair"],
        ["--audit", "--check", "store"],
        ["--audit", "--yes"],
        ["--audit", "--repair", "--yes", "--dry-run"],
    ],
    ids=" ".join,
)
def test_options_that_do_not_go_together_are_wrong_usage(genmill, words):
    assert genmill("doctor", *words).code == 2
