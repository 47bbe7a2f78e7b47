"""What lies in an encrypted store says nothing, and whatever is changed there is found."""

import hashlib
import io
import tracemalloc
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from db.errors import DigestMismatch, GenmillError, NotFound, Refused, Unreachable
from tests.encrypting import encrypt, make_kms
from worker.files import digest_of
from worker.keys.master import CommandMaster, FileMaster
from worker.store import open_store
from worker.store import s3 as stores
from worker.store.base import SENTINEL, STORE_KEY
from worker.store.data_key import DataKey
from worker.store.encrypted import EncryptedStore
from worker.store.folder import FolderStore
from worker.store.sealing import (
    CHUNK,
    HEADER,
    SEALED,
    TAG,
    SealedFile,
    Secrets,
    measure,
    opened_size,
    sealed_size,
)

MARKER = b"the quick brown fox signs a contract"
LONG = bytes(range(251)) * (3 * CHUNK // 251 + 9)  # four chunks, the last of them short
KEY = "jobs/1/manifest.json"


@pytest.fixture
def folder(tmp_path) -> FolderStore:
    return FolderStore(tmp_path / "store")


@pytest.fixture
def store(folder, tmp_path) -> EncryptedStore:
    return encrypt(folder, tmp_path)


@pytest.fixture(params=["folder", "s3"])
def each_store(request, folder, tmp_path) -> EncryptedStore:
    if request.param == "folder":
        return encrypt(folder, tmp_path)
    s3 = request.getfixturevalue("s3")
    return encrypt(open_store(s3.url, s3_endpoint_url=s3.endpoint_url), tmp_path)


def read(store, key: str, **window: int | None) -> bytes:
    with store.open(key, **window) as stream:
        return stream.read()


def file_of(folder: FolderStore, prefix: str) -> Path:
    """The only file below a folder of the store."""
    [name] = folder.keys(prefix)
    return folder.root / name


def everything_in(folder: FolderStore) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in folder.root.rglob("*") if p.is_file()}


def test_neither_content_nor_its_digest_shows_in_the_store(store, folder, tmp_path):
    (tmp_path / "file").write_bytes(MARKER * 5000)
    blobs = [
        store.put("datasets/blobs", tmp_path / "file"),
        store.put_bytes("prompts/blobs", MARKER),
        store.put_as(KEY, MARKER),
    ]
    found = everything_in(folder)
    assert len(found) == len(blobs) + 1  # with the store's key
    for blob in blobs:
        assert MARKER in read(store, blob.key)
        assert not any(blob.sha256 in name for name in found)
    for data in found.values():
        assert MARKER not in data
        assert not any(blob.sha256.encode() in data for blob in blobs)


def test_the_same_content_is_the_same_bytes_whichever_way_it_comes(folder, tmp_path):
    (tmp_path / "file").write_bytes(LONG)
    encrypt(folder, tmp_path).put("a", tmp_path / "file")
    before = everything_in(folder)
    for path in before:
        if STORE_KEY not in path:
            Path(path).unlink()
    encrypt(folder, tmp_path).put_bytes("a", LONG)  # another process, after a crash
    assert everything_in(folder) == before


def test_equal_content_in_two_folders_does_not_look_equal(store, folder):
    one, two = store.put_bytes("a", MARKER), store.put_bytes("b", MARKER)
    names = [next(folder.keys(prefix)) for prefix in "ab"]
    assert one.sha256 == two.sha256
    assert names[0].partition("/")[2] != names[1].partition("/")[2]
    assert read(folder, names[0])[HEADER:] != read(folder, names[1])[HEADER:]


BOUNDS = [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 3 * CHUNK - 1]
SIZES = st.one_of(st.sampled_from(BOUNDS), st.integers(0, 3 * CHUNK))
EDGES = st.one_of(st.sampled_from([*BOUNDS, 4 * CHUNK]), st.integers(0, 4 * CHUNK))


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],  # objects of different keys
)
@given(size=SIZES, start=EDGES, stop=st.one_of(st.none(), EDGES))
def test_every_range_of_every_size_is_what_it_is_in_a_plain_store(store, size, start, stop):
    data = LONG[:size]
    key = store.put_bytes("a", data, durable=False).key
    assert store.stat(key).size == size
    end = size if stop is None else max(start, stop)
    assert read(store, key, start=start, stop=stop) == data[start:end]


