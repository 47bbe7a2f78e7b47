"""One item of a loop that fails, in whatever way, never stops the others, nor what follows."""

import time
from contextlib import closing
from datetime import timedelta

import pytest
import redis
from sqlalchemy import text, update

from db import batches, chains, jobs, reaping, retention, setbacks
from db.causes import is_outage
from db.session import clock
from db.tables import Job
from scheduler.dispatch import chains as moving
from scheduler.dispatch import garbage, rounds
from scheduler.dispatch.garbage import collect_batches, collect_jobs, collect_prompts
from scheduler.dispatch.retention import apply_retention
from scheduler.dispatch.rounds import reap, run_round
from tests.faults import ERRORS, failing_for, name_of
from tests.shards import add_job, claim, commit, read
from worker.broker import doorbell
from worker.services import Services, finalize
from worker.services.finalize import finalize_due
from worker.services.prompts import PREFIX

every_error = pytest.mark.parametrize("error", ERRORS, ids=name_of)


@pytest.fixture
def services(services):
    """The same services, in a hurry."""
    with closing(Services(services.settings.model_copy(update={"loop_s": 0.01}))) as quick:
        yield quick


def run(services, step, *arguments, **options):
    return services.database.transact(lambda session: step(session, *arguments, **options))


def setback_of(services, item):
    """What is on record of an item that failed."""
    found = {each.item: each for each in run(services, setbacks.lasting, longer_than_s=-1)}
    return found.get(item)


def committed(services):
    """A job whose last shard a worker has committed just now."""
    job = add_job(services)
    commit(services, claim(services, job))
    return job


def ended(services, *, days_ago=0):
    """A job that has ended."""
    job = add_job(services)
    run(services, jobs.log, job.id, "a line")
    run(services, jobs.cancel, job.id)
    run(services, make_older, job.id, days_ago)
    return job.id


def make_older(session, job_id, days):
    finished_at = clock(session) - timedelta(days=days)
    session.execute(update(Job).where(Job.id == job_id).values(finished_at=finished_at))


def lines(services, job_id):
    return [line.message for line in run(services, jobs.log_lines, job_id)]


def wait_for_pause():
    time.sleep(0.05)


@every_error
def test_a_step_that_fails_stops_no_other(services, monkeypatch, error) -> None:
    job = add_job(services)
    claim(services, job, lease_s=0.01)
    wait_for_pause()

    def broken(_):
        raise error

    with monkeypatch.context() as patch:
        for step in ("fold_counts", "fire_due", "finalize_due", "move_chains_on"):
            patch.setattr(rounds, step, broken)
        counts = run_round(services)
    assert (counts.fired, counts.reaped, counts.finalized, counts.rung) == (0, 1, 0, 1)
    assert (
        setback_of(services, "finishing jobs").error
        == setback_of(services, "firing schedules").error
    )
    run_round(services)
    assert setback_of(services, "finishing jobs") is None


def test_a_step_that_fails_in_every_round_does_not_fill_the_log(
    services, monkeypatch, caplog
) -> None:
    def broken(_):
        raise KeyError("odd")

    monkeypatch.setattr(rounds, "fire_due", broken)
    patient = Services(services.settings.model_copy(update={"loop_s": 60}))
    with closing(patient):
        for _ in range(5):
            run_round(patient)
    assert caplog.text.count("firing schedules") == 1
    assert setback_of(services, "firing schedules").times == 1


@every_error
def test_finishing(services, monkeypatch, error) -> None:
    made = [committed(services).id for _ in range(3)]
    broken = failing_for(
        made[1], error, finalize.canonical_json, of=lambda manifest: manifest["job"]
    )
    with monkeypatch.context() as patch:
        patch.setattr(finalize, "canonical_json", broken)
        assert finalize_due(services) == 2
        assert "finishing jobs failed: " in lines(services, made[1])[-1]
        assert setback_of(services, made[1])
    wait_for_pause()
    assert finalize_due(services) == 1
    assert setback_of(services, made[1]) is None


@every_error
def test_moving_jobs_on_to_finalizing(services, monkeypatch, error) -> None:
    made = [committed(services).id for _ in range(3)]
    broken = failing_for(made[0], error, jobs.settle, of=lambda session, job_id: job_id)
    monkeypatch.setattr(jobs, "settle", broken)
    assert finalize_due(services) == 2
    assert setback_of(services, made[0])


