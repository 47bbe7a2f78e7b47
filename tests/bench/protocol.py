"""The record's protocol as a worker speaks it, in one place: the only file that names its calls."""

from functools import partial

from db import shards, workers
from db.claims import Claim
from db.session import Database
from db.shards import NewArtifact, NewMember

MAX_CLAIMS = 1000  # a fleet that is killed all the time poisons nothing
MEMBER_BYTES = 700


class _Undo(Exception):
    """Ends a transaction without committing it."""


def choose(database: Database, boot: str, count: int) -> None:
    """Choose `count` shards in a write transaction, and roll it back."""
    try:
        with database.write() as session:
            found = shards.take_due(session, per_worker=count, deadline_s=120)
            if len(found) != count:
                raise RuntimeError(f"{len(found)} shards were chosen, not {count}")
            raise _Undo
    except _Undo:
        pass


class FleetMember:
    """One simulated worker's calls: claim a shard, renew its lease, commit it."""

    def __init__(self, database: Database, boot: str, doorbells: list[str], lease_s: float) -> None:
        self.database = database
        self.boot = boot
        self.lease_s = lease_s
        self._doorbells = doorbells  # of the whole process
        self._beats = 0

    def start(self) -> None:
        """Record the boot."""
        start = partial(workers.start, boot_id=self.boot, host="fleet", pid=1, device="cpu")
        self.database.transact(start)

    def beat(self) -> None:
        """Record the worker's heartbeat."""
        self.database.transact(partial(workers.beat, boot_id=self.boot))

    def claim(self) -> Claim | None:
        """Claim a shard that is due."""
        if not self._doorbells:
            self._ring()
        try:
            shard_id = self._doorbells.pop()
        except IndexError:
            return None
        return self.database.transact(
            partial(
                shards.claim,
                shard_id=shard_id,
                owner=self.boot,
                lease_s=self.lease_s,
                max_claims=MAX_CLAIMS,
            )
        )

    def renew(self, claim: Claim) -> None:
        """Renew the lease and report progress. Raises `Stopped`."""
        self._beats += 1
        report = {"done": 0, "total": 1, "unit": "sample", "eta_s": None, "note": ""}
        renew = partial(shards.renew, claim=claim, lease_s=self.lease_s, seq=self._beats)
        self.database.transact(partial(renew, progress=report))

    def commit(self, claim: Claim) -> None:
        """Commit the shard's one object, and ring for what is due. Raises `Stopped`."""
        artifact = made_by(claim)
        self.database.transact(partial(shards.commit, claim=claim, artifacts=[artifact]))
        self._ring()

    def _ring(self) -> None:
        due = partial(shards.take_due, per_worker=3, deadline_s=4 * self.lease_s)
        self._doorbells[:0] = self.database.transact(due)


def made_by(claim: Claim) -> NewArtifact:
    """What a worker commits for a claim: one object with all samples of its range."""
    digest = f"{claim.idx:064x}"
    members = [
        NewMember(index, f"{index:09d}.png", place * MEMBER_BYTES, MEMBER_BYTES, digest)
        for place, index in enumerate(range(claim.start, claim.stop))
    ]
    name, key = f"samples-{claim.idx:06d}.tar", f"jobs/{claim.job_id}/blobs/{digest}"
    size = MEMBER_BYTES * len(members)
    return NewArtifact("samples", name, key, digest, size, "application/x-tar", members)


def reap(database: Database) -> None:
    """Requeue the shards whose leases have expired, as the scheduler does."""
    database.transact(partial(shards.reap, max_claims=MAX_CLAIMS))
