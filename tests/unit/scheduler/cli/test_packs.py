"""Samples of several jobs in one object: each is as good as in an object of its own."""

import hashlib
import json
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from sqlalchemy import select

from db import artifacts, jobs
from db.session import clock
from db.tables import Artifact
from scheduler.dispatch.garbage import collect_jobs, collect_packs
from tests.unit.scheduler.cli.conftest import commit_together
from worker.services.finalize import read_manifest

COUNTS = (1, 7, 2)  # the index of seven samples is outside the row


@pytest.fixture
def batch(genmill, digits, services, tmp_path):
    """The id of a batch of three succeeded jobs, whose samples and manifests lie in packs."""
    lines = [
        {"kind": "generate", "model": digits, "count": n, "seed": n, "custom_id": f"c{n}"}
        for n in COUNTS
    ]
    (tmp_path / "jobs.jsonl").write_text("\n".join(map(json.dumps, lines)))
    batch_id = genmill("enqueue", "batch", "jobs.jsonl").out.strip()
    commit_together(services, job_ids(services, batch_id), tmp_path)
    return batch_id


def job_ids(services, batch_id):
    with services.database.read() as session:
        return sorted(job.id for job in jobs.listing(session, batch=batch_id))


def objects_of(services, job_id):
    with services.database.read() as session:
        return artifacts.of_job(session, job_id)


def damage(services, key, at):
    path = services.store.root / key
    data = bytearray(path.read_bytes())
    data[at] ^= 255
    path.write_bytes(data)


def test_samples_and_manifests_of_a_batch_are_two_objects(services, batch):
    assert len(list(services.store.keys("packs"))) == 2
    assert list(services.store.keys("jobs")) == []


def test_a_batch_in_packs_is_verified_and_downloaded(genmill, services, batch):
    checked = genmill("artifact", "verify", batch, "--json")
    assert checked.code == 0, checked.err
    assert sorted(each["samples"] for each in checked.json) == sorted(COUNTS)
    assert genmill("artifact", "download", batch, "-o", "out").code == 0
    for job_id in job_ids(services, batch):
        with services.database.read() as session:
            made = artifacts.count_samples(session, job_id)
        names = sorted(path.name for path in Path("out", job_id).iterdir())
        assert names == [f"{n:09d}.{kind}" for n in range(made) for kind in ("json", "png")]


def test_a_batch_in_packs_is_read_in_few_requests(genmill, services, batch, monkeypatch):
    opened = []
    real = type(services.store).open
    monkeypatch.setattr(
        type(services.store), "open", lambda self, *a, **k: opened.append(a) or real(self, *a, **k)
    )
    assert genmill("artifact", "download", batch, "-o", "out").code == 0
    assert len(opened) == 3  # the first two artifacts or indexes, then the pack


@pytest.mark.parametrize("form", ["webdataset", "jsonl"])
def test_other_formats_are_downloaded_from_packs(genmill, services, batch, form):
    [one, *_] = job_ids(services, batch)
    asked = genmill("artifact", "download", one, "-o", "out", "--as", form)
    assert asked.code == 0, asked.err
    [artifact] = objects_of(services, one)
    if form == "webdataset":
        data = Path("out", artifact.name).read_bytes()
        assert hashlib.sha256(data).hexdigest() == artifact.sha256
    else:
        assert len(Path("out/samples.jsonl").read_text().splitlines()) == COUNTS[0]


def test_a_damaged_pack_names_the_job_whose_bytes_are_wrong(genmill, services, batch):
    bad = job_ids(services, batch)[1]
    [artifact] = objects_of(services, bad)
    damage(services, artifact.key, artifact.pack_offset + artifact.size - 1)
    checked = genmill("artifact", "verify", batch, "--json")
    assert checked.code == 1
    wrong = {each["job"]: each["problems"] for each in checked.json if each["problems"]}
    assert list(wrong) == [bad]
    assert wrong[bad][0].startswith(f"{artifact.name}: SHA-256 is ")
    assert genmill("artifact", "download", bad, "-o", "bad").code == 1
    assert genmill("artifact", "download", job_ids(services, batch)[2], "-o", "good").code == 0


def test_a_download_fetches_all_that_is_whole_and_names_the_rest(genmill, services, batch):
    one, bad, three = job_ids(services, batch)
    [artifact] = objects_of(services, bad)
    damage(services, artifact.key, artifact.pack_offset + artifact.size - 1)
    got = genmill("artifact", "download", batch, "-o", "out")
    assert got.code == 1
    assert got.err.startswith("Error: 1 of 3 objects are damaged or lost; the rest is in out:")
    assert f"{artifact.name} of job {bad}: " in got.err
    for job_id in (one, three):
        assert list(Path("out", job_id).glob("*.png"))


def test_a_download_of_what_is_lost_fails_as_damage_does(genmill, services, batch):
    services.store.delete(objects_of(services, job_ids(services, batch)[0])[0].key)
    got = genmill("artifact", "download", batch, "-o", "out")
    assert (got.code, "3 of 3 objects are damaged or lost" in got.err) == (1, True)


