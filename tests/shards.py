"""Jobs and shards in a database, without a worker, for tests of what comes before and after."""

from itertools import accumulate, pairwise

from db import jobs, shards
from db.commits import NewManifest


def add_job(services, *, count=1, sizes=None):
    """Add a job of `count` shards of one sample, or of shards of these sizes."""

    def work(session):
        stops = list(accumulate(sizes or [1] * count))
        ranges = list(pairwise([0, *stops]))
        return jobs.add(
            session, spec={}, spec_hash="0" * 64, kind="generate", model="m", ranges=ranges
        )

    return services.database.transact(work)


def claim(services, job, *, lease_s=60):
    def work(session):
        shard = jobs.shards_of(session, job.id)[0]
        return shards.claim(session, shard.id, owner="w", lease_s=lease_s)

    return services.database.transact(work)


def commit(services, held):
    blob = services.store.put_bytes(f"jobs/{held.job_id}/blobs", b"png")
    index = shards.NewIndex(range(held.start, held.stop), "0" * 64, data=bytes(44))
    artifact = shards.NewArtifact(
        "samples", "s.tar", blob.key, blob.sha256, blob.size, "application/x-tar", index
    )
    services.database.transact(lambda session: shards.commit(session, held, [artifact]))


def succeed(session, job_id, manifest_key, manifest_sha256):
    """End a finalizing job whose manifest has an object of its own; whether it did."""
    return bool(jobs.succeed_many(session, {job_id: NewManifest(manifest_key, manifest_sha256)}))


def read(services, job):
    with services.database.read() as session:
        return jobs.get(session, job.id)