@every_error
def test_taking_back_leases(services, monkeypatch, error) -> None:
    held = [claim(services, add_job(services), lease_s=0.01) for _ in range(3)]
    wait_for_pause()
    broken = failing_for(
        held[1].shard_id, error, reaping._reap_one, of=lambda _, row, *__, **___: row.id
    )
    with monkeypatch.context() as patch:
        patch.setattr(reaping, "_reap_one", broken)
        assert reap(services) == 2
        assert "taking back leases failed: " in lines(services, held[1].job_id)[-1]
    wait_for_pause()
    assert reap(services) == 1


@every_error
def test_ringing(services, monkeypatch, error) -> None:
    made = [add_job(services) for _ in range(3)]
    shards = [run(services, jobs.shards_of, job.id)[0].id for job in made]
    app = doorbell.celery_app(services.settings)
    broken = failing_for(shards[0], error, app.send_task, of=lambda *_, args, **__: args[0])
    monkeypatch.setattr(app, "send_task", broken)
    counts = run_round(services)
    assert redis.Redis.from_url(services.settings.broker_client).llen("genmill:genmill") == 2
    assert counts.rung == 0
    assert setback_of(services, "ringing doorbells")


@every_error
def test_moving_chains_on(services, monkeypatch, error) -> None:
    waiting = [after_a_failure(services) for _ in range(3)]
    broken = failing_for(waiting[1], error, moving._move, of=lambda _, ready: ready.id)
    with monkeypatch.context() as patch:
        patch.setattr(moving, "_move", broken)
        assert moving.move_chains_on(services) == 2
        assert "moving chains on failed: " in lines(services, waiting[1])[-1]
    wait_for_pause()
    assert moving.move_chains_on(services) == 1


def after_a_failure(services):
    """A job that waits for one that has failed just now."""

    def add(session):
        first = add_in(session)
        then = add_in(session, after_id=first.id, ranges=())
        session.execute(update(Job).where(Job.id == first.id).values(status="failed"))
        return then.id

    return services.database.transact(add)


def add_in(session, ranges=((0, 1),), **columns):
    return jobs.add(
        session, spec={}, spec_hash="0" * 64, kind="generate", model="m", ranges=ranges, **columns
    )


@every_error
def test_collecting_garbage_of_jobs(services, monkeypatch, error) -> None:
    made = [ended(services, days_ago=1) for _ in range(3)]
    for job_id in made:
        services.store.put_bytes(f"jobs/{job_id}/blobs", b"garbage")
        services.store.put_bytes(f"jobs/{job_id}/blobs", b"more of it")
    first = next(iter(services.store.keys(f"jobs/{made[0]}")))
    with monkeypatch.context() as patch:
        patch.setattr(services.store, "delete", failing_for(first, error, services.store.delete))
        assert collect_jobs(services) == 4
    assert list(services.store.keys("jobs")) == [first]
    wait_for_pause()
    assert collect_jobs(services) == 1


def test_collecting_garbage_beside_a_job_whose_row_is_damaged(services) -> None:
    for job_id in (made := [ended(services, days_ago=1) for _ in range(2)]):
        services.store.put_bytes(f"jobs/{job_id}/blobs", b"garbage")
    with services.database.write() as session:
        first = "(SELECT min(id) FROM jobs)"
        session.execute(text(f"UPDATE jobs SET created_at = 'then' WHERE id = {first}"))
    assert collect_jobs(services) > 0
    assert not list(services.store.keys(f"jobs/{made[1]}"))


@every_error
def test_collecting_garbage_of_prompts(services, monkeypatch, error) -> None:
    for prompt in (b"a", b"b", b"c"):
        services.store.put_bytes(PREFIX, prompt)
    [first, *_] = services.store.keys(PREFIX)
    monkeypatch.setattr(services.store, "delete", failing_for(first, error, services.store.delete))
    with pytest.raises(Exception, match=first):
        collect_prompts(services, older_than_s=-1)
    assert list(services.store.keys(PREFIX)) == [first]


@every_error
def test_deleting_unfinished_batches(services, monkeypatch, error) -> None:
    made = [run(services, batches.add, 1).id for _ in range(3)]
    discard = failing_for(made[0], error, garbage.discard, of=lambda _, batch_id, **__: batch_id)
    monkeypatch.setattr(garbage, "discard", discard)
    collect_batches(services, older_than_s=-1)
    assert run(services, batches.incomplete_batches) == made[:1]
    assert setback_of(services, made[0])


