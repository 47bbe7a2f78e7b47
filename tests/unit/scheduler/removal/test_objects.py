"""Deleting what removed versions leave, on each database, while others record versions."""

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from sqlalchemy import text

from db import datasets, models, own_store, tombstones, version_removal
from db.errors import GenmillError
from db.session import Database
from scheduler.removal.objects import UnreadableManifest, sweep, sweep_all
from worker.data.versions import object_keys
from worker.services.shared_objects import store_and_record
from worker.store.folder import FolderStore

DIGEST = "ab" * 32
NAMES = ("documents.npy", "offsets.npy", "split.npy")


class Stores(FolderStore):
    """A store that counts the objects it opens, and can refuse to delete one."""

    opened, refused = 0, ""

    def open(self, key):
        self.opened += 1
        return super().open(key)

    def delete(self, key):
        if key == self.refused:
            raise OSError("it is held")
        super().delete(key)


class Between:
    """A database that runs something right before its n-th transaction."""

    def __init__(self, database, number: int, act: Callable[[], object]) -> None:
        self.read, self._database, self._left, self._act = database.read, database, number, act

    def transact(self, work):
        self._left -= 1
        if self._left == 0:
            self._act()
        return self._database.transact(work)


@pytest.fixture
def services(each_database, tmp_path: Path):
    with each_database.write() as session:
        own_store.introduce(session, "0" * 36)
    return SimpleNamespace(database=each_database, store=Stores(tmp_path / "store"))


def store_texts(services, *contents: str) -> list[str]:
    """Store the objects of a dataset version; their keys, its manifest's last."""
    objects = []
    for name, content in zip(NAMES, contents, strict=False):
        blob = services.store.put_bytes("datasets/blobs", content.encode())
        objects.append({"name": name, "sha256": blob.sha256, "size": blob.size})
    manifest = services.store.put_bytes("datasets/blobs", json.dumps({"objects": objects}).encode())
    return [*(f"datasets/blobs/{each['sha256']}" for each in objects), manifest.key]


def record(session, name: str, manifest: str) -> str:
    digest = manifest.rpartition("/")[2]
    place = {"manifest_key": manifest, "manifest_sha256": digest, "summary": {}}
    return datasets.add_version(session, name=name, kind="text", **place).id


def add(services, name: str, *contents: str) -> str:
    manifest = store_texts(services, *contents)[-1]
    return services.database.transact(lambda session: record(session, name, manifest))


def remove(services, reference: str) -> list[str]:
    def work(session):
        dataset, versions = version_removal.removable_datasets(session, reference)
        ids = [each.id for each in versions]
        how = {"who": "ann@host", "kept": False}
        version_removal.remove_content(session, dataset, dict.fromkeys(ids, 1), **how)
        return ids

    return services.database.transact(work)


def grave(services, thing_id: str):
    with services.database.read() as session:
        return tombstones.find(session, thing_id)


def test_what_is_recorded_between_two_deletions_stays_whole(services):
    texts = ("a girl", "a fox", "the woods")
    add(services, "tale", *texts)
    [removed] = remove(services, "tale")

    def add_again():
        manifest = store_texts(services, *texts)[-1]
        store_and_record(
            services,
            lambda: store_texts(services, *texts),
            lambda session: record(session, "copy", manifest),
        )

    between = SimpleNamespace(database=Between(services.database, 2, add_again))
    between.store = services.store
    assert sweep(between, grave(services, removed)) == 1
    with services.database.read() as session:
        [manifest] = datasets.manifests_in_use(session)
    assert all(map(services.store.has, object_keys(services.store, manifest)))
    assert grave(services, removed).sweep_at is None


def test_a_version_is_recorded_though_a_removal_takes_its_objects_one_by_one(services):
    texts = ("a girl", "a fox", "the woods")
    keys = store_texts(services, *texts)
    going = list(keys)

    def store_then_lose():
        store_texts(services, *texts)
        if going:
            services.store.delete(going.pop(0))
        return keys

    store_and_record(services, store_then_lose, lambda session: record(session, "tale", keys[-1]))
    assert all(map(services.store.has, keys))