@given(size=st.integers(0, 10 * CHUNK))
def test_the_size_of_the_content_follows_from_that_in_the_store(size):
    assert opened_size(sealed_size(size)) == size


@given(st.integers(0, HEADER + TAG))
def test_what_is_too_short_has_no_content(size):
    assert opened_size(size) == 0


def test_a_ranged_read_fetches_the_chunks_concerned(each_store, monkeypatch):
    key = each_store.put_bytes("jobs/1/blobs", LONG).key
    raw, fetched = each_store.raw, []
    real = raw.open

    @contextmanager
    def counted(name, *, start=0, stop=None):
        with real(name, start=start, stop=stop) as stream:
            data = stream.read()
        fetched.append(len(data))
        yield io.BytesIO(data)

    monkeypatch.setattr(raw, "open", counted)
    start = 2 * CHUNK + 100
    assert read(each_store, key, start=start, stop=start + 900) == LONG[start : start + 900]
    assert fetched == [SEALED]
    fetched.clear()
    assert read(each_store, key, start=CHUNK - 5, stop=CHUNK + 5) == LONG[CHUNK - 5 : CHUNK + 5]
    assert fetched == [HEADER + 2 * SEALED]
    fetched.clear()
    each_store.put_as(KEY, LONG)
    assert read(each_store, KEY, start=start, stop=start + 9) == LONG[start : start + 9]
    assert fetched == [HEADER, SEALED]  # the key has no digest, from which the header follows


def test_a_large_file_is_encrypted_as_it_goes(each_store, tmp_path, monkeypatch):
    monkeypatch.setattr(stores, "MULTIPART_BYTES", 5 << 20)
    monkeypatch.setattr(stores, "PART_BYTES", 5 << 20)
    (tmp_path / "large").write_bytes(LONG * 60)  # 12 MB
    if isinstance(each_store.raw, FolderStore):
        tracemalloc.start()
    blob = each_store.put("a", tmp_path / "large")
    if tracemalloc.is_tracing():
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 4 << 20
    each_store.fetch(blob.key, tmp_path / "copy", sha256=blob.sha256)
    assert digest_of(tmp_path / "copy") == blob.sha256


def flipped(at: int):
    def change(data: bytes) -> bytes:
        place = at % len(data)
        return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]

    return change


def chunks_of(data: bytes) -> list[bytes]:
    return [data[at : at + SEALED] for at in range(HEADER, len(data), SEALED)]


def in_order(*numbers: int):
    return lambda data: data[:HEADER] + b"".join(chunks_of(data)[n] for n in numbers)


DAMAGE = {
    "magic": flipped(0),
    "id of the key": flipped(9),
    "salt": flipped(20),
    "first byte": flipped(HEADER),
    "tag": flipped(HEADER + SEALED - 1),
    "last byte": flipped(-1),
    "empty": lambda _: b"",
    "cut in the header": lambda data: data[:10],
    "cut after the header": lambda data: data[:HEADER],
    "cut in a chunk": lambda data: data[: HEADER + 1000],
    "cut between chunks": lambda data: data[: HEADER + 2 * SEALED],
    "cut in the last chunk": lambda data: data[:-1],
    "more at the end": lambda data: data + b"x",
    "last chunk left out": in_order(0, 1, 2),
    "a chunk left out": in_order(0, 2, 3),
    "chunks in another order": in_order(1, 0, 2, 3),
    "a chunk twice": in_order(0, 0, 1, 2, 3),
    "only the last chunk": in_order(3),
    "plain": lambda _: LONG,
}


@pytest.mark.parametrize("what", DAMAGE)
def test_whatever_is_changed_in_the_store_is_found(store, folder, tmp_path, what):
    blob = store.put_bytes("a", LONG)
    path = file_of(folder, "a")
    path.write_bytes(DAMAGE[what](path.read_bytes()))
    with pytest.raises(DigestMismatch, match=f"object {blob.key} "):
        read(store, blob.key)
    with pytest.raises(DigestMismatch):
        store.fetch(blob.key, tmp_path / "copy", sha256=blob.sha256)
    assert not (tmp_path / "copy").exists()


