"""Revision 0003 keeps every row of a database that was made before it."""

import hashlib
import struct
from datetime import UTC, datetime
from uuid import UUID

import pytest
from sqlalchemy import MetaData, insert

from db import artifacts, jobs, models, schema
from tests.unit.db.old_revisions import migrate, upgrade

NOW = datetime(2026, 1, 1, tzinfo=UTC)
JOB, OTHER = str(UUID(int=1)), str(UUID(int=2))
SAMPLES = 250


def digest(number):
    return hashlib.sha256(str(number).encode()).hexdigest()


@pytest.fixture
def old(unmigrated):
    """A database at the first revision, with a finished job and a model version."""
    migrate(unmigrated, "0001")
    with unmigrated.connect() as connection:
        fill(connection)
    return unmigrated


def fill(connection):
    metadata = MetaData()
    metadata.reflect(connection)
    tables = metadata.tables

    def add(table, **columns):
        connection.execute(insert(tables[table]).values(**columns))

    base = {"spec": {}, "spec_hash": "a" * 64, "priority": 0, "progress": {}}
    for job in (JOB, OTHER):
        add(
            "jobs",
            id=job,
            kind="generate",
            status="succeeded",
            model="digits",
            created_at=NOW,
            **base,
        )
    shard = {"status": "succeeded", "fence": 1, "heartbeat_seq": 0, "claims": 1, "failures": 0}
    shard |= {"releases": 0, "not_before": NOW, "dispatch_no": 0}
    ranges = [(0, 3), (3, SAMPLES)]
    for idx, (start, stop) in enumerate(ranges):
        add("shards", id=f"{idx}" * 36, job_id=JOB, idx=idx, start=start, stop=stop, **shard)
        add(
            "artifacts",
            id=f"{idx + 5}" * 36,
            job_id=JOB,
            shard_id=f"{idx}" * 36,
            kind="samples",
            name=f"samples-{idx}.tar",
            key=f"jobs/{JOB}/blobs/{'b' * 64}" if idx else "elsewhere/object",
            sha256="b" * 64,
            size=9,
            media_type="application/x-tar",
            created_at=NOW,
        )
        for sample in range(start, stop):
            add(
                "members",
                shard_id=f"{idx}" * 36,
                sample=sample,
                artifact_id=f"{idx + 5}" * 36,
                name=f"{sample:09}.png",
                offset=512 * sample,
                size=100 + sample,
                sha256=digest(sample),
            )
    add("models", id=JOB, name="digits", family="gan", created_at=NOW)
    add(
        "model_versions",
        id=JOB,
        model_id=JOB,
        number=1,
        params={"a": 1},
        files={},
        weights_sha256="c" * 64,
        metrics={},
        created_at=NOW,
    )


def test_samples_are_indexed_in_their_artifacts_row(old):
    upgrade(old)
    schema.check(old)
    with old.read() as session:
        page = artifacts.samples_page(session, JOB)
    assert [artifact.key for artifact, _ in page] == [
        "elsewhere/object",
        f"jobs/{JOB}/blobs/{'b' * 64}",
    ]
    assert [artifact.other_key for artifact, _ in page] == ["elsewhere/object", None]
    for artifact, shard in page:
        entries = list(struct.iter_unpack("<QI32s", artifact.index_data))
        assert entries == [
            (512 * n, 100 + n, bytes.fromhex(digest(n))) for n in range(shard.start, shard.stop)
        ]


def test_the_manifest_stays_as_it_was(old):
    upgrade(old)
    with old.read() as session:
        manifest = jobs.manifest(session, JOB)
        assert jobs.manifest(session, OTHER)["artifacts"] == []
    for entry, samples in zip(manifest["artifacts"], (range(3), range(3, SAMPLES)), strict=True):
        lines = "".join(f"{n} {digest(n)}\n" for n in samples)
        sha256 = hashlib.sha256(lines.encode()).hexdigest()
        assert entry["members"] == {"count": len(samples), "sha256": sha256}


def test_versions_and_jobs_stay(old):
    upgrade(old)
    with old.read() as session:
        _, version = models.resolve(session, "digits")
        assert (version.params, version.shape) == ({"a": 1}, None)
        assert {jobs.get(session, each).prompts_sha256 for each in (JOB, OTHER)} == {None}
