"""Finishing jobs beside the next claim's work."""

import pytest

from db import jobs
from tests.faults import ERRORS, name_of
from tests.shards import add_job, claim, commit
from worker.services import finalize
from worker.shards.finishing import Finisher


def committed(services, **how):
    held = claim(services, add_job(services, **how))
    commit(services, held)
    return held


def test_jobs_whose_last_shards_were_committed_succeed(services) -> None:
    alone = [committed(services) for _ in range(3)]
    with Finisher(services) as finisher:
        finisher.finish(alone[:2])
        finisher.finish(alone[2:])
    with services.database.read() as session:
        assert jobs.counts(session)["succeeded"] == 3


def test_a_job_with_shards_left_goes_on(services) -> None:
    held = committed(services, count=2)
    with Finisher(services) as finisher:
        finisher.finish([held])
    with services.database.read() as session:
        assert jobs.get(session, held.job_id).status == "running"


def test_a_folder_in_the_place_of_a_manifest_does_not_hold_up_its_job(services, tmp_path) -> None:
    held = committed(services)
    (tmp_path / "store" / "jobs" / held.job_id / "manifest.json").mkdir()
    with Finisher(services) as finisher:
        finisher.finish([held])
    with services.database.read() as session:
        assert jobs.get(session, held.job_id).status == "succeeded"


@pytest.mark.parametrize("error", ERRORS, ids=name_of)
def test_trouble_is_left_to_the_scheduler(services, monkeypatch, error) -> None:
    def fail(_):
        raise error

    held = committed(services)
    monkeypatch.setattr(finalize, "canonical_json", fail)
    with Finisher(services) as finisher:
        finisher.finish([held])
        finisher.finish([])
    with services.database.read() as session:
        assert jobs.get(session, held.job_id).status == "finalizing"
