"""What a caller sees of trouble: a proxy that misbehaves between the store and a real S3 server."""

import errno
import os
import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from db.errors import DigestMismatch, NotFound, Refused, Unreachable
from tests.faulty_s3 import FaultyS3, faulty_s3
from worker.files import disk_errors
from worker.store import open_store
from worker.store import s3 as stores
from worker.store.folder import FolderStore
from worker.store.s3 import S3Store

DATA = bytes(range(256)) * 4096  # 1 MiB


@pytest.fixture
def proxy(s3_server: str) -> Iterator[FaultyS3]:
    with faulty_s3(s3_server) as server:
        yield server


@pytest.fixture
def store(s3, proxy) -> S3Store:
    return open_store(s3.url, s3_endpoint_url=proxy.url)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(DATA)
    return path


@pytest.mark.parametrize("fault", [500, 503, "reset"])
def test_a_put_is_tried_again_and_makes_one_object(store, proxy, file, fault):
    proxy.faults.extend([("HEAD", fault), ("PUT", fault), ("PUT", fault)])
    blob = store.put("a", file)
    assert not proxy.faults
    assert store.stat(blob.key) == blob
    assert list(store.keys("a")) == [blob.key]


def test_a_chosen_key_whose_answer_was_lost_is_not_taken_for_anothers(store, proxy):
    store.put_as("jobs/0/manifest.json", b"{}")  # the first finds out what the server can do
    proxy.seen.clear()
    proxy.faults.append(("PUT", "reset"))
    store.put_as("jobs/1/manifest.json", b"{}")
    assert [method for method, _ in proxy.seen] == ["PUT", "PUT", "GET"]


@pytest.mark.parametrize("fault", [500, 503, "reset", "cut"])
def test_a_read_is_tried_again_and_gives_the_bytes_once(store, proxy, file, fault, tmp_path):
    blob = store.put("a", file)
    proxy.faults.extend([("GET", fault), ("GET", fault)])
    store.fetch(blob.key, tmp_path / "copy", sha256=blob.sha256)
    assert not proxy.faults
    assert (tmp_path / "copy").read_bytes() == DATA


def test_a_read_that_broke_off_asks_for_the_rest_only(store, proxy, file):
    key = store.put("a", file).key
    proxy.seen.clear()
    proxy.faults.append(("GET", "cut"))
    with store.open(key, start=100, stop=1000) as stream:
        assert stream.read() == DATA[100:1000]
    assert proxy.seen == [("GET", "bytes=100-999"), ("GET", "bytes=550-999")]


def test_a_read_that_always_breaks_off_at_once_is_given_up(store, proxy, monkeypatch):
    monkeypatch.setattr("worker.store.s3_stream.READ_TRIES", 2)
    key = store.put_bytes("a", b"x").key
    proxy.faults.extend([("GET", "cut")] * 2)
    with (
        pytest.raises(Unreachable, match="reading failed 2 times in a row"),
        store.open(key) as stream,
    ):
        stream.read()


def test_bytes_that_were_changed_on_the_way_are_not_kept(store, proxy, file, tmp_path):
    blob = store.put("a", file)
    proxy.faults.append(("GET", "flipped"))
    with pytest.raises(DigestMismatch, match=blob.sha256):
        store.fetch(blob.key, tmp_path / "copy", sha256=blob.sha256)
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(("method", "verb"), [("HEAD", "stat"), ("GET", "open"), ("PUT", "put")])
def test_forbidden_names_the_bucket_and_the_credentials(store, proxy, s3, method, verb):
    key = store.put_bytes("a", b"x").key
    proxy.faults.append((method, 403))
    act = {
        "stat": lambda: store.stat(key),
        "open": lambda: store.open(key).__enter__(),
        "put": lambda: store.put_as("b", b"y"),
    }[verb]
    with pytest.raises(Unreachable, match=rf"{s3.bucket}.*access refused.*AWS_\* credentials"):
        act()


def test_a_bucket_that_does_not_exist_is_said_to_be_absent(s3):
    store = open_store("s3://no-such-bucket", s3_endpoint_url=s3.endpoint_url)
    for act in (store.check, lambda: store.put_bytes("a", b"x"), lambda: list(store.keys("a"))):
        with pytest.raises(Unreachable, match=r"s3://no-such-bucket at .*: no such bucket; create"):
            act()


def test_a_server_that_is_not_there_is_named(s3):
    store = open_store(f"s3://{s3.bucket}", s3_endpoint_url="http://127.0.0.1:1")
    with pytest.raises(Unreachable, match=r"127\.0\.0\.1:1.*GENMILL_S3_ENDPOINT_URL"):
        store.check()


