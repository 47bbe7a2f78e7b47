"""One suite that all stores pass, encrypted or not; the S3 ones speak HTTP to a server."""

import hashlib
import multiprocessing
import os
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from db.errors import DigestMismatch, NotFound, Refused
from tests.encrypting import encrypt
from worker.store import open_store
from worker.store import s3 as stores
from worker.store.base import Blob, ObjectStore
from worker.store.folder import FolderStore
from worker.store.s3 import S3Store

DATA = bytes(range(256)) * 40  # 10,240 bytes


@pytest.fixture(
    params=[
        *("folder", "s3", "encrypted folder"),
        pytest.param("encrypted s3", marks=pytest.mark.slow),
    ]
)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    encrypted, kind = "encrypted" in request.param, request.param.split()[-1]
    if kind == "folder":
        store = open_store((tmp_path / "a store").as_uri())
    else:
        s3 = request.getfixturevalue("s3")
        store = open_store(s3.url, s3_endpoint_url=s3.endpoint_url)
    return encrypt(store, tmp_path) if encrypted else store


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(DATA)
    return path


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def read(store: ObjectStore, key: str, **window: int) -> bytes:
    with store.open(key, **window) as stream:
        return stream.read()


def test_a_file_is_stored_under_its_digest(store, file):
    blob = store.put("jobs/1/blobs", file)
    assert blob == Blob(f"jobs/1/blobs/{sha256(DATA)}", sha256(DATA), len(DATA))
    assert read(store, blob.key) == DATA


def test_bytes_are_stored_under_their_digest(store):
    blob = store.put_bytes("jobs/1/blobs", b"hello")
    assert blob.key == f"jobs/1/blobs/{sha256(b'hello')}"
    assert store.stat(blob.key) == blob


def test_small_objects_that_are_flushed_together_are_all_there(store):
    blobs = [store.put_bytes("jobs/1/blobs", bytes([n]), durable=False) for n in range(20)]
    blobs.append(store.put_as("jobs/1/manifest.json", b"{}", durable=False))
    store.flush()
    store.flush()
    assert {blob.key for blob in blobs} == set(store.keys("jobs/1"))
    with store.open(blobs[7].key) as file:
        assert file.read() == bytes([7])


@pytest.mark.parametrize("store", ["folder", "s3"], indirect=True)
def test_a_version_tells_an_object_from_one_that_is_written_later(store):
    for key in ("pages/a.html", "pages/b/c.html"):
        store.replace_public(key, b"one", media_type="text/html")
    before = dict(store.versions("pages"))
    assert before == dict(store.versions("pages"))
    store.replace_public("pages/b/c.html", b"two", media_type="text/html")
    after = dict(store.versions("pages"))
    assert before.keys() == after.keys() == {"pages/a.html", "pages/b/c.html"}
    assert [key for key in after if after[key] != before[key]] == ["pages/b/c.html"]


def test_the_same_bytes_again_are_one_object(store, file):
    assert store.put("a", file) == store.put("a", file) == store.put_bytes("a", DATA)
    assert list(store.keys("a")) == [f"a/{sha256(DATA)}"]


def test_an_empty_object_is_an_object(store, tmp_path):
    blob = store.put_bytes("a", b"")
    store.fetch(blob.key, tmp_path / "empty", sha256=blob.sha256)
    assert read(store, blob.key) == (tmp_path / "empty").read_bytes() == b""


def test_a_range_reads_nothing_else(store, file):
    key = store.put("a", file).key
    assert read(store, key, start=100, stop=356) == DATA[100:356]
    assert read(store, key, start=10_000) == DATA[10_000:]
    assert read(store, key, start=10_000, stop=99_999) == DATA[10_000:]
    assert read(store, key, start=7, stop=7) == b""
    assert read(store, key, start=10_240) == b""


def test_a_chosen_key_keeps_its_first_bytes(store):
    first = store.put_as("jobs/1/manifest.json", b"{}")
    assert store.put_as("jobs/1/manifest.json", b"{}") == first
    with pytest.raises(DigestMismatch, match=r"jobs/1/manifest.json already holds 2 other bytes"):
        store.put_as("jobs/1/manifest.json", b"[]")
    assert read(store, "jobs/1/manifest.json") == b"{}"


