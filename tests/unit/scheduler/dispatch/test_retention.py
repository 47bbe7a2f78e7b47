"""The scheduler deletes old data of finished jobs as the settings say, a little each round."""

from datetime import timedelta

from db import jobs
from db.session import clock
from db.tables import Job
from scheduler.dispatch import retention
from scheduler.dispatch.rounds import run_round
from worker.services import Services

DAYS = {"history": 90, "logs": 90, "curves": 365, "previews": 365}


def cancelled(services: Services, *, days_ago: float) -> str:
    def add(session) -> str:
        job = jobs.add(
            session, spec={}, spec_hash="a" * 64, kind="train", model=None, ranges=[(0, 1)]
        )
        jobs.log(session, job.id, "a line")
        jobs.cancel(session, job.id)
        session.flush()
        found = session.get(Job, job.id, populate_existing=True)
        found.finished_at = clock(session) - timedelta(days=days_ago)
        return job.id

    return services.database.transact(add)


def lines(services: Services, job_id: str) -> int:
    with services.database.read() as session:
        return len(jobs.log_lines(session, job_id))


def test_the_settings_say_what_is_kept_and_artifacts_are_kept_for_ever(services):
    kept = retention.keep_times(services)
    assert {what: keep.days for what, keep in kept.items()} == DAYS


def test_a_round_deletes_what_is_older(services):
    old, young = cancelled(services, days_ago=91), cancelled(services, days_ago=89)
    assert run_round(services).deleted > 0
    assert (lines(services, old), lines(services, young)) == (0, 1)
    assert run_round(services).deleted == 0


def test_a_round_takes_a_bounded_time(services):
    cancelled(services, days_ago=91)
    assert retention.apply_retention(services, within_s=0) == 0


def test_pruning_deletes_what_a_dry_run_counts(services):
    job_id = cancelled(services, days_ago=91)
    keep = retention.keep_times(services)
    counted = retention.prunable(services, keep)
    assert counted["logs"] == {"log_lines": 1}
    assert lines(services, job_id) == 1
    deleted = retention.prune(services, keep)
    assert {what: rows for what, rows in deleted.items() if rows} == counted
    assert lines(services, job_id) == 0
