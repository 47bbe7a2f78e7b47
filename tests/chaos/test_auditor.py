"""The auditor finds nothing in a sound record, and each thing that was tampered with."""

import hashlib
import struct
from dataclasses import replace
from datetime import timedelta

import pytest
import redis
from sqlalchemy import text

from db import jobs, shards
from db.shards import NewArtifact, NewIndex
from tests.chaos.auditor import Auditor
from worker.broker.app import QUEUE, TASK, celery_app
from worker.files import canonical_json
from worker.services import Services
from worker.services.finalize import finalize, settle
from worker.settings import Settings

NOW = "(SELECT max(at) FROM transitions)"
THEN = "(SELECT min(at) FROM transitions)"
WON = "(SELECT id FROM shards WHERE status = 'succeeded' ORDER BY idx LIMIT 1)"
HELD = "(SELECT id FROM shards WHERE status = 'running')"
UNSETTLED = (
    "UPDATE jobs SET status = 'running' WHERE status = 'succeeded'",
    "UPDATE shards SET ended_at = '2020-01-01 00:00:00' WHERE status = 'succeeded'",
)
LEFT_ALONE = (
    "UPDATE shards SET not_before = '2020-01-01 00:00:00' WHERE status = 'queued'",
    "UPDATE attempts SET started_at = '2020-01-01 00:00:00'",
    "UPDATE shards SET started_at = '2020-01-01 00:00:00' WHERE started_at IS NOT NULL",
)
OTHER_INDEX = (
    "UPDATE artifacts SET index_data = "
    "(SELECT index_data FROM artifacts AS other WHERE other.id <> artifacts.id LIMIT 1)"
)
LOST = "(SELECT shard_id FROM attempts WHERE outcome = 'cancelled')"
GIVEN_BACK = "(SELECT shard_id FROM attempts WHERE outcome = 'released')"
LEFT_THE_END = (
    "INSERT INTO transitions (id, job_id, shard_id, at, old, new) SELECT id, job_id, id, ended_at, "
    f"'succeeded', 'queued' FROM shards WHERE id = {WON}"
)
EMPTY = hashlib.sha256(canonical_json({})).hexdigest()  # the digest of a spec
CALLED_OFF = "(SELECT id FROM jobs WHERE status = 'cancelled')"
DONE = "(SELECT id FROM jobs WHERE status = 'succeeded')"
OVERDUE = (
    f"UPDATE jobs SET after_id = {DONE} WHERE status = 'waiting'",
    f"UPDATE jobs SET finished_at = '2020-01-01 00:00:00' WHERE id = {DONE}",
)


class Scene:
    """A succeeded job, a cancelled one, a running one, one that waits for it, and an auditor."""

    def __init__(self, settings: Settings) -> None:
        self.services = Services(settings)
        self.run = self.services.database.transact
        self.auditor = Auditor(self.services, grace_s=60)
        done, called_off, held = (self.add() for _ in range(3))
        for shard in self.run(lambda s: jobs.shards_of(s, done)):
            self.commit(self.claim(shard.id))
        finalize(self.services, settle(self.services, [done]))
        self.claim(self.run(lambda s: jobs.shards_of(s, called_off))[0].id)
        self.run(lambda s: jobs.cancel(s, called_off))
        first = self.run(lambda s: jobs.shards_of(s, held))[0].id
        given_back = self.claim(first)
        self.run(lambda s: shards.release(s, given_back, "drained"))
        self.claim(first)
        self.add(ranges=[], after_id=held)

    def add(self, **words: object) -> str:
        how = {"spec": {}, "spec_hash": EMPTY, "kind": "generate", "model": "tiny"}
        how |= {"ranges": [(0, 2), (2, 4)]} | words
        return self.run(lambda s: jobs.add(s, **how)).id

    def claim(self, shard_id: str) -> shards.Claim:
        return self.run(lambda s: shards.claim(s, shard_id, owner="ann", lease_s=3600))

    def commit(self, claim: shards.Claim) -> None:
        data = bytes(range(claim.start, claim.stop))
        blob = self.services.store.put_bytes(f"jobs/{claim.job_id}/blobs", data)
        samples = range(claim.start, claim.stop)
        digests = [hashlib.sha256(bytes([n])).digest() for n in samples]
        entries = [struct.pack("<QI32s", n, 1, digest) for n, digest in enumerate(digests)]
        index = NewIndex(samples, "0" * 64, data=b"".join(entries))
        name = f"samples-{claim.idx}.tar"
        made = NewArtifact("samples", name, blob.key, blob.sha256, blob.size, "x/tar", index)
        self.run(lambda s: shards.commit(s, claim, [made]))

    def tamper(self, statement: str) -> None:
        self.run(lambda s: s.execute(text(statement)))


@pytest.fixture
def settings(tmp_path, database_url, broker_url) -> Settings:
    store = (tmp_path / "store").as_uri()
    places = {"database_url": database_url, "redis_url": broker_url, "store_url": store}
    return Settings(_env_file=None, home=tmp_path, lease_s=3600, **places)


@pytest.fixture
def scene(settings):
    made = Scene(settings)
    yield made
    made.services.close()