def test_stat_of_a_key_that_is_no_digest_knows_the_size_alone(store):
    store.put_as("jobs/1/manifest.json", b"{}")
    assert store.stat("jobs/1/manifest.json") == Blob("jobs/1/manifest.json", "", 2)


@pytest.mark.parametrize("verb", ["stat", "open", "fetch", "part"])
def test_a_missing_object_is_not_found_by_its_key(store, verb, tmp_path):
    store.put_bytes("there", b"something")
    with pytest.raises(NotFound, match="no object 'a/b'"):
        {
            "stat": lambda: store.stat("a/b"),
            "open": lambda: read(store, "a/b"),
            "part": lambda: read(store, "a/b", start=3, stop=3),
            "fetch": lambda: store.fetch("a/b", tmp_path / "x"),
        }[verb]()


def test_a_deleted_object_is_gone_and_deleting_again_is_no_error(store, file):
    key = store.put("a", file).key
    store.delete(key)
    store.delete(key)
    assert list(store.keys("a")) == []


def test_keys_are_those_of_the_folder_and_not_of_its_namesakes(store):
    made = {store.put_bytes(f"jobs/{job}/blobs", b"x").key for job in (1, 10, 2)}
    assert set(store.keys("jobs")) == made
    assert list(store.keys("jobs/1")) == [f"jobs/1/blobs/{sha256(b'x')}"]
    assert list(store.keys("nothing")) == []


def test_sizes_are_those_of_the_objects_below_a_folder(store):
    made = {store.put_bytes("jobs/1", bytes(size)).key: size for size in (0, 7)}
    store.put_bytes("jobs2", b"x")
    assert dict(store.sizes("jobs")) == made
    assert dict(store.sizes("nothing")) == {}


def test_keys_go_over_pages(store):
    made = {store.put_bytes("many", str(number).encode()).key for number in range(30)}
    assert set(store.keys("many")) == made


def test_keys_by_age_are_of_objects_stored_longer_ago(store, file):
    key = store.put("a", file).key
    assert list(store.keys("a", older_than_s=60)) == []
    assert list(store.keys("a", older_than_s=-60)) == [key]


def test_an_old_object_that_is_stored_again_counts_as_new(store, tmp_path, s3, monkeypatch):
    key = store.put_bytes("a", b"x").key
    raw = store.raw
    [name] = raw.keys("a")  # an encrypted object has another one
    if isinstance(raw, FolderStore):
        os.utime(raw.root / name, (0, 0))
        assert list(store.keys("a", older_than_s=60)) == [key]
    else:
        monkeypatch.setattr(stores, "RENEW_S", -1.0)  # the server's clock cannot be set
        before = raw.client.head_object(Bucket=raw.bucket, Key=raw.prefix + name)
        time.sleep(1.1)  # its times are whole seconds
    assert store.put_bytes("a", b"x").key == key
    assert list(store.keys("a", older_than_s=60)) == []
    if isinstance(raw, S3Store):
        after = raw.client.head_object(Bucket=raw.bucket, Key=raw.prefix + name)
        assert after["LastModified"] > before["LastModified"]


def test_fetch_writes_the_whole_file_and_nothing_beside_it(store, file, tmp_path):
    blob = store.put("a", file)
    store.fetch(blob.key, tmp_path / "new" / "copy", sha256=blob.sha256)
    assert [each.name for each in (tmp_path / "new").iterdir()] == ["copy"]
    assert (tmp_path / "new" / "copy").read_bytes() == DATA


def test_fetch_goes_on_where_it_stopped(store, file, tmp_path):
    blob = store.put("a", file)
    (tmp_path / ".copy.part").write_bytes(DATA[:9000])
    store.fetch(blob.key, tmp_path / "copy", sha256=blob.sha256)
    assert (tmp_path / "copy").read_bytes() == DATA


