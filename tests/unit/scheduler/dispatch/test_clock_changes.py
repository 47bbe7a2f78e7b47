"""A clock that was ahead and set right holds up neither shards nor schedules."""

from datetime import timedelta

from sqlalchemy import update

from db import jobs, schedules, setbacks, shards, targets, tombstones
from db.session import clock
from db.setbacks import Failure
from db.tables import Setback, Shard, Target, Tombstone, Worker
from scheduler.dispatch.clock_changes import bring_times_back

AHEAD = timedelta(days=1)


def add(session) -> str:
    how = {"spec": {}, "spec_hash": "0" * 64, "kind": "generate", "model": "tiny"}
    return jobs.add(session, **how, ranges=[(0, 2), (2, 4), (4, 6)]).id


def test_times_of_a_clock_that_was_ahead_are_brought_back(services):
    run = services.database.transact
    job = run(add)
    waiting, rung, held = (shard.id for shard in run(lambda s: jobs.shards_of(s, job)))
    assert run(lambda s: shards.claim(s, held, owner="ann", lease_s=60))
    with services.database.write() as session:
        ahead = clock(session) + AHEAD
        wrong = {
            waiting: {"not_before": ahead, "waiting": True},
            rung: {"dispatched_at": ahead},
            held: {"lease_until": ahead},
        }
        for shard_id, columns in wrong.items():
            session.execute(update(Shard).where(Shard.id == shard_id).values(**columns))
        times = {"started_at": ahead, "heartbeat_at": ahead}
        session.add(Worker(boot_id="w", host="h", pid=1, device="cpu", **times))
    assert bring_times_back(services) == 4
    assert bring_times_back(services) == 0
    with services.database.read() as session:
        now = clock(session)
        assert session.get(Shard, waiting).not_before <= now
        assert session.get(Shard, rung).dispatched_at is None
        assert now < session.get(Shard, held).lease_until < now + timedelta(minutes=5)


def test_pauses_and_leases_of_right_clocks_stay(services):
    run = services.database.transact
    job = run(add)
    first = run(lambda s: jobs.shards_of(s, job))[0].id
    claim = run(lambda s: shards.claim(s, first, owner="ann", lease_s=60))
    run(lambda s: shards.release(s, claim, "the store is away", backoff_s=60))
    assert bring_times_back(services) == 0


def test_a_schedule_is_due_at_its_next_time_again(services):
    run = services.database.transact
    now = run(clock)
    fixed = {"missed": "skip", "overlap": "skip", "command": ["enqueue"], "timezone": "UTC"}

    def add_schedule(session, name, cron, due):
        schedules.add(session, name=name, cron=cron, next_due=due, **fixed)

    run(lambda s: add_schedule(s, "hourly", "0 * * * *", now + AHEAD))
    run(lambda s: add_schedule(s, "damaged", "no cron", now + AHEAD))
    assert bring_times_back(services) == 1
    with services.database.read() as session:
        assert schedules.get(session, "hourly").next_due <= now + timedelta(hours=1)


def test_what_failed_while_the_clock_was_ahead_is_tried_again(services):
    run, failures = services.database.transact, {"x": Failure("away", True, 5, 300)}
    run(lambda session: setbacks.note(session, "a loop", failures))
    assert bring_times_back(services) == 0

    def move(session):
        row = session.get(Setback, ("a loop", "x"))
        row.since, row.tried_at, row.again_at = (clock(session) + AHEAD for _ in range(3))

    run(move)
    assert bring_times_back(services) == 2
    assert run(lambda session: setbacks.paused(session, "a loop")) == frozenset()
    assert run(lambda session: setbacks.lasting(session, -1))


def test_what_was_removed_while_the_clock_was_ahead_is_looked_for_soon(services):
    def bury(session, grave_id, ahead):
        at = clock(session) + ahead
        about = {"kind": "job", "who": "ann", "at": at, "size_bytes": 0, "kept": False}
        session.add(Tombstone(id=grave_id, sweep_at=at + timedelta(hours=1), **about))

    services.database.transact(lambda session: bury(session, "wrong", AHEAD))
    services.database.transact(lambda session: bury(session, "right", timedelta(0)))
    assert bring_times_back(services) == 1
    with services.database.read() as session:
        soon = session.get(Tombstone, "right").sweep_at + timedelta(minutes=5)
        assert session.get(Tombstone, "wrong").sweep_at < soon
        assert tombstones.due(session, 9) == []


def test_a_target_s_rate_holds_up_nobody_for_as_long_as_the_clock_was_ahead(services):
    given = {"kind": "folder", "settings": {"address": "/x"}, "secrets": {}, "who": "ann"}
    with services.database.write() as session:
        target = targets.add(session, name="shelf", **given)
        # rightly far ahead: a slow rate, and as many items as one worker has at once
        assert targets.reserve(session, target.id, 100, rate=0.001) == 0
        assert targets.reserve(session, target.id, 1, rate=0.001) > 90_000
        session.get_one(Target, target.id).next_at = clock(session) + AHEAD
        session.flush()
        assert targets.reserve(session, target.id, 1, rate=2) == 0
        assert targets.reserve(session, target.id, 1, rate=2) <= 0.5
