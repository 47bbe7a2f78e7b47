"""Finishing jobs: none waits for ever, and none holds up another."""

import time

import pytest

from db import jobs
from db.errors import Refused, Unreachable
from tests.shards import add_job, claim, commit
from worker.services import Services, finalize
from worker.services.finalize import finalize_due, read_manifest
from worker.settings import Settings


@pytest.fixture
def services(tmp_path, database_url):
    hasty = {"loop_s": 0.01}  # the first pause after a failure
    opened = Services(Settings(_env_file=None, home=tmp_path, database_url=database_url, **hasty))
    yield opened
    opened.close()


def committed(services):
    """The id of a job whose last shard a worker has committed just now."""
    held = claim(services, add_job(services))
    commit(services, held)
    return held.job_id


def job(services, job_id):
    with services.database.read() as session:
        return jobs.get(session, job_id)


def test_a_manifest_s_key_that_holds_other_bytes_does_not_hold_up_its_job(services):
    job_id = committed(services)
    services.store.put_as(f"jobs/{job_id}/manifest.json", b"of the run before the restore")
    assert finalize_due(services) == 1
    done = job(services, job_id)
    assert done.status == "succeeded"
    assert job_id.encode() in read_manifest(services, done)
    assert finalize_due(services) == 0


@pytest.mark.parametrize("spoilt", [0, 1, 3])
def test_a_job_that_cannot_be_finished_fails_with_the_reason_and_the_others_succeed(
    services, monkeypatch, spoilt
):
    made = [committed(services) for _ in range(4)]
    spoil(monkeypatch, made[spoilt], Refused("a manifest that cannot be"))
    assert finalize_due(services) == 3
    wrong = made.pop(spoilt)
    assert {job(services, each).status for each in made} == {"succeeded"}
    assert job(services, wrong).status == "failed"
    assert job(services, wrong).error == "cannot be finished: a manifest that cannot be"


def test_what_nobody_thought_of_is_tried_again_and_holds_up_no_other(services, monkeypatch, caplog):
    first, second = committed(services), committed(services)
    with monkeypatch.context() as patch:
        spoil(patch, first, KeyError("odd"))
        assert finalize_due(services) == 1
    assert job(services, second).status == "succeeded"
    assert job(services, first).status == "finalizing"
    assert f"finishing jobs failed for {first}" in caplog.text
    time.sleep(0.05)
    assert finalize_due(services) == 1


def test_a_store_that_is_away_fails_no_job(services, monkeypatch):
    made = [committed(services) for _ in range(2)]
    with monkeypatch.context() as patch:
        spoil(patch, made[0], Unreachable("away"))
        assert finalize_due(services) == 1
    time.sleep(0.05)
    assert finalize_due(services) == 1
    assert {job(services, each).status for each in made} == {"succeeded"}


def spoil(patch, job_id, error):
    """Make the manifest of a job raise."""
    encode = finalize.canonical_json

    def encode_others(manifest):
        if manifest["job"] == job_id:
            raise error
        return encode(manifest)

    patch.setattr(finalize, "canonical_json", encode_others)