@pytest.mark.parametrize("torn", [b"of another object", DATA + b"too long", b"x" * len(DATA)])
def test_fetch_does_not_trust_what_an_earlier_one_left(store, file, tmp_path, torn):
    blob = store.put("a", file)
    (tmp_path / ".copy.part").write_bytes(torn)
    store.fetch(blob.key, tmp_path / "copy", sha256=blob.sha256)
    assert (tmp_path / "copy").read_bytes() == DATA


def test_fetch_refuses_bytes_that_are_not_those_on_record(store, file, tmp_path):
    key = store.put("a", file).key
    with pytest.raises(DigestMismatch, match=f"not {sha256(b'other')}"):
        store.fetch(key, tmp_path / "copy", sha256=sha256(b"other"))
    assert {each.name for each in tmp_path.iterdir()} <= {"file", "a store", "master.key"}


def test_fetch_replaces_a_file_whose_bytes_differ(store, file, tmp_path):
    blob = store.put("a", file)
    (tmp_path / "copy").write_bytes(b"stale")
    store.fetch(blob.key, tmp_path / "copy", sha256=blob.sha256)
    assert (tmp_path / "copy").read_bytes() == DATA


def skip_without_urls(store):
    if store.raw is not store:
        pytest.skip("encrypted objects have no URL")


def test_an_address_reads_the_object(store, file):
    skip_without_urls(store)
    key = store.put("a", file).key
    with urllib.request.urlopen(store.url(key, 60)) as answer:
        assert answer.read() == DATA


def test_an_address_that_never_or_hardly_expires_is_refused(store, file):
    skip_without_urls(store)
    key = store.put("a", file).key
    for expires_s in (0, -1, 8 * 86_400):
        with pytest.raises(Refused, match=f"{expires_s} s; use 1 to 604,800"):
            store.url(key, expires_s)


HOSTILE = ("../outside", "a/../../b", "/etc/passwd", "a//b", "", ".tmp/x", "a/", "a\0b", "é", "a\n")


def test_no_key_leads_out_of_the_store(store, tmp_path):
    for key in HOSTILE:
        with pytest.raises(Refused, match="not an object key"):
            store.put_as(key, b"x")
        with pytest.raises(Refused, match="not an object key"):
            read(store, key)
    assert not (tmp_path / "outside").exists()


def test_check_leaves_nothing_behind(store):
    store.check()
    assert list(store.keys("probe")) == []


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # the S3 server is a thread here
def test_a_store_goes_through_a_fork(store, file):
    key = store.put("a", file).key
    child = multiprocessing.get_context("fork").Process(target=read, args=(store, key))
    child.start()
    child.join()
    assert child.exitcode == 0
    assert read(store, key) == DATA


def test_a_large_file_goes_up_in_parts_and_comes_back_whole(s3, tmp_path, monkeypatch):
    monkeypatch.setattr(stores, "MULTIPART_BYTES", 5 << 20)
    monkeypatch.setattr(stores, "PART_BYTES", 5 << 20)
    store = open_store(s3.url, s3_endpoint_url=s3.endpoint_url)
    (tmp_path / "large").write_bytes(DATA * 1100)
    blob = store.put("a", tmp_path / "large")
    store.fetch(blob.key, tmp_path / "copy", sha256=blob.sha256)
    head = store.client.head_object(Bucket=s3.bucket, Key=f"genmill/{blob.key}")
    assert head["ETag"].endswith('-3"')  # three parts


def test_uploads_that_were_cut_short_are_dropped_once_they_are_old(s3):
    store = open_store(s3.url, s3_endpoint_url=s3.endpoint_url)
    store.client.create_multipart_upload(Bucket=s3.bucket, Key="genmill/jobs/1/blobs/x")
    store.client.create_multipart_upload(Bucket=s3.bucket, Key="genmill/jobs/2/blobs/x")
    assert store.abort_uploads("jobs/1", 1e10) == 0  # this server dates every upload 2010
    assert store.abort_uploads("jobs/1", 3600) == 1
    left = store.client.list_multipart_uploads(Bucket=s3.bucket)["Uploads"]
    assert [upload["Key"] for upload in left] == ["genmill/jobs/2/blobs/x"]