def test_a_wrong_address_of_the_store_is_not_damage(genmill, services, batch, monkeypatch):
    monkeypatch.setenv("GENMILL_STORE_URL", "s3://bucket/?nothing=known")
    checked = genmill("artifact", "verify", batch)
    assert (checked.code, "GENMILL_STORE_URL" in checked.err) == (2, True)


def test_a_damaged_index_in_a_pack_is_told(genmill, services, batch):
    bad = job_ids(services, batch)[1]
    [artifact] = objects_of(services, bad)
    damage(services, artifact.key, artifact.pack_offset + artifact.size)
    wrong = genmill("artifact", "verify", bad)
    assert (wrong.code, f"{artifact.name}: index: the index in" in wrong.err) == (1, True)


def test_a_damaged_or_missing_pack_of_manifests_is_told(genmill, services, batch):
    one, two, three = job_ids(services, batch)
    with services.database.read() as session:
        place = jobs.get(session, two).packed_manifest
    damage(services, place.key, place.offset)
    assert "manifest: SHA-256 is" in genmill("artifact", "verify", two).err
    assert genmill("artifact", "verify", one).code == genmill("artifact", "verify", three).code == 0
    services.store.delete(place.key)
    assert f"manifest: no object {place.key!r}" in genmill("artifact", "verify", one).err


def test_a_missing_pack_is_told_by_each_of_its_artifacts(genmill, services, batch):
    services.store.delete(objects_of(services, job_ids(services, batch)[0])[0].key)
    checked = genmill("artifact", "verify", batch, "--json")
    assert all("no object 'packs/" in each["problems"][0] for each in checked.json)


def test_a_manifest_in_a_pack_is_that_job_s_own(services, batch):
    for job_id in job_ids(services, batch):
        with services.database.read() as session:
            job, expected = jobs.get(session, job_id), jobs.manifest(session, job_id)
        data = read_manifest(services, job)
        assert json.loads(data) == expected
        assert hashlib.sha256(data).hexdigest() == job.manifest_sha256


def test_the_url_of_an_artifact_in_a_pack_is_that_of_a_copy(genmill, services, batch):
    two = job_ids(services, batch)[1]
    [row] = genmill("artifact", "list", two, "--json").json
    assert (row["key"].startswith("packs/"), row["offset"] > 0) == (True, True)
    address = genmill("artifact", "url", row["id"]).out.strip()
    data = Path(unquote(urlsplit(address).path)).read_bytes()
    assert hashlib.sha256(data).hexdigest() == row["sha256"]
    assert collect_jobs(services, older_than_s=-1) == 0  # the copy is not garbage
    assert genmill("artifact", "url", row["id"]).out.strip() == address
    assert genmill("artifact", "verify", two).code == 0


def test_a_sample_in_a_pack_is_reproduced(genmill, services, batch, worker):
    two = job_ids(services, batch)[1]
    same = genmill("artifact", "reproduce", two, "5", "--json")
    assert (same.code, same.json["equal"]) == (0, True)
    again = genmill("job", "show", same.json["job"], "--json").json
    assert again["custom_id"] == "c7"  # which the sample's record holds


def test_a_pack_goes_once_nothing_in_it_is_kept(genmill, services, batch):
    ids = job_ids(services, batch)
    lost = services.store.put_as(f"packs/{1:016x}", b"of commits that never came").key
    other = services.store.put_as("packs/readme", b"somebody else's").key
    assert collect_packs(services) == 0  # it may be about to be recorded
    assert collect_packs(services, older_than_s=-1) == 1
    assert lost not in services.store.keys("packs")
    assert other in services.store.keys("packs")
    remove_artifacts(services, ids[:2])
    assert collect_packs(services, older_than_s=-1) == 0
    assert genmill("artifact", "verify", ids[2]).code == 0
    remove_artifacts(services, ids[2:])
    assert collect_packs(services, older_than_s=-1) == 1
    assert len(list(services.store.keys("packs"))) == 2  # the other, and the manifests, which stay
    assert genmill("artifact", "download", ids[2], "-o", "out").code == 1


def remove_artifacts(services, ids):
    """What retention does to the artifacts of old jobs."""
    with services.database.write() as session:
        for artifact in session.scalars(select(Artifact).where(Artifact.job_id.in_(ids))):
            artifact.removed_at = clock(session)
        for job_id in ids:
            jobs.get(session, job_id).collected_at = None


def test_a_copy_goes_with_its_artifact(genmill, services, batch):
    [one, *_] = job_ids(services, batch)
    [artifact] = objects_of(services, one)
    genmill("artifact", "url", artifact.id)
    assert list(services.store.keys("jobs")) == [artifact.own_key]
    remove_artifacts(services, [one])
    assert collect_jobs(services, older_than_s=-1) == 1