def test_a_model_file_that_is_named_between_two_deletions_stays(services):
    files = {
        name: vars(services.store.put_bytes("models/blobs", name.encode()))
        for name in ("model.safetensors", "vocabulary.json")
    }
    rest = {"family": "gan", "params": {}, "weights_sha256": DIGEST, "metrics": {}}

    def name_all(session, name: str) -> None:
        models.add_version(session, name=name, files=files, **rest)

    def remove_all(session) -> str:
        model, [version] = version_removal.removable_versions(session, "painter")
        how = {"who": "ann@host", "kept": False}
        assert version_removal.remove_versions(session, model, [version.id], **how) == {}
        return version.id

    services.database.transact(lambda session: name_all(session, "painter"))
    removed = services.database.transact(remove_all)
    act = partial(services.database.transact, lambda session: name_all(session, "copy"))
    between = SimpleNamespace(database=Between(services.database, 2, act), store=services.store)
    assert sweep(between, grave(services, removed)) == 1
    assert sum(services.store.has(each["key"]) for each in files.values()) == 1


def test_each_deletion_holds_the_lock_however_slow_the_store_is(services, monkeypatch):
    add(services, "tale", "a girl", "a fox")
    [removed] = remove(services, "tale")
    waited = []

    def delete(store, key):
        waited.append(is_locked(services.database))

    monkeypatch.setattr(Stores, "delete", delete)
    assert sweep(services, grave(services, removed)) == 3
    assert waited == [True] * 3
    assert not is_locked(services.database)


def is_locked(database) -> bool:
    """Whether whoever records a version would have to wait now."""
    if database.dialect == "sqlite":
        with closing(sqlite3.connect(database.url.database, timeout=0)) as connection:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                return True
        return False
    with database.read() as session:
        free = session.execute(text("SELECT 1 FROM own_store FOR SHARE SKIP LOCKED")).all()
    return not free


def test_the_server_does_not_end_a_deletion_for_a_slow_store(postgresql_database_url):
    database = Database(postgresql_database_url)
    show = text("SHOW idle_in_transaction_session_timeout")
    for shared, idle in ((False, "10min"), (True, "30s")):
        with database.write() as session:
            own_store.lock_objects(session, shared=shared)
            assert session.scalar(show) == idle
    database.dispose()


def test_the_manifest_stays_until_all_the_others_are_gone(services):
    add(services, "tale", "a girl", "a fox")
    [removed] = remove(services, "tale")
    first, second, manifest = store_texts(services, "a girl", "a fox")
    services.store.refused = first
    with pytest.raises(GenmillError, match=f"object {first} cannot be deleted"):
        sweep_all(services, [removed])
    assert [*map(services.store.has, (first, second, manifest))] == [True, False, True]
    services.store.refused = ""
    sweep_all(services, [removed])
    assert not any(map(services.store.has, (first, second, manifest)))


def test_manifests_in_use_are_read_once_for_all_that_was_removed(services):
    for number in range(4):
        add(services, "old", f"old {number}")
        add(services, "used", f"used {number}")
    removed = remove(services, "old")
    services.store.opened = 0
    assert sweep_all(services, removed) == 8
    assert services.store.opened == 8


def test_of_a_damaged_version_its_manifest_goes(services, tmp_path):
    add(services, "tale", "a girl")
    [removed] = remove(services, "tale")
    blob, manifest = store_texts(services, "a girl")
    (tmp_path / "store" / manifest).write_bytes(b"{}")
    assert sweep_all(services, [removed]) == 1
    assert [*map(services.store.has, (blob, manifest))] == [True, False]
    assert grave(services, removed).sweep_at is None


def test_nothing_goes_while_one_in_use_cannot_be_read(services, tmp_path):
    add(services, "tale", "a girl")
    add(services, "used", "a fox")
    [removed] = remove(services, "tale")
    (tmp_path / "store" / store_texts(services, "a fox")[-1]).write_bytes(b"{}")
    with pytest.raises(UnreadableManifest):
        sweep_all(services, [removed])
    assert all(map(services.store.has, store_texts(services, "a girl")))
