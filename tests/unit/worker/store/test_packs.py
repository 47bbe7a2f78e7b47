"""Many small things in one object of either store."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from db.errors import NotFound
from worker.store import open_store
from worker.store.base import ObjectStore
from worker.store.packs import PACKS_KEPT, RANGES_READ, PackReader, PackWriter

PARTS = [bytes([n]) * (n + 1) for n in range(20)]


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    if request.param == "folder":
        return open_store((tmp_path / "store").as_uri())
    s3 = request.getfixturevalue("s3")
    return open_store(s3.url, s3_endpoint_url=s3.endpoint_url)


@pytest.fixture
def opened(store, monkeypatch):
    """The reads of the store, as keys."""
    keys, lock = [], threading.Lock()
    real = store.open

    def counted(key, **window):
        with lock:
            keys.append(key)
        return real(key, **window)

    monkeypatch.setattr(store, "open", counted)
    return keys


def pack(store):
    writer = PackWriter()
    places = [writer.add(data) for data in PARTS]
    writer.store(store)
    store.flush()
    return places


def test_each_part_is_read_back(store):
    places, reader = pack(store), PackReader(store)
    assert list(store.keys("packs")) == [places[0].key]
    assert [reader.read(place) for place in places] == PARTS


def test_a_few_parts_are_ranged_reads_and_all_parts_are_one_more(store, opened):
    places, reader = pack(store), PackReader(store)
    for place in places:
        reader.read(place)
    assert len(opened) == RANGES_READ + 1


def test_threads_read_a_pack_once(store, opened):
    places, reader = pack(store), PackReader(store)
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(reader.read, places)) == PARTS
    assert len(opened) == RANGES_READ + 1


def test_only_the_latest_packs_are_kept(store, opened):
    reader = PackReader(store)
    packs = [pack(store) for _ in range(PACKS_KEPT + 1)]
    for places in packs:
        for place in places[: RANGES_READ + 1]:
            reader.read(place)
    opened.clear()
    reader.read(packs[-1][0])
    assert opened == []
    reader.read(packs[0][0])
    assert opened == [packs[0][0].key]


def test_two_packs_never_share_a_number(store):
    assert pack(store)[0].key != pack(store)[0].key


def test_a_pack_that_is_gone_or_cut_off_is_told(store):
    places = pack(store)
    store.delete(places[0].key)
    with pytest.raises(NotFound, match="packs/"):
        PackReader(store).read(places[0])
    store.put_as(places[0].key, b"\0")
    assert PackReader(store).read(places[-1]) == b""
