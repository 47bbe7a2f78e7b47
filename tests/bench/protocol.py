"""The record's protocol as a worker speaks it, in one place: the only file that names its calls."""

import hashlib
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from sqlalchemy.orm import Session

from db import jobs, shards, workers
from db.commits import NewArtifact, NewIndex, blob_key
from db.session import Database
from db.shards import Beat, Claim, Result
from worker.media.samples.index import IndexEntry, SampleIndex
from worker.services.samples import INLINE_SAMPLES

MAX_CLAIMS = 1000  # a fleet that is killed all the time poisons nothing
MEMBER_BYTES = 700
REPORT = {"done": 0, "total": 1, "unit": "sample", "eta_s": None, "note": ""}

T = TypeVar("T")


class _Undo(Exception):
    """Ends a transaction without committing it."""


def choose(database: Database, boot: str, count: int) -> None:
    """Choose `count` shards and mark them as rung for, in a transaction that is rolled back."""
    found = undone(database, partial(shards.take_due, per_worker=count, deadline_s=120))
    if len(found) != count:
        raise RuntimeError(f"{len(found)} shards were chosen, not {count}")


def claim_together(database: Database, boot: str, count: int) -> None:
    """Claim `count` shards at once, in a transaction that is rolled back."""
    found = undone(database, partial(shards.claim_due, owner=boot, lease_s=60, limit=count))
    if len(found) != count:
        raise RuntimeError(f"{len(found)} shards were claimed, not {count}")


def undone(database: Database, work: Callable[[Session], T]) -> T:
    """The result of `work` in a write transaction that is then rolled back."""
    found: list[T] = []
    try:
        with database.write() as session:
            found.append(work(session))
            raise _Undo
    except _Undo:
        return found[0]


class FleetMember:
    """One simulated worker's calls: claim a shard, renew its lease, commit it."""

    def __init__(self, database: Database, boot: str, lease_s: float) -> None:
        self.database = database
        self.boot = boot
        self.lease_s = lease_s
        self._beats = 0

    def start(self) -> None:
        """Record the boot."""
        start = partial(workers.start, boot_id=self.boot, host="fleet", pid=1, device="cpu")
        self.database.transact(start)

    def beat(self) -> int:
        """Record the worker's heartbeat; return how many workers are live."""
        return self.database.transact(partial(workers.beat, boot_id=self.boot))

    def claim(self) -> Claim | None:
        """Claim one shard that is due."""
        claim_due = partial(shards.claim_due, owner=self.boot, lease_s=self.lease_s)
        found = self.database.transact(claim_due)
        return found[0] if found else None

    def renew(self, claim: Claim) -> bool:
        """Renew the lease and report progress; whether it is still held."""
        self._beats += 1
        beats = {claim.shard_id: Beat(claim.fence, self._beats, REPORT)}
        renew = partial(shards.renew_all, owner=self.boot, beats=beats, lease_s=self.lease_s)
        return bool(self.database.transact(renew))

    def commit(self, claim: Claim) -> bool:
        """Commit the shard, then look whether its job is complete; whether the commit counted."""
        results = [Result(claim, [made_by(claim)])]
        outcomes = self.database.transact(partial(shards.commit_many, results=results))
        if not claim.alone:
            with self.database.read() as session:
                jobs.complete(session, [claim.job_id])
        return outcomes[claim.shard_id] is None


def made_by(claim: Claim) -> NewArtifact:
    """What a worker commits for a claim: one object with all samples of its range."""
    digest = hashlib.sha256(claim.shard_id.encode()).hexdigest()
    entries = [
        IndexEntry(sample, place * MEMBER_BYTES, MEMBER_BYTES, digest)
        for place, sample in enumerate(range(claim.start, claim.stop))
    ]
    index = SampleIndex.of(entries)
    inline = len(entries) <= INLINE_SAMPLES
    held = NewIndex(
        index.samples,
        index.members_sha256,
        data=index.data if inline else None,
        sha256=None if inline else digest,
    )
    name, key = f"samples-{claim.idx:06d}.tar", blob_key(claim.job_id, digest)
    size = MEMBER_BYTES * len(entries)
    return NewArtifact("samples", name, key, digest, size, "application/x-tar", held)


def reap(database: Database) -> None:
    """Requeue the shards whose leases have expired, as the scheduler does."""
    database.transact(partial(shards.reap, max_claims=MAX_CLAIMS))