@every_error
def test_deleting_old_data_of_one_kind(services, monkeypatch, error) -> None:
    old = ended(services, days_ago=100)
    broken = failing_for("history", error, retention.is_due, of=lambda _, what, **__: what)
    monkeypatch.setattr(retention, "is_due", broken)
    assert apply_retention(services) == 1
    assert lines(services, old) == []


@every_error
def test_deleting_old_data_of_one_job(services, monkeypatch, error) -> None:
    old = [ended(services, days_ago=100) for _ in range(5)]
    tables = retention.WHAT["logs"]
    [(table, found)] = tables.items()

    def find(ids):
        if old[2] in ids:
            raise error
        return found(ids)

    monkeypatch.setitem(tables, table, find)
    apply_retention(services, within_s=5)
    if is_outage(error):  # the same for all: nobody is passed over
        assert all("a line" in lines(services, job_id) for job_id in old)
        return
    assert [lines(services, job_id)[:1] for job_id in old] == [[], [], ["a line"], [], []]
    assert "its logs are older than what is kept, but stay: " in lines(services, old[2])[-1]


def test_many_that_fail_do_not_hide_those_behind_them(services, monkeypatch) -> None:
    bad = [committed(services).id for _ in range(4)]
    good = committed(services)
    encode = finalize.canonical_json

    def fail(manifest):
        if manifest["job"] in bad:
            raise KeyError("odd")
        return encode(manifest)

    patient = Services(services.settings.model_copy(update={"loop_s": 60}))
    monkeypatch.setattr(finalize, "canonical_json", fail)
    with closing(patient):
        assert finalize_due(patient, limit=2) == 0
        assert finalize_due(patient, limit=2) == 0
        assert finalize_due(patient, limit=2) == 1
    assert read(services, good).status == "succeeded"


def test_what_fails_is_left_alone_for_a_growing_pause(services, monkeypatch, caplog) -> None:
    job = committed(services)
    tries = []

    def fail(manifest):
        tries.append(time.monotonic())
        raise KeyError("odd")

    monkeypatch.setattr(finalize, "canonical_json", fail)
    deadline = time.monotonic() + 1.0
    while time.monotonic() < deadline:
        finalize_due(services)
        time.sleep(0.001)
    assert 3 <= len(tries) <= 12
    assert lines(services, job.id) == ["finishing jobs failed: KeyError: 'odd'; it is tried again"]
    assert caplog.text.count("Traceback") == 1


def test_a_job_that_cannot_be_finished_again_and_again_fails(services, monkeypatch) -> None:
    job = committed(services)
    monkeypatch.setattr("worker.services.loops.MAX_TRIES", 2)

    def fail(_):
        raise KeyError("odd")

    monkeypatch.setattr(finalize, "canonical_json", fail)
    finalize_due(services)
    wait_for_pause()
    finalize_due(services)
    assert read(services, job).status == "failed"
    assert read(services, job).error == "cannot be finished: KeyError: 'odd'"
    assert setback_of(services, job.id) is None


def test_a_store_that_is_away_gives_no_job_up(services, monkeypatch) -> None:
    job = committed(services)
    monkeypatch.setattr("worker.services.loops.MAX_TRIES", 1)
    with monkeypatch.context() as patch:
        patch.setattr(finalize, "canonical_json", fail_away)
        for _ in range(3):
            finalize_due(services)
            wait_for_pause()
    time.sleep(0.2)
    assert finalize_due(services) == 1
    assert read(services, job).status == "succeeded"


def fail_away(_):
    raise ERRORS[1]


def test_chains_keep_their_place_in_the_pages(services, monkeypatch) -> None:
    waiting = [after_a_failure(services) for _ in range(4)]
    ready = chains.ready
    monkeypatch.setattr(
        chains, "ready", lambda session, after="": ready(session, after=after, limit=1)
    )
    monkeypatch.setattr(
        moving,
        "_move",
        failing_for(waiting[0], KeyError(), moving._move, of=lambda _, ready: ready.id),
    )
    assert moving.move_chains_on(services) == 3


@pytest.mark.parametrize("end", [KeyboardInterrupt, SystemExit])
def test_what_is_meant_to_end_the_process_does(services, monkeypatch, end) -> None:
    def stop(_):
        raise end

    monkeypatch.setattr(rounds, "finalize_due", stop)
    with pytest.raises(end):
        run_round(services)