CUTS = ["cut between chunks", "cut in a chunk", "last chunk left out"]


@pytest.mark.parametrize("what", CUTS)
@pytest.mark.parametrize("start", [3 * CHUNK + 5, len(LONG) + 7, 9 * CHUNK])
def test_an_end_that_was_cut_off_is_found_by_ranged_reads_too(store, folder, what, start):
    key = store.put_bytes("a", LONG).key
    assert read(store, key, start=len(LONG) + 7) == b""
    path = file_of(folder, "a")
    path.write_bytes(DAMAGE[what](path.read_bytes()))
    with pytest.raises(DigestMismatch, match="cut off"):
        read(store, key, start=start, stop=start + 10)


def test_objects_that_were_exchanged_are_found(store, folder):
    one, two = store.put_bytes("a", LONG), store.put_bytes("b", LONG[::-1])
    first, second = file_of(folder, "a"), file_of(folder, "b")
    data = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(data)
    for key in (one.key, two.key):
        with pytest.raises(DigestMismatch):
            read(store, key)
    assert list(store.keys("a")) == [one.key]
    second.rename(first.parent / second.name)  # a name of another folder is no name here
    assert list(store.keys("a")) == [one.key]


def test_an_object_of_another_store_says_so(store, folder, tmp_path):
    store.put_as(KEY, MARKER)
    other = FolderStore(tmp_path / "other")
    encrypt(other, tmp_path).put_as(KEY, MARKER)
    (folder.root / f"{KEY}.enc").write_bytes((other.root / f"{KEY}.enc").read_bytes())
    with pytest.raises(
        DigestMismatch, match=r"was encrypted with the data key .* of this store is"
    ):
        read(store, KEY)


def test_a_file_that_changes_while_it_is_stored_is_refused():
    found, secrets = measure(io.BytesIO(LONG)), Secrets(bytes(32))
    assert (found.sha256, found.size) == (hashlib.sha256(LONG).hexdigest(), len(LONG))
    header = secrets.header("a", found.sha256)
    for other in (LONG[:-1] + b"x", LONG[:-1], LONG[:CHUNK]):
        sealed = SealedFile(io.BytesIO(other), found, header, secrets.chunks("a", header))
        with pytest.raises(DigestMismatch, match="changed"):
            sealed.readall()


def test_nothing_is_encrypted_that_has_changed_when_a_store_reads_it_again():
    found, secrets = measure(io.BytesIO(LONG)), Secrets(bytes(32))
    header, file = secrets.header("a", found.sha256), io.BytesIO(LONG)
    sealed = SealedFile(file, found, header, secrets.chunks("a", header))
    whole = sealed.readall()
    sealed.seek(0)
    assert sealed.readall() == whole
    for at in (0, CHUNK, len(LONG) - 1):  # one nonce would meet two contents
        file.seek(at)
        file.write(bytes([LONG[at] ^ 1]))
        sealed.seek(0)
        with pytest.raises(DigestMismatch, match="changed"):
            sealed.readall()
        file.seek(at)
        file.write(LONG[at : at + 1])


def test_what_is_not_encrypted_is_left_out_of_lists(store, folder):
    key = store.put_bytes("jobs/1", MARKER).key
    folder.put_bytes("jobs/1", b"plain")
    folder.put_as("jobs/1/note.txt", b"plain")
    (folder.root / "jobs/1" / ("ab" * 48)).write_bytes(b"of nobody")
    assert list(store.keys("jobs")) == [key]
    assert list(store.sizes("jobs")) == [(key, len(MARKER))]


def test_no_object_has_a_url(store):
    key = store.put_bytes("a", MARKER).key
    for ask in (lambda: store.url(key, 60), store.refuse_without_urls):
        with pytest.raises(Refused, match=r"no URL: .*`genmill artifact download`"):
            ask()


