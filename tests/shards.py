"""Jobs and shards in a database, without a worker, for tests of what comes before and after."""

from db import jobs, shards


def add_job(services, *, count=1):
    def work(session):
        ranges = [(n, n + 1) for n in range(count)]
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
    member = shards.NewMember(held.start, "0.png", 0, 3, "0" * 64)
    artifact = shards.NewArtifact(
        "samples", "s.tar", blob.key, blob.sha256, blob.size, "application/x-tar", [member]
    )
    services.database.transact(lambda session: shards.commit(session, held, [artifact]))


def read(services, job):
    with services.database.read() as session:
        return jobs.get(session, job.id)
