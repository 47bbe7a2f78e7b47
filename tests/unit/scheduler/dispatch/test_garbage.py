"""What is deleted from the store, and what is never."""

import os

import pytest

from db import datasets
from db.errors import DigestMismatch, NotFound
from scheduler.datasets.add import add_dataset
from scheduler.dispatch.garbage import collect_datasets, collect_jobs
from tests.shards import add_job, claim, commit, read
from worker.data.versions import object_keys
from worker.services.finalize import finalize_due


def test_what_the_record_does_not_name_is_collected_after_a_while(services) -> None:
    job = add_job(services)
    commit(services, claim(services, job))
    stray = services.store.put_bytes(f"jobs/{job.id}/blobs", b"of an attempt that was lost").key
    finalize_due(services)
    assert collect_jobs(services) == 0  # it has only just ended
    assert collect_jobs(services, older_than_s=-1) == 1
    left = set(services.store.keys(f"jobs/{job.id}"))
    assert stray not in left
    assert read(services, job).manifest_key in left
    assert len(left) == 2
    assert collect_jobs(services, older_than_s=-1) == 0


def test_nothing_of_a_job_under_way_is_collected(services) -> None:
    job = add_job(services)
    services.store.put_bytes(f"jobs/{job.id}/blobs", b"about to be committed")
    claim(services, job)
    assert collect_jobs(services, older_than_s=-1) == 0
    assert len(list(services.store.keys(f"jobs/{job.id}"))) == 1


def added(services, tmp_path, name, text):
    """The keys of the objects of a dataset just added."""
    path = tmp_path / f"{name}.txt"
    path.write_text(text)
    return object_keys(services.store, add_dataset(services, name, path).version.manifest_key)


def remove(services, name):
    services.database.transact(lambda session: datasets.remove(session, name))


def stored(services):
    return set(services.store.keys("datasets"))


def test_objects_of_removed_datasets_are_collected_once_they_are_old(services, tmp_path) -> None:
    kept, removed = (added(services, tmp_path, name, name) for name in ("kept", "gone"))
    remove(services, "gone")
    assert collect_datasets(services) == 0  # too new
    assert stored(services) == kept | removed
    assert collect_datasets(services, older_than_s=-1) == len(removed)
    assert stored(services) == kept


def test_what_a_dataset_shares_with_a_removed_one_stays(services, tmp_path) -> None:
    one, two = (added(services, tmp_path, name, "the same") for name in ("one", "two"))
    assert one & two
    remove(services, "one")
    assert collect_datasets(services, older_than_s=-1) == len(one - two) > 0
    assert stored(services) == two


def test_a_removed_dataset_that_is_being_added_again_stays(services, tmp_path, monkeypatch) -> None:
    keys = added(services, tmp_path, "back", "the same")
    remove(services, "back")
    for key in keys:
        os.utime(services.store.root / key, (0, 0))  # long ago
    real = services.database.transact

    def transact_after_a_collection(work):
        monkeypatch.undo()
        assert collect_datasets(services) == 0
        return real(work)

    monkeypatch.setattr(services.database, "transact", transact_after_a_collection)
    assert added(services, tmp_path, "back", "the same") == keys == stored(services)


@pytest.mark.parametrize(("damage", "error"), [("missing", NotFound), ("{}", DigestMismatch)])
def test_where_a_manifest_cannot_be_read_nothing_is_deleted(
    services, tmp_path, damage, error
) -> None:
    added(services, tmp_path, "bad", "bad")
    with services.database.read() as session:
        (manifest,) = datasets.manifests_in_use(session)
    left = added(services, tmp_path, "gone", "gone")
    remove(services, "gone")
    if damage == "missing":
        services.store.delete(manifest)
    else:
        next(tmp_path.rglob(manifest.rpartition("/")[2])).write_text(damage)
    with pytest.raises(error):
        collect_datasets(services, older_than_s=-1)
    assert left <= stored(services)