def test_missing_credentials_are_asked_for(s3, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    store = open_store(f"s3://{s3.bucket}", s3_endpoint_url=s3.endpoint_url)
    with pytest.raises(Unreachable, match=r"Unable to locate credentials.*AWS_\* credentials"):
        store.check()


@pytest.mark.parametrize(
    ("name", "others"),
    [
        ("AWS_WEB_IDENTITY_TOKEN_FILE", {"AWS_ROLE_ARN": "arn:aws:iam::1:role/r"}),
        (
            "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
            {"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://127.0.0.1:1/"},
        ),
        ("AWS_SHARED_CREDENTIALS_FILE", {}),
    ],
)
def test_a_file_of_credentials_that_boto_cannot_read_is_named(name, others, monkeypatch, tmp_path):
    for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for key, value in {**others, name: str(tmp_path / "gone")}.items():
        monkeypatch.setenv(key, value)
    store = open_store("s3://bucket?region=eu-central-1&endpoint_url=http://127.0.0.1:1")
    with pytest.raises(Unreachable, match=f"{name} is not the path of a file that can be read"):
        store.check()


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("s3://b/../p", "GENMILL_STORE_URL has a prefix that no key can begin with; use at most"),
        ("s3://b/p q", "GENMILL_STORE_URL has a prefix that no key can begin with"),
        ("s3://a b/p", "GENMILL_STORE_URL has signs that must be escaped"),
        ("s3://b?region=", "GENMILL_STORE_URL has a wrong value for region; use a name such as"),
        ("s3://b?region=../x", "GENMILL_STORE_URL has a wrong value for region"),
        ("s3://b?endpoint_url=ftp://x", "endpoint_url in GENMILL_STORE_URL has another scheme"),
        ("s3://b?ca_bundle=/tmp", r"for ca_bundle; use the path of a file .*\(Is a directory\)"),
        ("file:///a%00b", "GENMILL_STORE_URL names no folder"),
        ("file://host/folder", "GENMILL_STORE_URL names no folder"),
    ],
)
def test_an_address_that_cannot_be_one_says_what_is_wrong_with_it(url, says):
    with pytest.raises(Refused, match=says):
        open_store(url)


def test_a_store_whose_folder_is_gone_is_no_missing_object(tmp_path):
    gone = pytest.raises(Unreachable, match=f"{tmp_path}/store cannot be read: No such file")
    with gone:
        FolderStore(tmp_path / "store").stat("a/b")


def test_an_endpoint_that_is_no_url_is_refused():
    with pytest.raises(
        Refused, match="GENMILL_S3_ENDPOINT_URL is not a URL; use one such as https://host:9000"
    ):
        open_store("s3://bucket", s3_endpoint_url="localhost:9000")


def test_a_large_upload_that_fails_leaves_no_parts(store, proxy, tmp_path, monkeypatch):
    monkeypatch.setattr(stores, "MULTIPART_BYTES", 5 << 20)
    monkeypatch.setattr(stores, "PART_BYTES", 5 << 20)
    (tmp_path / "large").write_bytes(DATA * 11)
    proxy.faults.append(("PUT", 403))
    with pytest.raises(Unreachable, match="access refused"):
        store.put("a", tmp_path / "large")
    assert "Uploads" not in store.client.list_multipart_uploads(Bucket=store.bucket)
    assert list(store.keys("a")) == []


def test_a_fetch_resumes_after_the_store_was_away(store, proxy, file, tmp_path):
    blob = store.put("a", file)
    proxy.faults.extend([("GET", "cut"), ("GET", 403)])
    with pytest.raises(Unreachable):
        store.fetch(blob.key, tmp_path / "copy", sha256=blob.sha256)
    proxy.seen.clear()
    store.fetch(blob.key, tmp_path / "copy", sha256=blob.sha256)
    assert proxy.seen[-1] == ("GET", f"bytes={len(DATA) // 2}-")
    assert (tmp_path / "copy").read_bytes() == DATA


@pytest.fixture
def small_files() -> Iterator[int]:
    """No file may grow over half a MiB, as on a disk that is nearly full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 19, before[1]))
    yield 1 << 19
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


def test_a_write_that_fails_leaves_nothing_behind(tmp_path, file, small_files):
    store = FolderStore(tmp_path / "store")
    with pytest.raises(Unreachable, match="no space left"):
        store.put("a", file)
    assert [each for each in (tmp_path / "store").rglob("*") if each.is_file()] == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_said_to_be_full(tmp_path, code):
    full = pytest.raises(Unreachable, match=f"no space left on the disk of {tmp_path}")
    with full, disk_errors(tmp_path):
        raise OSError(code, os.strerror(code))


def test_a_folder_that_may_not_be_written_is_named(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(Unreachable, match=f"{tmp_path}/file/store"):
        FolderStore(tmp_path / "file" / "store").check()


def test_what_is_missing_in_a_folder_store_says_where_it_looked(tmp_path):
    with pytest.raises(NotFound, match=f"no object 'a/b' in {tmp_path}"):
        FolderStore(tmp_path).stat("a/b")


@pytest.mark.usefixtures("plain_user")
def test_an_object_that_may_not_be_read_is_named_and_not_the_folder_it_goes_to(tmp_path, file):
    store = FolderStore(tmp_path / "store")
    blob = store.put("a", file)
    (tmp_path / "store" / blob.key).chmod(0)
    unreadable = pytest.raises(Unreachable, match=f"store/{blob.key} cannot be read: Permission")
    with unreadable, disk_errors(tmp_path / "cache"):
        store.fetch(blob.key, tmp_path / "cache" / "copy", sha256=blob.sha256)


@pytest.mark.usefixtures("plain_user")
def test_a_folder_that_cannot_be_listed_is_not_taken_for_empty(tmp_path, file):
    store = FolderStore(tmp_path / "store")
    blob = store.put("a/b", file)
    assert list(store.keys("nothing")) == []
    folder = tmp_path / "store" / "a" / "b"
    folder.chmod(0)
    for listing in (store.keys, store.sizes, store.versions):
        with pytest.raises(Unreachable, match=f"{folder} cannot be"):
            list(listing("a"))
    folder.chmod(0o700)
    assert list(store.keys("a")) == [blob.key]
