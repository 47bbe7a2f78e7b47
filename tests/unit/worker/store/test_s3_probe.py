"""S3 servers that lack something: it is found out, made up for where that is sound, and told."""

from collections.abc import Callable, Iterator

import pytest

from db.errors import DigestMismatch, Unreachable
from tests.faulty_s3 import Handler, faulty_s3
from worker.store import open_store
from worker.store import s3 as stores
from worker.store.s3 import S3Store

DATA = bytes(range(256)) * 4096  # 1 MiB
NOT_IMPLEMENTED = b"<Error><Code>NotImplemented</Code><Message>no</Message></Error>"


class Lacking(Handler):
    """Answers with a status what `server.lacks` says of a request, or ignores a part of it."""

    def handle_any(self) -> None:
        lack = self.server.lacks(self)
        if isinstance(lack, str):
            del self.headers[lack]
        elif isinstance(lack, tuple):
            self.path = self.path.replace(*lack)
        elif lack is not None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self._answer(lack, NOT_IMPLEMENTED, {})
            return
        super().handle_any()


@pytest.fixture
def lacking(s3, s3_server) -> Iterator[Callable[[Callable], S3Store]]:
    """Open the store by way of a server with something missing."""
    with faulty_s3(s3_server, Lacking) as server:

        def open_with(lacks: Callable[[Lacking], int | str | None]) -> S3Store:
            server.lacks = lacks
            return open_store(s3.url, s3_endpoint_url=server.url)

        yield open_with


def conditional(answer: int | str) -> Callable[[Lacking], int | str | None]:
    return lambda request: answer if request.headers.get("If-None-Match") else None


def ranged(answer: int | str) -> Callable[[Lacking], int | str | None]:
    return lambda request: answer if request.headers.get("Range") else None


def in_parts(answer: int, step: str) -> Callable[[Lacking], int | None]:
    return lambda request: answer if step in request.path else None


def listing(request: Lacking) -> int | None:
    return 403 if "list-type" in request.path else None


def version_2(answer: int | tuple[str, str]) -> Callable[[Lacking], int | tuple[str, str] | None]:
    return lambda request: answer if "list-type" in request.path else None


def deleting(request: Lacking) -> int | None:
    return 405 if request.command == "DELETE" else None


def presigned(request: Lacking) -> int | None:
    return 403 if "X-Amz-Signature" in request.path else None


def nothing(_: Lacking) -> None:
    return None


@pytest.mark.parametrize(
    ("lacks", "missing", "covered"),
    [
        (nothing, [], True),
        (conditional(501), ["no conditional put"], True),
        (conditional(400), ["no conditional put"], True),
        (conditional(405), ["no conditional put"], True),
        (conditional(403), ["no conditional put"], True),
        (conditional("If-None-Match"), ["no conditional put"], True),
        (ranged("Range"), ["no ranged get"], True),
        (ranged(501), ["no ranged get"], True),
        (in_parts(501, "uploads"), ["no multipart upload"], True),
        (in_parts(403, "uploads"), ["no multipart upload"], True),
        (in_parts(400, "partNumber"), ["no multipart upload"], True),
        (listing, ["no list"], False),
        (deleting, ["no delete"], False),
        (presigned, ["no presigned URL"], False),
    ],
)
def test_what_a_server_lacks_is_found_out(lacking, s3, lacks, missing, covered):
    store = lacking(lacks)
    store.check()
    assert [limit.missing for limit in store.limits()] == missing
    assert all(limit.covered for limit in store.limits()) == covered
    assert all(limit.follows in str(limit) for limit in store.limits())
    whole = open_store(s3.url, s3_endpoint_url=s3.endpoint_url)
    assert list(whole.abort_uploads("probe", 0) for _ in [1]) == [0]
    assert len(list(whole.keys("probe"))) == (1 if lacks is deleting else 0)


PAGES_OF_TWO = ("list-type=2", "max-keys=2")  # of version 1


@pytest.mark.parametrize("answer", [501, 400, 405, PAGES_OF_TWO])
def test_a_server_that_knows_only_the_old_listing_lists_everything_once(lacking, answer):
    store = lacking(version_2(answer))
    keys = sorted(store.put_bytes("a", bytes([number])).key for number in range(7))
    assert sorted(store.keys("a")) == keys
    assert list(store.keys("none")) == []
    store.check()
    assert store.limits() == []


@pytest.mark.parametrize("answer", [501, 400, 405, 403, "If-None-Match"])
def test_without_conditional_puts_a_chosen_key_keeps_its_first_bytes(lacking, answer):
    store = lacking(conditional(answer))
    first = store.put_as("jobs/1/manifest.json", b"{}")
    assert store.put_as("jobs/1/manifest.json", b"{}") == first
    with pytest.raises(DigestMismatch, match="already holds 2 other bytes"):
        store.put_as("jobs/1/manifest.json", b"[1]")


def test_it_is_found_out_once_and_not_before_it_is_needed(lacking):
    seen = []
    store = lacking(lambda request: seen.append(request.command))
    store.put_bytes("a", b"x")
    assert seen == ["HEAD", "PUT"]
    store.put_as("jobs/1/manifest.json", b"{}")
    seen.clear()
    store.put_as("jobs/2/manifest.json", b"{}")
    assert seen == ["PUT"]


@pytest.mark.parametrize("answer", ["Range", 501])
@pytest.mark.parametrize(
    ("start", "stop"), [(0, None), (0, 10), (5, None), (5, 9), (5, 5), (70_000, 900_000)]
)
def test_without_ranged_reads_the_same_bytes_come(lacking, tmp_path, answer, start, stop):
    store = lacking(ranged(answer))
    key = store.put_bytes("a", DATA).key
    with store.open(key, start=start, stop=stop) as stream:
        assert stream.read() == DATA[start:stop]


@pytest.mark.parametrize(("answer", "step"), [(501, "uploads"), (403, "partNumber")])
def test_without_multipart_uploads_a_large_file_goes_up_in_one_piece(
    lacking, tmp_path, monkeypatch, answer, step
):
    monkeypatch.setattr(stores, "MULTIPART_BYTES", 5 << 20)
    store = lacking(in_parts(answer, step))
    (tmp_path / "large").write_bytes(DATA * 6)
    blob = store.put("a", tmp_path / "large")
    assert store.stat(blob.key).size == len(DATA) * 6


def test_credentials_that_may_only_use_objects_are_good_enough(lacking, s3):
    store = lacking(
        lambda request: (
            403 if request.command == "HEAD" and request.path.endswith(s3.bucket) else None
        )
    )
    store.check()
    assert store.limits() == []


def test_a_server_that_stores_nothing_is_unreachable(lacking):
    store = lacking(lambda request: 403 if request.command == "PUT" else None)
    with pytest.raises(Unreachable, match="access refused"):
        store.check()
