"""Indexes of samples, stored by workers and read by number."""

import hashlib

import pytest

from db import shards
from db.errors import DigestMismatch, NotFound
from tests.shards import add_job, claim
from worker.media.samples.index import IndexEntry, SampleIndex
from worker.services import Services
from worker.services.samples import INLINE_SAMPLES, entries, find_sample, store_index
from worker.settings import Settings


@pytest.fixture
def services(database_url, tmp_path):
    made = Services(Settings(_env_file=None, home=tmp_path, database_url=database_url))
    yield made
    made.close()


def commit(services, count):
    """Commit a shard of `count` samples; return the job's id and the recorded index."""
    job = add_job(services, sizes=[count])
    held = claim(services, job)
    index = SampleIndex.of(
        IndexEntry(n, 10 * n, 10, hashlib.sha256(bytes([n])).hexdigest()) for n in range(count)
    )
    new = store_index(services.store, job.id, index)
    made = shards.NewArtifact("samples", "s.tar", "k", "0" * 64, 1, "application/x-tar", new)
    services.database.transact(lambda session: shards.commit(session, held, [made]))
    return job.id, new


@pytest.mark.parametrize("count", [1, INLINE_SAMPLES, INLINE_SAMPLES + 1, 200])
def test_a_sample_is_found_by_its_number(services, count):
    job_id, new = commit(services, count)
    artifact, entry = find_sample(services, job_id, count - 1)
    assert (artifact.key, entry.sample, entry.offset) == ("k", count - 1, 10 * (count - 1))
    assert [each.sample for each in entries(services, job_id)] == list(range(count))
    assert (new.data is None) == (count > INLINE_SAMPLES)
    assert len(list(services.store.keys("jobs"))) == (count > INLINE_SAMPLES)
    with pytest.raises(NotFound):
        find_sample(services, job_id, count)


def test_a_damaged_index_is_not_used(services):
    job_id, new = commit(services, 9)
    (key,) = services.store.keys("jobs")
    (services.store.root / key).write_bytes(bytes(9 * 44))
    with pytest.raises(DigestMismatch, match=str(new.sha256)):
        find_sample(services, job_id, 3)
