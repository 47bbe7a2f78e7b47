"""Indexes of samples, stored by workers and read by number."""

import hashlib
import urllib.request

import pytest

from db import artifacts, shards
from db.errors import DigestMismatch, NotFound
from db.tables import Artifact
from tests.shards import add_job, claim
from worker.media.samples.index import IndexEntry, SampleIndex
from worker.services import Services
from worker.services.samples import (
    INLINE_SAMPLES,
    describe_index,
    entries,
    fetch_artifact,
    find_sample,
    open_artifact,
    own_object,
    read_sample,
    store_index,
)
from worker.settings import Settings
from worker.store.packs import PackWriter


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


@pytest.fixture(params=["folder", "s3"])
def with_store(request, database_url, tmp_path):
    """Services on each kind of store."""
    places = {}
    if request.param == "s3":
        s3 = request.getfixturevalue("s3")
        places = {"store_url": s3.url, "s3_endpoint_url": s3.endpoint_url}
    made = Services(Settings(_env_file=None, home=tmp_path, database_url=database_url, **places))
    yield made
    made.close()


def test_a_packed_artifact_is_read_fetched_and_copied(with_store, tmp_path):
    services, data, pack = with_store, b"two samples", PackWriter()
    job = add_job(services, sizes=[2])
    held = claim(services, job)
    pack.add(b"another job's")
    place = pack.add(data)
    pack.store(services.store)
    index = SampleIndex.of(
        IndexEntry(n, 4 * n, 4, hashlib.sha256(data[4 * n : 4 * n + 4]).hexdigest()) for n in (0, 1)
    )
    new, sha256 = describe_index(index), hashlib.sha256(data).hexdigest()
    made = shards.NewArtifact("samples", "s", place.key, sha256, place.size, "text/x", new, place)
    services.database.transact(lambda session: shards.commit(session, held, [made]))
    artifact, entry = find_sample(services, job.id, 1)
    assert read_sample(services, artifact, entry) == data[4:8]
    with open_artifact(services, artifact) as file:
        assert file.read() == data
    fetch_artifact(services, artifact, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == data
    address = services.store.url(own_object(services, artifact), 60)
    with urllib.request.urlopen(address) as answer:
        assert answer.read() == data
    with services.database.read() as session:
        assert own_object(services, artifact) in artifacts.referenced_keys(session, job.id)


def test_a_damaged_pack_gives_no_copy(services, tmp_path):
    pack = PackWriter()
    place = pack.add(b"right")
    pack.store(services.store)
    (services.store.root / place.key).write_bytes(b"wrong")
    artifact = Artifact(
        id="a", job_id="j", size=5, sha256="0" * 64, pack=place.pack, pack_offset=place.offset
    )
    with pytest.raises(DigestMismatch, match=f"artifact a in object {place.key}"):
        own_object(services, artifact)
    with pytest.raises(DigestMismatch):
        fetch_artifact(services, artifact, tmp_path / "file")
    assert not (tmp_path / "file").exists()