def test_without_its_key_a_store_says_so(store, folder, tmp_path):
    key = store.put_bytes("a", MARKER).key
    (tmp_path / "master.key").rename(tmp_path / "away.key")
    says = r"is encrypted, and its key cannot be unwrapped: .*missing"
    for ask in (lambda s: read(s, key), lambda s: s.put_bytes("a", b"x"), lambda s: s.has(key)):
        with pytest.raises(Unreachable, match=says):
            ask(encrypt(folder, tmp_path, "gone.key"))
    assert not (tmp_path / "gone.key").exists()
    FileMaster(tmp_path / "other.key", home=tmp_path).wrap(b"", "x")
    with pytest.raises(Unreachable, match=r"other.key is not the one that wrapped the key of the"):
        read(encrypt(folder, tmp_path, "other.key"), key)
    assert read(encrypt(folder, tmp_path, "away.key"), key) == MARKER


@pytest.mark.parametrize("text", [b"", b"[]", b'{"format": 2, "cipher": "x"}', b'{"format": 1}'])
def test_a_damaged_store_key_says_so(store, folder, tmp_path, text):
    store.put_bytes("a", MARKER)
    (folder.root / STORE_KEY).write_bytes(text)
    with pytest.raises(Unreachable, match=r"object 'store-key' .*restore this object from a copy"):
        encrypt(folder, tmp_path).put_bytes("a", MARKER)


def test_a_plain_store_in_use_is_not_encrypted_by_the_way(folder, tmp_path):
    folder.put_as(SENTINEL, b"some id")
    key = folder.put_bytes("a", MARKER).key
    store = encrypt(folder, tmp_path)
    with pytest.raises(Unreachable, match="is not encrypted, and GENMILL_STORE_ENCRYPTION is aes"):
        store.put_bytes("a", b"x")
    with pytest.raises(NotFound):
        read(store, key)
    assert not folder.has(STORE_KEY)


def test_the_sentinel_is_not_encrypted(store, folder):
    store.put_as(SENTINEL, b"some-id")
    assert folder.read_sentinel() == store.read_sentinel() == "some-id"
    assert (folder.read_cipher(), store.has(SENTINEL)) == ("aes-256-gcm", True)


def test_a_lost_store_key_is_not_taken_for_a_plain_store(store, folder, tmp_path):
    store.put_as(SENTINEL, b"some-id")
    store.put_bytes("a", MARKER)
    (folder.root / STORE_KEY).unlink()
    with pytest.raises(Unreachable, match=r"object 'store-key' .*: it is missing; restore this"):
        encrypt(folder, tmp_path).put_bytes("a", MARKER)


def test_a_kms_is_asked_once_a_process_and_not_for_each_object(folder, tmp_path):
    command = str(make_kms(tmp_path))

    def opened() -> EncryptedStore:
        return EncryptedStore(folder, DataKey(folder, lambda: CommandMaster(command)))

    keys = [opened().put_bytes("a", b"first").key]
    calls = len((tmp_path / "kms.log").read_text().split())
    store = opened()
    keys += [store.put_bytes("a", bytes([n])).key for n in range(20)]
    assert [read(store, key) for key in keys[1:]] == [bytes([n]) for n in range(20)]
    assert (tmp_path / "kms.log").read_text().split()[calls:] == ["unwrap"]


def test_another_wrapping_changes_one_object(store, folder, tmp_path):
    key = store.put_bytes("a", LONG).key
    before = everything_in(folder)
    new = FileMaster(tmp_path / "new.key", home=tmp_path)
    master = FileMaster(tmp_path / "master.key")
    DataKey(folder, lambda: master).rewrap(new)
    after = everything_in(folder)
    assert {path for path in after if after[path] != before[path]} == {str(folder.root / STORE_KEY)}
    assert read(encrypt(folder, tmp_path, "new.key"), key) == LONG
    with pytest.raises(Unreachable, match="is not the one that wrapped"):
        read(encrypt(folder, tmp_path), key)


def test_what_wraps_and_does_not_unwrap_changes_nothing(store, folder, tmp_path):
    class Broken(FileMaster):
        def unwrap(self, wrapped: bytes, context: str) -> bytes:
            return b"other bytes"

    key = store.put_bytes("a", MARKER).key
    master = FileMaster(tmp_path / "master.key")
    with pytest.raises(GenmillError, match="nothing was changed"):
        DataKey(folder, lambda: master).rewrap(Broken(tmp_path / "master.key"))
    assert read(encrypt(folder, tmp_path), key) == MARKER