def test_a_sound_record_has_no_violations(scene) -> None:
    assert scene.auditor.audit() == []
    assert scene.auditor.audit() == []


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        (f"UPDATE shards SET start = 1, stop = 3 WHERE id = {WON}", "committed 2"),
        (f"UPDATE shards SET stop = 3 WHERE id = {WON}", "succeeded with 2"),
        ("UPDATE artifacts SET index_data = NULL", "succeeded with 0"),
        (OTHER_INDEX, "differs from its digest"),
        (f"UPDATE shards SET status = 'queued' WHERE id = {WON}", "is queued with 2 samples"),
        (f"UPDATE jobs SET status = 'running' WHERE id = {CALLED_OFF}", "transition says"),
        (f"UPDATE transitions SET old = 'failed' WHERE shard_id = {LOST}", "went failed ->"),
        (f"DELETE FROM transitions WHERE shard_id = {LOST}", "transition says unknown"),
        (f"UPDATE transitions SET at = {THEN} WHERE shard_id = {GIVEN_BACK}", "from unknown"),
        (LEFT_THE_END, "went succeeded -> queued"),
        (f"UPDATE shards SET started_at = {NOW} WHERE id = {WON}", "which it was at"),
        ("UPDATE jobs SET manifest_sha256 = NULL", "the manifest of job"),
        ("UPDATE artifacts SET name = 'other'", "does not list its artifacts"),
        (f"UPDATE artifacts SET job_id = {CALLED_OFF}, created_at = {NOW}", "had ended"),
        (f"UPDATE shards SET owner = NULL WHERE id = {HELD}", "is held by None"),
        (f"UPDATE shards SET owner = NULL WHERE id = {WON}", "is succeeded, with an attempt of"),
        (f"UPDATE shards SET ended_at = {NOW} WHERE id = {HELD}", "is running; it succeeded at"),
        (f"UPDATE shards SET ended_at = NULL WHERE id = {WON}", "still held"),
        (f"DELETE FROM attempts WHERE shard_id = {LOST}", "fence 1, 1 claims, attempts []"),
        (f"UPDATE attempts SET ended_at = '2999-01-01' WHERE shard_id = {LOST}", "beyond the end"),
        (f"UPDATE shards SET fence = 3 WHERE id = {HELD}", "fence 3, 2 claims"),
        (f"UPDATE shards SET claims = 20 WHERE id = {HELD}", "claimed beyond the limit"),
        (f"UPDATE shards SET failures = 1 WHERE id = {HELD}", "does not count"),
        (f"UPDATE shards SET lease_until = NULL WHERE id = {HELD}", "runs without a lease"),
        (LEFT_ALONE, "nobody has rung"),
        (UNSETTLED, "but its last shard succeeded at"),
        ("UPDATE shards SET urgency = 9", "is chosen by"),
        (OVERDUE, "still waits for job"),
        ("UPDATE jobs SET after_id = NULL", "waits for None"),
        ("UPDATE jobs SET status = 'waiting' WHERE status = 'running'", "with 2 shards"),
        (f"UPDATE jobs SET after_id = {CALLED_OFF} WHERE status = 'running'", "has begun"),
        (f"UPDATE shards SET waiting = true WHERE id = {HELD}", "waits to be due"),
        (f"UPDATE shards SET lease_until = '2999-01-01' WHERE id = {HELD}", "the database's"),
        ("UPDATE artifacts SET created_at = '2020-01-01 00:00:00'", "outside of any attempt"),
    ],
)
def test_a_tampered_row_is_found(scene, statement, says) -> None:
    for each in (statement,) if isinstance(statement, str) else statement:
        scene.tamper(each)
    assert any(says in line for line in scene.auditor.audit()), scene.auditor.audit()


@pytest.mark.parametrize(("data", "says"), [(None, "not in the store"), (b"no", "its digest on")])
def test_missing_or_changed_bytes_are_found(scene, data, says) -> None:
    for key in list(scene.services.store.keys("jobs")):
        if "/blobs/" in key:
            path = scene.services.store.root / key
            path.unlink() if data is None else path.write_bytes(data)
    assert any(says in line for line in scene.auditor.audit())


def test_final_states_and_fences_are_compared_with_the_last_audit(scene) -> None:
    assert scene.auditor.audit() == []
    scene.tamper("UPDATE shards SET status = 'failed', fence = 0 WHERE status <> 'queued'")
    found = " ".join(scene.auditor.audit())
    assert "was succeeded and is failed" in found
    assert "had fence 2 and has 0" in found


def test_doorbells_that_say_more_than_an_id_are_found(scene, settings) -> None:
    assert scene.auditor.audit() == []
    shard_id = next(iter(scene.auditor.before))
    celery_app(settings).send_task(TASK, args=[shard_id], queue=QUEUE)
    assert scene.auditor.audit() == []
    celery_app(settings).send_task(TASK, args=[shard_id, "and a spec"], queue=QUEUE)
    redis.Redis.from_url(settings.broker_client).lpush("genmill:genmill", b"garbage")
    assert ["more than an id" in line for line in scene.auditor.audit()] == [True]


def test_times_before_the_audit_began_are_found(scene) -> None:
    bounds = scene.auditor.bounds
    scene.auditor.bounds = replace(bounds, began=bounds.began + timedelta(days=1))
    assert any("cannot be the database's" in line for line in scene.auditor.audit())
