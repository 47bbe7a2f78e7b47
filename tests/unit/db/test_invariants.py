"""Random walks through the protocol; an audit reads the tables itself after every step."""

import random
from collections import Counter

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from db import jobs, shards
from db.errors import Cancelled, LeaseLost
from db.states import FINAL, SHARD_MOVES, ShardState
from db.tables import Artifact, Job, Shard, Transition
from tests.attempts import attempts_at, moves_of
from tests.shards import succeed

MAX_CLAIMS = 4
MAX_FAILURES = 2
NO_LIMIT = 1000


class Audit:
    """Checks the record's invariants, and that nothing went back since the last look."""

    def __init__(self, record, max_claims=MAX_CLAIMS):
        self.record = record
        self.max_claims = max_claims
        self.final = {}
        self.fences = Counter()
        self.made = Counter()

    def look(self):
        with self.record.database.snapshot() as connection, Session(connection) as session:
            self._look(session)

    def _look(self, session):
        by_job = {job.id: job for job in session.scalars(select(Job))}
        made = Counter(session.scalars(select(Artifact.shard_id)))
        everything = list(session.scalars(select(Shard)))
        for shard in everything:
            self._look_at_shard(shard, by_job[shard.job_id], made[shard.id])
            attempts = attempts_at(session, shard.id)
            self._look_at_attempts(shard, attempts)
            self._look_at_moves(session, shard, attempts)
        for job in by_job.values():
            states = {shard.status for shard in everything if shard.job_id == job.id}
            self._look_at_job(job, states)
        self._look_back(by_job, everything, made)

    def _look_at_shard(self, shard, job, made):
        assert made == (1 if shard.status == "succeeded" else 0)
        assert (shard.owner is not None) == (shard.status in {"running", "succeeded"})
        assert (shard.started_at is not None) == (shard.owner is not None)
        assert (shard.ended_at is not None) == (shard.status == "succeeded")
        assert (shard.lease_until is not None) == (shard.status == "running")
        assert shard.claims - shard.failures - shard.releases <= self.max_claims
        assert shard.failures <= MAX_FAILURES
        if shard.status == "running":
            assert job.status == "running"

    def _look_at_attempts(self, shard, attempts):
        assert [attempt["fence"] for attempt in attempts] == list(range(1, shard.fence + 1))
        assert shard.claims == shard.fence
        still_open = [each["fence"] for each in attempts if each["ended_at"] is None]
        assert still_open == ([shard.fence] if shard.status == "running" else [])

    def _look_at_job(self, job, states):
        if job.status in FINAL:
            assert states <= FINAL
            assert job.finished_at is not None
        if job.status in {"finalizing", "succeeded"}:
            assert states == {"succeeded"}
        assert (job.manifest_key is not None) == (job.status == "succeeded")
        assert (job.error is not None) == (job.status == "failed")
        if job.status == "queued":
            assert states == {"queued"}

    def _look_at_moves(self, session, shard, attempts):
        columns = Transition.__table__.columns
        recorded = session.execute(select(*columns).where(Transition.shard_id == shard.id))
        state, then = "queued", None
        for at, old, new in moves_of(attempts, [row._mapping for row in recorded]):
            assert old == state
            assert new in SHARD_MOVES[ShardState(old)]
            assert then is None or then <= at
            state, then = new, at
        assert state == shard.status

    def _look_back(self, by_job, everything, made):
        now = {row.id: row.status for row in [*by_job.values(), *everything]}
        assert {key: now[key] for key in self.final} == self.final
        self.final = {key: status for key, status in now.items() if status in FINAL}
        for shard in everything:
            assert shard.fence >= self.fences[shard.id]
            self.fences[shard.id] = shard.fence
            if shard.status == "cancelled":
                assert made[shard.id] == self.made[shard.id] == 0
        self.made = made