def test_a_folder_drops_temporary_files_once_they_are_old(tmp_path):
    store = FolderStore(tmp_path)
    store.put_bytes("a", b"x")
    (tmp_path / ".tmp" / "left").write_bytes(b"half")
    assert store.abort_uploads("jobs/1", 3600) == 0
    assert store.abort_uploads("jobs/1", -3600) == 1
    assert list((tmp_path / ".tmp").iterdir()) == []


def test_a_temporary_file_that_goes_while_a_folder_is_listed_is_no_error(tmp_path, monkeypatch):
    store = FolderStore(tmp_path)
    store.put_bytes("a", b"x")
    gone = tmp_path / ".tmp" / "gone"  # its writer finished between the listing and the look
    monkeypatch.setattr(Path, "iterdir", lambda folder: iter([gone]))
    assert store.abort_uploads("jobs/1", -3600) == 0


def test_an_object_that_goes_while_a_folder_is_listed_is_no_error(tmp_path):
    store = FolderStore(tmp_path)
    first, second = sorted(store.put_bytes("a", data).key for data in (b"x", b"y"))
    keys = store.keys("a", older_than_s=-60)
    assert next(keys) == first
    store.delete(second)
    assert list(keys) == []


def test_a_folder_heals_an_object_that_was_cut_from_below(tmp_path, file):
    store = FolderStore(tmp_path / "store")
    key = store.put("a", file).key
    (tmp_path / "store" / key).write_bytes(DATA[:5])
    store.put("a", file)
    assert read(store, key) == DATA


def test_two_stores_in_one_bucket_are_apart(s3):
    one, two = (
        open_store(f"s3://{s3.bucket}/{name}", s3_endpoint_url=s3.endpoint_url)
        for name in ("one", "two")
    )
    one.put_bytes("a", b"x")
    assert list(two.keys("a")) == []


@pytest.mark.parametrize(
    "url", ["ftp://host/x", "file://", "file:///", "s3://", "/folder", "file://host/folder", ""]
)
def test_a_url_of_no_store_is_refused_with_what_is_taken(url):
    with pytest.raises(
        Refused, match=r"GENMILL_STORE_URL .*use file:///folder or s3://bucket/prefix"
    ):
        open_store(url)


@pytest.mark.slow
def test_as_many_threads_as_a_worker_stores_with_keep_their_connections(s3, caplog):
    store = open_store(s3.url, s3_endpoint_url=s3.endpoint_url)
    with ThreadPoolExecutor(24) as threads:
        list(threads.map(lambda n: store.put_bytes("jobs/1/blobs", str(n).encode()), range(240)))
    assert "pool is full" not in caplog.text


def test_a_second_flush_waits_for_the_first(tmp_path, monkeypatch):
    store = FolderStore(tmp_path)
    begun, go_on, order = threading.Event(), threading.Event(), []

    def slow(_):
        begun.set()
        assert go_on.wait(timeout=20)
        order.append("flushed")

    monkeypatch.setattr("worker.store.folder.flush_file_system", slow)
    store.put_bytes("jobs/1/blobs", b"one", durable=False)
    first = threading.Thread(target=store.flush)
    second = threading.Thread(target=lambda: (store.flush(), order.append("second")))
    first.start()
    assert begun.wait(timeout=20)
    second.start()
    second.join(timeout=0.2)
    assert order == []
    go_on.set()
    first.join()
    second.join()
    assert order == ["flushed", "second"]


def test_an_object_that_was_there_is_flushed_too(tmp_path, monkeypatch):
    FolderStore(tmp_path).put_bytes("jobs/1/blobs", b"one", durable=False)  # and never flushed
    flushed = []
    monkeypatch.setattr("worker.store.folder.flush_file_system", flushed.append)
    again = FolderStore(tmp_path)
    again.put_bytes("jobs/1/blobs", b"one", durable=False)
    again.flush()
    again.flush()
    assert flushed == [tmp_path]
