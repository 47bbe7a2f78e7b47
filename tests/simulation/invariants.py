"""What must hold after every transaction, checked on the rows themselves, and what must not change.

The rows are read with plain SQL; nothing of Genmill's code is trusted.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from tests.history import FINAL

if TYPE_CHECKING:
    from tests.simulation.world import World

JOBS = """
SELECT hex(id), status, finished_at IS NOT NULL, manifest_key IS NOT NULL OR manifest_pack IS NOT
NULL, error IS NOT NULL, hex(after_id), (SELECT count(*) FROM transitions WHERE job_id = jobs.id
AND shard_id IS NULL AND new IN ('succeeded', 'failed', 'cancelled')) FROM jobs
WHERE batch_id IS NULL OR batch_id IN (SELECT id FROM batches WHERE complete_at IS NOT NULL)
"""
SHARDS = """
SELECT hex(id), hex(job_id), status, fence, claims, failures, releases, hex(owner), lease_until,
not_before, (SELECT count(*) FROM artifacts WHERE shard_id = shards.id AND kind = 'samples') +
(SELECT count(*) FROM model_versions WHERE model_versions.job_id = shards.job_id),
(SELECT count(*) FROM attempts WHERE shard_id = shards.id), waiting FROM shards
"""
CHECKPOINTS = """
SELECT hex(shard_id), step, key, lower(hex(sha256)), bad, created_at FROM checkpoints
"""
LOST_SINCE_PROGRESS = """
SELECT count(*) FROM attempts WHERE hex(shard_id) = :shard AND outcome = 'lost' AND fence >=
coalesce((SELECT fence FROM checkpoints WHERE hex(shard_id) = :shard ORDER BY step DESC), 0)
"""
TOUCHED = """
SELECT hex(shards.id) FROM batches JOIN jobs ON jobs.batch_id = batches.id
JOIN shards ON shards.job_id = jobs.id
WHERE complete_at IS NULL AND (fence <> 0 OR shards.status <> 'queued')
"""
OPEN = frozenset({"queued", "running"})
NEXT = {  # of a shard: what one transaction may make of it
    "queued": {"queued", "running", "failed", "cancelled"},
    "running": {"running", "queued", "succeeded", "failed", "cancelled"},
}
JOB_NEXT = {
    "waiting": {"waiting", "queued", "failed", "cancelled"},
    "queued": {"queued", "running", "failed", "cancelled"},
    "running": {"running", "finalizing", "succeeded", "failed", "cancelled"},
    "finalizing": {"finalizing", "running", "succeeded", "failed", "cancelled"},
}


class Job(NamedTuple):
    """A row of `jobs`."""

    id: str
    status: str
    finished: int
    manifest: int
    error: int
    after: str
    ends: int  # transitions into a final state that are on record


class Shard(NamedTuple):
    """A row of `shards`, with what it has made, and the number of its recorded attempts."""

    id: str
    job: str
    status: str
    fence: int
    claims: int
    failures: int
    releases: int
    owner: str
    lease_until: str | None
    not_before: str
    made: int  # objects of samples, or model versions
    attempts: int
    waiting: int


class Checkpoint(NamedTuple):
    """A row of `checkpoints`."""

    shard: str
    step: int
    key: str
    sha256: str
    bad: int
    created_at: str


class Invariants:
    """Compares the record after each transaction with what it was before."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self.jobs: dict[str, Job] = {}
        self.shards: dict[str, Shard] = {}
        self.checkpoints: dict[tuple[str, int], Checkpoint] = {}

    def check(self, actor: str, now: str) -> Iterator[str]:
        """What the transaction of `actor`, a worker's boot id or nothing, broke."""
        cursor = self._world.services.database.driver
        jobs = {row[0]: Job(*row) for row in cursor.execute(JOBS)}
        shards = {row[0]: Shard(*row) for row in cursor.execute(SHARDS) if row[1] in jobs}
        for (touched,) in cursor.execute(TOUCHED):
            yield f"shard {touched} is not as it was submitted, and its batch is incomplete"
        for row in jobs.values():
            if row != self.jobs.get(row.id):
                yield from self._job(self.jobs.get(row.id), row, jobs)
        for row in shards.values():
            old = self.shards.get(row.id)
            if row != old or jobs[row.job] != self.jobs.get(row.job):
                yield from self._shard(old, row, jobs[row.job])
                if old is not None and old != row:
                    yield from self._change(old, row, actor, now)
        yield from self._whole_jobs(jobs, shards)
        yield from self._checkpoints(shards, actor)
        if missing := (self.jobs.keys() - jobs.keys()) | (self.shards.keys() - shards.keys()):
            yield f"{missing} have vanished"
        self.jobs, self.shards = jobs, shards

    def _job(self, old: Job | None, new: Job, jobs: dict[str, Job]) -> Iterator[str]:
        if old is not None and new.status not in JOB_NEXT.get(old.status, {old.status}):
            yield f"job {new.id} went from {old.status} to {new.status}"
        if bool(new.finished) != (new.status in FINAL):
            yield f"job {new.id} is {new.status}, finished: {new.finished}"
        if bool(new.manifest) != (new.status == "succeeded"):
            yield f"job {new.id} is {new.status}, with a manifest: {new.manifest}"
        if bool(new.error) != (new.status == "failed"):
            yield f"job {new.id} is {new.status}, with an error: {new.error}"
        if new.ends > 1 or (new.ends and new.status == "succeeded"):
            yield f"job {new.id} ended {new.ends} times"
        before = jobs.get(new.after)
        if before and new.status not in {"waiting", *FINAL} and before.status != "succeeded":
            yield f"job {new.id} is {new.status} after job {before.id}, which is {before.status}"

    def _shard(self, old: Shard | None, new: Shard, job: Job) -> Iterator[str]:
        if new.made != (new.status == "succeeded"):
            yield f"shard {new.id} is {new.status} and has made {new.made}"
        if (new.status == "running") != (new.lease_until is not None):
            yield f"shard {new.id} is {new.status} with a lease until {new.lease_until}"
        if new.status == "running" and job.status != "running":
            yield f"shard {new.id} is running, its job {job.status}"
        if new.status in OPEN and job.status in FINAL:
            yield f"shard {new.id} is {new.status}, its job {job.status}"
        yield from self._counts(new)

    def _counts(self, new: Shard) -> Iterator[str]:
        if new.claims != new.fence:
            yield f"shard {new.id} has fence {new.fence} after {new.claims} claims"
        if new.attempts + (new.status in {"running", "succeeded"}) != new.fence:
            yield f"shard {new.id} is {new.status} at fence {new.fence}, ended: {new.attempts}"
        if new.status in OPEN and self._lost(new) > self._world.services.settings.max_claims:
            yield f"shard {new.id} was lost {self._lost(new)} times and goes on"
        if new.failures > self._world.services.settings.max_failures:
            yield f"shard {new.id} has failed {new.failures} times and goes on"

    def _lost(self, shard: Shard) -> int:
        """Its claims that were lost or go on, without those before its newest checkpoint."""
        lost = shard.claims - shard.failures - shard.releases
        if lost <= self._world.services.settings.max_claims:
            return lost
        execute = self._world.services.database.driver.execute
        [since] = execute(LOST_SINCE_PROGRESS, {"shard": shard.id}).fetchone()
        return int(since) + (shard.status == "running")

    def _change(self, old: Shard, new: Shard, actor: str, now: str) -> Iterator[str]:
        """What may become of a shard, and who may do it."""
        if new.status not in NEXT.get(old.status, {old.status}):
            yield f"shard {new.id} went from {old.status} to {new.status}"
        if old.status in FINAL and new != old:
            yield f"shard {new.id} was {old.status}, and has changed: {old} {new}"
        if not old.fence <= new.fence <= old.fence + 1:
            yield f"shard {new.id} went from fence {old.fence} to {new.fence}"
        if old.status == "running":
            yield from self._held(old, new, actor, now)

    def _held(self, old: Shard, new: Shard, actor: str, now: str) -> Iterator[str]:
        """What only the holder of a lease may do, or only once the lease has expired."""
        if actor == old.owner:
            return
        if new.status == "succeeded":
            yield f"{actor} ended shard {new.id} as succeeded, which {old.owner} held"
        if (new.failures, new.releases) != (old.failures, old.releases):
            yield f"{actor} reported about shard {new.id}, which {old.owner} held"
        if new.fence == old.fence and new.status == "running":
            yield f"{actor} renewed the lease of {old.owner} on shard {new.id}"
        expired = old.lease_until is None or old.lease_until < now
        expired = expired or old.owner in self._world.killed
        if new.status in OPEN and not expired:
            yield f"{actor} took shard {new.id} under the lease of {old.owner}: {old} {new}"

    def _checkpoints(self, shards: dict[str, Shard], actor: str) -> Iterator[str]:
        """Only the holder of a shard records what it can resume from, and nothing whole is bad."""
        execute, store = self._world.services.database.driver.execute, self._world.store
        found = {row[:2]: Checkpoint(*row) for row in execute(CHECKPOINTS)}
        for key, new in found.items():
            if new == self.checkpoints.get(key):
                continue
            shard, whole = shards[new.shard], store.holds(new.key, new.sha256)
            if new.bad and whole:
                yield f"the checkpoint {new.step} of shard {shard.id} is marked, and it is whole"
            if not (new.bad or whole or new.key in self._world.spoiled):
                yield f"the checkpoint {new.step} of shard {shard.id} is not in the store"
            if not new.bad and shard.status != "cancelled" and shard.owner != actor:
                yield f"{actor} recorded a checkpoint of shard {shard.id}, held by {shard.owner}"
        self.checkpoints = found

    def _whole_jobs(self, jobs: dict[str, Job], shards: dict[str, Shard]) -> Iterator[str]:
        for job in jobs.values():
            if job.status in {"finalizing", "succeeded"}:
                states = {each.status for each in shards.values() if each.job == job.id}
                if states != {"succeeded"}:
                    yield f"job {job.id} is {job.status} with shards that are {states}"