class Walk:
    """Workers that claim, stall, crash and come back as zombies; users that cancel; reapers."""

    def __init__(self, record, seed):
        self.record = record
        self.random = random.Random(seed)
        self.claims = []  # every claim ever given: the old ones are zombies
        self.added = [record.add((0, 2), (2, 4), (4, 5)), record.add((0, 1)), record.add((0, 3))]

    def step(self):
        steps = [self.claim] * 5 + [self.act] * 6 + [self.reap, self.reap, self.finish]
        self.random.choice([*steps, self.cancel] if self.random.random() < 0.1 else steps)()

    def claim(self):
        job = self.random.choice(self.added)
        lease_s = self.random.choice([-1, 60])
        owner = self.random.choice(["ann", "bob"])
        claim = self.record.claim(
            self.random.choice(job[1:]), owner, lease_s, max_claims=MAX_CLAIMS
        )
        if claim:
            self.claims.append(claim)

    def act(self):
        if not self.claims:
            return
        claim = self.random.choice(self.claims[-6:])
        before = self.record.shard(claim.shard_id)
        holds = (before.status, before.fence, before.owner) == ("running", claim.fence, claim.owner)
        try:
            self._some_act()(claim)
        except (Cancelled, LeaseLost):
            assert not holds
        else:
            assert holds

    def _some_act(self):
        record = self.record
        return self.random.choice(
            [
                record.commit,
                record.commit,
                lambda claim: record.renew(claim, progress={"done": 1}),
                lambda claim: record.renew(claim, lease_s=-1),
                lambda claim: record.fail(claim, max_failures=MAX_FAILURES),
                record.release,
                lambda claim: record.run(
                    shards.decline, claim, "short", lasting=False, max_failures=MAX_FAILURES
                ),
            ]
        )

    def reap(self):
        self.record.run(shards.reap, max_claims=MAX_CLAIMS)

    def cancel(self):
        self.record.cancel(self.random.choice(self.added)[0])

    def finish(self):
        for job_id in self.record.run(jobs.next_to_finalize, 10):
            assert self.record.run(jobs.settle, job_id) == "finalizing"
            self.record.run(succeed, job_id, f"jobs/{job_id}/manifest.json", "a" * 64)


@pytest.mark.parametrize("seed", range(6))
def test_a_random_walk_keeps_every_invariant(record, seed):
    walk, audit = Walk(record, seed), Audit(record)
    for _ in range(70):
        walk.step()
        audit.look()


def test_workers_in_threads_with_crashes_keep_every_invariant_and_end(each_record):
    record, audit = each_record, Audit(each_record, NO_LIMIT)
    added = [record.add((0, 2), (2, 4), (4, 6)) for _ in range(4)]
    ids = [shard_id for _, *some in added for shard_id in some]

    def work(seed):
        dice = random.Random(seed)
        for shard_id in dice.sample(ids, len(ids)) * 2:
            claim = record.claim(shard_id, f"worker-{seed}", -1, max_claims=NO_LIMIT)
            if claim:
                one_attempt(record, claim, dice)

    def others():
        for _ in range(5):
            record.run(shards.reap, max_claims=NO_LIMIT)
            audit.look()
        record.cancel(added[0][0])

    outcomes = record.together((work, 1), (work, 2), (work, 3), (others,))
    assert outcomes == [None] * 4
    audit.look()
    finish_everything(record, ids)
    audit.look()
    assert {record.job(job_id).status for job_id, *_ in added[1:]} == {"succeeded"}
    assert record.job(added[0][0]).status == "cancelled"


def one_attempt(record, claim, dice):
    fate = dice.random()
    try:
        if fate < 0.3:
            record.renew(claim, progress={"done": 1})
            record.commit(claim)
        elif fate < 0.4:
            record.release(claim)
        # otherwise it dies, and its lease is over already
    except (Cancelled, LeaseLost):
        pass


def finish_everything(record, ids):
    record.run(shards.reap, max_claims=NO_LIMIT)
    for shard_id in ids:
        claim = record.claim(shard_id)
        if claim:
            record.commit(claim)
    for job_id in record.run(jobs.next_to_finalize, 10):
        record.run(jobs.settle, job_id)
        record.run(succeed, job_id, f"jobs/{job_id}/manifest.json", "a" * 64)
