"""Artifacts and the samples inside them."""

import pytest

from db import artifacts, jobs, models
from db.errors import NotFound


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


def test_members_are_paged_by_sample(record, made):
    first = [member.sample for member in record.run(artifacts.members, made, limit=5)]
    rest = [member.sample for member in record.run(artifacts.members, made, after=first[-1])]
    assert (first, rest) == ([0, 1, 2, 3, 4], [5, 6])
    digests = [member.sha256 for member in record.run(artifacts.members, made)]
    assert digests == [f"{i:064x}" for i in range(7)]


def test_a_sample_is_found_with_its_artifact(record, made):
    member, artifact = record.run(artifacts.member, made, 5)
    assert (member.sample, member.name, artifact.name) == (5, "000000005.png", "samples-00001.tar")
    with pytest.raises(NotFound, match="no sample 7"):
        record.run(artifacts.member, made, 7)


def test_every_key_of_a_job_is_referenced(record, made):
    record.run(jobs.succeed, made, f"jobs/{made}/manifest.json", "a" * 64)
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
