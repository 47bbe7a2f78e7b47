"""Artifacts, and which of them holds which sample."""

from dataclasses import replace

import pytest

from db import artifacts, models, shards
from db.errors import NotFound
from tests.shards import succeed


@pytest.fixture
def made(record):
    job_id, *ids = record.add((0, 3), (3, 7))
    for shard_id in ids[::-1]:
        record.commit(record.claim(shard_id))
    return job_id


def test_artifacts_come_in_the_order_of_their_shards(record, made):
    names = [artifact.name for artifact in record.run(artifacts.of_job, made)]
    assert names == ["samples-00000.tar", "samples-00001.tar"]
    assert record.run(artifacts.of_job, made, "preview") == []


def test_an_artifact_is_found_by_a_prefix(record, made):
    first, _ = record.run(artifacts.of_job, made)
    assert record.run(artifacts.get, first.id[:-2]).id == first.id
    with pytest.raises(NotFound, match="no artifact"):
        record.run(artifacts.get, "ffff")


def test_samples_are_paged_by_shard(record, made):
    ((first, shard),) = record.run(artifacts.samples_page, made, limit=1)
    assert (first.name, shard.start, shard.stop) == ("samples-00000.tar", 0, 3)
    assert first.index_data == bytes(3 * 44)
    ((second, _),) = record.run(artifacts.samples_page, made, after=shard.idx)
    assert second.name == "samples-00001.tar"
    assert record.run(artifacts.samples_page, made, after=1) == []


@pytest.mark.parametrize(("sample", "shard"), [(0, 0), (2, 0), (3, 1), (6, 1)])
def test_the_object_of_a_sample_is_found_by_the_ranges_of_the_shards(record, made, sample, shard):
    artifact, found = record.run(artifacts.holding, made, sample)
    assert (artifact.name, found.idx) == (f"samples-{shard:05}.tar", shard)


@pytest.mark.parametrize("sample", [1, 8, 11, 17, 30])
def test_a_sample_that_no_shard_has_committed_is_not_found(record, sample):
    job_id, *ids = record.add((2, 5), (8, 10), (12, 14), (14, 20))
    for shard_id in (ids[0], ids[2]):
        record.commit(record.claim(shard_id))
    assert record.run(artifacts.holding, job_id, 13)[1].idx == 2
    with pytest.raises(NotFound, match=f"no sample {sample} yet"):
        record.run(artifacts.holding, job_id, sample)


def test_a_key_that_follows_from_the_digest_is_not_kept(record):
    job_id, shard_id = record.add((0, 1), kind="train")
    claim = record.claim(shard_id)
    keys = {"a.json": f"jobs/{job_id}/blobs/{'a' * 64}", "b.json": "models/blobs/b"}
    made = [shards.NewArtifact("weights", *each, "a" * 64, 1, "x/y") for each in keys.items()]
    record.run(shards.commit, claim, made)
    stored = record.run(artifacts.of_job, job_id)
    assert {each.name: each.key for each in stored} == keys
    assert [each.other_key for each in stored] == [None, "models/blobs/b"]


def test_an_index_in_the_store_is_referenced(record):
    job_id, shard_id = record.add((0, 9))
    claim = record.claim(shard_id)
    (made,) = record.samples_of(claim)
    index = shards.NewIndex(range(9), "a" * 64, sha256="b" * 64)
    record.run(shards.commit, claim, [replace(made, index=index)])
    keys = record.run(artifacts.referenced_keys, job_id)
    assert keys == {made.key, f"jobs/{job_id}/blobs/{'b' * 64}"}


def test_every_key_of_a_job_is_referenced(record, made):
    record.run(succeed, made, f"jobs/{made}/manifest.json", "a" * 64)
    blobs = {artifact.key for artifact in record.run(artifacts.of_job, made)}
    assert record.run(artifacts.referenced_keys, made) == blobs | {f"jobs/{made}/manifest.json"}


def test_files_that_a_later_model_version_uses_are_referenced(record, made):
    key = f"jobs/{made}/blobs/tokenizer"
    record.run(
        models.add_version,
        name="digits",
        family="gpt",
        params={},
        files={"tokenizer.json": {"key": key, "sha256": "a" * 64, "size": 1}},
        weights_sha256="a" * 64,
        metrics={},
    )
    assert key in record.run(artifacts.referenced_keys, made)
