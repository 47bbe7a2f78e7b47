"""A store that is not the record's own is an outage: nothing is missed, and nothing written."""

import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest

from db import datasets, own_store, schema
from db.errors import NotFound, Unreachable
from db.tables import OwnStore
from worker.services import Services
from worker.settings import Settings
from worker.store.base import SENTINEL
from worker.store.folder import FolderStore


@pytest.fixture(params=["folder", "s3"])
def places(request, tmp_path, each_database) -> dict[str, str]:
    url = each_database.url.render_as_string(hide_password=False)
    if request.param == "folder":
        return {"database_url": url, "store_url": (tmp_path / "store").as_uri()}
    s3 = request.getfixturevalue("s3")
    return {"database_url": url, "store_url": s3.url, "s3_endpoint_url": s3.endpoint_url}


@pytest.fixture
def opened(places, tmp_path):
    """Open the services anew, as another process would."""
    every = []

    def open_anew(**changes: str) -> Services:
        every.append(Services(Settings(_env_file=None, home=tmp_path, **{**places, **changes})))
        return every[-1]

    yield open_anew
    for each in every:
        each.close()


def elsewhere(services: Services) -> dict[str, str]:
    return {"store_url": f"{services.settings.store}-elsewhere"}


def test_the_first_use_makes_the_sentinel_that_every_process_finds(opened):
    key = opened().store.put_bytes("a", b"x").key
    again = opened()
    with pytest.raises(NotFound, match="no object 'a/b'"):
        again.store.stat("a/b")
    with again.database.read() as session:
        known = own_store.expected(session)
    assert (again.store.read_sentinel(), known.made) == (known.id, True)
    assert again.store.has(key)


def test_processes_that_begin_together_agree_on_one_sentinel(opened):
    every = [opened() for _ in range(6)]
    with ThreadPoolExecutor(6) as threads:
        list(threads.map(lambda each: each.store.put_bytes("a", b"x"), every))
    assert len({each.store.read_sentinel() for each in every}) == 1


@pytest.mark.parametrize("verb", ["stat", "open", "put", "put_as", "keys", "fetch"])
def test_a_store_without_the_sentinel_is_away_and_stays_empty(opened, tmp_path, verb):
    services = opened()
    services.store.put_bytes("a", b"x")
    other = opened(**elsewhere(services)).store
    root = getattr(other, "root", None)
    if root is not None:
        root.mkdir()  # an empty mount point
    with pytest.raises(Unreachable, match=r"not mounted, or not the store of this record: .*sto"):
        {
            "stat": lambda: other.stat("a/b"),
            "open": lambda: other.open("a/b").__enter__(),
            "put": lambda: other.put_bytes("a", b"x"),
            "put_as": lambda: other.put_as("a/b", b"x"),
            "keys": lambda: list(other.keys("a")),
            "fetch": lambda: other.fetch("a/b", tmp_path / "x"),
        }[verb]()
    assert not other.has("a/b")
    assert root is None or list(root.iterdir()) == []


def test_a_store_of_another_record_is_told_by_both_ids(opened, tmp_path):
    services = opened()
    services.store.put_bytes("a", b"x")
    other = opened(**elsewhere(services)).store
    other.owner = None
    other.put_as(SENTINEL, b"of another record")
    again = opened(**elsewhere(services)).store
    with pytest.raises(Unreachable, match="another store: its id is of another record, and the on"):
        again.stat("a/b")


def test_a_record_that_has_used_no_store_adopts_the_one_that_it_finds(opened):
    services = opened()
    services.store.owner = None
    services.store.put_as(SENTINEL, b"018f0000-0000-7000-8000-000000000000")
    again = opened()
    again.store.put_bytes("a", b"x")
    with again.database.read() as session:
        known = own_store.expected(session)
    assert known == ("018f0000-0000-7000-8000-000000000000", True, False)


def test_a_home_from_before_sentinels_gets_one_only_where_its_objects_are(opened):
    services = opened()
    services.store.owner = None
    key = services.store.put_bytes("datasets/blobs", b"{}").key
    with services.database.write() as session:
        session.add(OwnStore(only=1, id="older", made=False, had_objects=True))
        named = {"manifest_key": key, "manifest_sha256": key[-64:], "summary": {}}
        datasets.add_version(session, name="digits", kind="image", **named)
    with pytest.raises(Unreachable, match=f"none of 1 objects on record, such as '{key}'"):
        opened(**elsewhere(services)).store.put_bytes("a", b"x")
    opened().store.put_bytes("a", b"x")
    assert services.store.read_sentinel() == "older"


def test_a_folder_that_is_unmounted_between_write_and_flush_does_not_count(opened, tmp_path):
    services = opened()
    store = services.store
    if not isinstance(store, FolderStore):
        pytest.skip("only a folder is mounted")
    store.put_bytes("a", b"x")
    store.root.rename(tmp_path / "away")
    (tmp_path / "store" / ".tmp").mkdir(parents=True)  # somebody wrote here before it was mounted
    store.put_bytes("a", b"y", durable=False)
    with pytest.raises(Unreachable, match="not mounted"):
        store.flush()
    shutil.rmtree(store.root)
    (tmp_path / "away").rename(store.root)
    key = store.put_bytes("a", b"y", durable=False).key
    store.flush()
    assert store.has(key)


def test_reading_what_is_there_never_asks_for_the_sentinel(opened, monkeypatch):
    services = opened()
    key = services.store.put_bytes("a", b"x").key
    store = opened().store
    monkeypatch.setattr(store, "owner", None)  # asking it would fail
    monkeypatch.setattr(type(store), "verify", lambda *_, **__: pytest.fail("asked"))
    with store.open(key) as file:
        assert file.read() == b"x"
    assert store.stat(key).size == 1


def test_processes_that_begin_together_agree_on_one_key(opened):
    every = [opened(store_encryption="aes-256-gcm") for _ in range(6)]

    def store(number: int) -> str:
        return every[number].store.put_bytes("a", bytes([number])).key

    with ThreadPoolExecutor(6) as threads:
        keys = list(threads.map(store, range(6)))
    again = opened(store_encryption="aes-256-gcm").store
    for number, key in enumerate(keys):
        with again.open(key) as file:
            assert file.read() == bytes([number])


@pytest.mark.slow
def test_a_store_is_encrypted_from_its_first_use_on_or_not_at_all(opened):
    for first, then, says in (
        ("none", "aes-256-gcm", "is not encrypted, and GENMILL_STORE_ENCRYPTION is aes-256-gcm"),
        ("aes-256-gcm", "none", "is encrypted, and GENMILL_STORE_ENCRYPTION is none"),
    ):
        place = f"{opened().settings.store}-{first}"
        database = f"sqlite:///{opened().settings.home / first}.db"
        schema.upgrade(database)
        where = {"store_url": place, "database_url": database}
        key = opened(**where, store_encryption=first).store.put_bytes("a", b"x").key
        for ask in (
            lambda store, key=key: store.stat(key),
            lambda store: store.put_bytes("a", b"y"),
            lambda store: store.put_as("a/b", b"y"),
            lambda store: list(store.keys("a")),
        ):
            with pytest.raises(Unreachable, match=says):
                ask(opened(**where, store_encryption=then).store)
        assert opened(**where, store_encryption=first).store.stat(key).size == 1
