"""The object stores: a folder (`worker.store.folder`) or an S3 bucket; only this module speaks S3.

Digest keys are what makes both simple: a key cannot hold two contents, so a `put` that is repeated,
raced or retried ends in the same object, and what has the right size under its key needs no upload.
"""

import hashlib
import io
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, BinaryIO, cast
from urllib.parse import unquote, urlsplit
from uuid import uuid4

from db.errors import GenmillError, NotFound, Refused, Unreachable
from worker.files import digest_of
from worker.store.base import Blob, ObjectStore, checked, checked_expiry, named_digest, same
from worker.store.folder import FolderStore

__all__ = ["Blob", "FolderStore", "ObjectStore", "S3Store", "open_store"]

MULTIPART_BYTES = 64 << 20  # larger files go up in parts
PART_BYTES = 16 << 20
UPLOAD_THREADS = 4
READ_TRIES = 5  # requests for the rest of an object whose stream broke, without a byte in between

_MISSING = {"404", "NoSuchKey", "NotFound"}
_FORBIDDEN = {"403", "AccessDenied", "Forbidden", "InvalidAccessKeyId", "SignatureDoesNotMatch"}
_REMEDY = "check its URL (GENMILL_STORE_URL, GENMILL_S3_ENDPOINT_URL) and the AWS_* credentials"


def open_store(url: str, *, s3_endpoint_url: str | None = None) -> "FolderStore | S3Store":
    """The store at `file:///folder` or `s3://bucket/prefix`; `Refused` for any other URL."""
    parts = urlsplit(url)
    if parts.scheme == "file" and not parts.netloc and parts.path.strip("/"):
        return FolderStore(Path(unquote(parts.path)))
    if parts.scheme == "s3" and parts.netloc:
        return S3Store(parts.netloc, parts.path.strip("/"), endpoint_url=s3_endpoint_url)
    raise Refused(
        f"store URL {url!r} is neither file:///folder nor s3://bucket/prefix; set GENMILL_STORE_URL"
    )


class S3Store(ObjectStore):
    """Objects in an S3 bucket under `prefix`, at AWS or any endpoint that speaks S3.

    Credentials come by boto3's own chain. Requests are retried within bounds, and a stream that
    breaks goes on with a ranged read from where it stopped.
    """

    def __init__(self, bucket: str, prefix: str = "", *, endpoint_url: str | None = None) -> None:
        self.bucket = bucket
        self.prefix = f"{checked(prefix)}/" if prefix else ""
        if endpoint_url and not urlsplit(endpoint_url).netloc:
            raise Refused(
                f"GENMILL_S3_ENDPOINT_URL: {endpoint_url!r} is no URL such as https://host:9000"
            )
        self.endpoint_url = endpoint_url
        self._clients: dict[int, Any] = {}

    @property
    def client(self) -> Any:
        """This process's client, for connections must not be shared over a fork."""
        if os.getpid() not in self._clients:
            with self._errors():
                self._clients = {os.getpid(): _new_client(self.endpoint_url)}
        return self._clients[os.getpid()]

    def put(self, prefix: str, path: Path) -> Blob:
        """See `ObjectStore.put`; a large file goes up in parts, which are dropped if one fails."""
        from boto3.s3.transfer import TransferConfig  # noqa: PLC0415 - as in _new_client

        sha256 = digest_of(path)
        blob = Blob(f"{prefix}/{sha256}", sha256, path.stat().st_size)
        if not self._holds(blob):
            config = TransferConfig(MULTIPART_BYTES, UPLOAD_THREADS, PART_BYTES)
            with self._errors(blob.key), path.open("rb") as file:
                self.client.upload_fileobj(file, self.bucket, self._name(blob.key), Config=config)
        return blob

    def put_bytes(self, prefix: str, data: bytes) -> Blob:
        """See `ObjectStore.put_bytes`."""
        sha256 = hashlib.sha256(data).hexdigest()
        blob = Blob(f"{prefix}/{sha256}", sha256, len(data))
        if not self._holds(blob):
            self._call("put_object", blob.key, Body=data)
        return blob

    def put_as(self, key: str, data: bytes) -> Blob:
        """See `ObjectStore.put_as`; a conditional put, so that two writers cannot both win."""
        try:
            self._call("put_object", key, Body=data, IfNoneMatch="*")
        except _Taken:
            with self.open(key) as there:
                same(key, there.read(), data)
        return Blob(key, hashlib.sha256(data).hexdigest(), len(data))

    @contextmanager
    def open(self, key: str, *, start: int = 0, stop: int | None = None) -> Iterator[BinaryIO]:
        """See `ObjectStore.open`."""
        with _Stream(lambda at: self._get(key, at, stop), start) as stream:
            yield cast(BinaryIO, io.BufferedReader(stream))

    def stat(self, key: str) -> Blob:
        """See `ObjectStore.stat`."""
        return Blob(key, named_digest(key), self._call("head_object", key)["ContentLength"])

    def delete(self, key: str) -> None:
        """See `ObjectStore.delete`."""
        self._call("delete_object", key)

    def keys(self, prefix: str) -> Iterator[str]:
        """See `ObjectStore.keys`; in order, a page at a time."""
        for page in self._pages("list_objects_v2", prefix):
            for entry in page.get("Contents", []):
                yield entry["Key"].removeprefix(self.prefix)

    def url(self, key: str, expires_s: int) -> str:
        """A presigned GET; made here, without asking the server."""
        with self._errors(key):
            address: str = self.client.generate_presigned_url(
                "get_object",
                Params={"Bucket": self.bucket, "Key": self._name(key)},
                ExpiresIn=checked_expiry(expires_s),
            )
        return address

    def check(self) -> None:
        """See `ObjectStore.check`."""
        with self._errors():
            self.client.head_bucket(Bucket=self.bucket)
        key = f"probe/{uuid4()}"
        self._call("put_object", key, Body=b"genmill")
        self.delete(key)

    def abort_uploads(self, prefix: str, older_than_s: float) -> int:
        """See `ObjectStore.abort_uploads`; ages are told by the server's clock."""
        count = 0
        for page in self._pages("list_multipart_uploads", prefix):
            now = parsedate_to_datetime(page["ResponseMetadata"]["HTTPHeaders"]["date"])
            for upload in page.get("Uploads", []):
                if (now - upload["Initiated"]).total_seconds() >= older_than_s:
                    self._abort(upload)
                    count += 1
        return count

    def _abort(self, upload: dict[str, Any]) -> None:
        key = upload["Key"].removeprefix(self.prefix)
        with suppress(NotFound):  # finished or aborted by another meanwhile
            self._call("abort_multipart_upload", key, UploadId=upload["UploadId"])

    def _name(self, key: str) -> str:
        return self.prefix + checked(key)

    def _holds(self, blob: Blob) -> bool:
        try:
            return self.stat(blob.key).size == blob.size
        except NotFound:
            return False

    def _call(self, operation: str, key: str, **arguments: Any) -> Any:
        with self._errors(key):
            name = self._name(key)
            return getattr(self.client, operation)(Bucket=self.bucket, Key=name, **arguments)

    def _get(self, key: str, start: int, stop: int | None) -> Any:
        """The body of bytes `start` to `stop`, or None where there are none."""
        if stop is not None and stop <= start:
            self.stat(key)
            return None
        last = "" if stop is None else stop - 1
        # an empty object has no range to give
        ranged = {} if start == 0 and stop is None else {"Range": f"bytes={start}-{last}"}
        try:
            return self._call("get_object", key, **ranged)["Body"]
        except _Empty:
            return None

    def _pages(self, operation: str, prefix: str) -> Iterator[dict[str, Any]]:
        """The pages of a listing below `prefix`."""
        pages = self.client.get_paginator(operation).paginate(
            Bucket=self.bucket, Prefix=f"{self._name(prefix)}/"
        )
        with self._errors(prefix):
            yield from pages

    @contextmanager
    def _errors(self, key: str = "") -> Iterator[None]:
        """Turn boto's errors into ours; without a `key` the request was about the bucket."""
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 - _new_client

        try:
            yield
        except ClientError as error:
            raise self._refusal(error.response, key) from error
        except BotoCoreError as error:
            raise Unreachable(f"object store {self._where}: {error}; {_REMEDY}") from error

    def _refusal(self, response: dict[str, Any], key: str) -> GenmillError:
        """What an error response of the server means."""
        code = str(response["Error"].get("Code"))
        status = response["ResponseMetadata"].get("HTTPStatusCode")
        if code == "NoSuchBucket" or (code in _MISSING and not key):
            return Unreachable(
                f"object store {self._where}: no such bucket; create it, or {_REMEDY}"
            )
        if code in _MISSING or code == "NoSuchUpload":
            return NotFound(f"no object {key!r} in {self._where}")
        if status in _SIGNALS:
            return _SIGNALS[status](f"object {key!r} in {self._where}: {code}")
        if status in {401, 403}:
            return Unreachable(
                f"object store {self._where}: access refused ({code}); "
                "the AWS_* credentials must be right and may read, write and list this bucket"
            )
        said = f"{code} (HTTP {status}) {response['Error'].get('Message', '')}".strip()
        return Unreachable(f"object store {self._where}: {said}; {_REMEDY}")

    @property
    def _where(self) -> str:
        return f"s3://{self.bucket}" + (f" at {self.endpoint_url}" if self.endpoint_url else "")


class _Taken(GenmillError):
    """A conditional put found an object under its key."""


class _Empty(GenmillError):
    """A ranged read begins at or after the object's end."""


_SIGNALS: dict[int, type[GenmillError]] = {409: _Taken, 412: _Taken, 416: _Empty}


class _Stream(io.RawIOBase):
    """An object's bytes from `start`. Where the connection breaks, `get` asks for the rest."""

    def __init__(self, get: Callable[[int], Any], start: int) -> None:
        self._get = get
        self._at = start
        self._tries = 0
        self._body: Any = None  # `close` looks at it even where `get` raises
        self._body = get(start)

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read on; `Unreachable` once `READ_TRIES` requests in a row brought nothing."""
        from botocore.exceptions import BotoCoreError  # noqa: PLC0415 - as in _new_client

        while self._body is not None:
            try:
                data = self._body.read(len(buffer))
            except BotoCoreError as error:
                self._resume(error)
                continue
            buffer[: len(data)] = data
            self._at += len(data)
            self._tries = 0
            return len(data)
        return 0

    def close(self) -> None:
        """Give the connection back."""
        if self._body is not None:
            self._body.close()
        super().close()

    def _resume(self, error: Exception) -> None:
        self._tries += 1
        if self._tries >= READ_TRIES:
            raise Unreachable(f"object store: reading broke off {READ_TRIES} times: {error}")
        self._body.close()
        time.sleep(0.1 * 2**self._tries)
        self._body = self._get(self._at)


def _new_client(endpoint_url: str | None) -> Any:
    """A client with bounded patience, as custom endpoints want it."""
    import boto3  # noqa: PLC0415 - 0.2 s that nobody with a folder store should wait for
    from botocore.config import Config  # noqa: PLC0415 - as above

    config = Config(
        signature_version="s3v4",
        s3={"addressing_style": "path" if endpoint_url else "auto"},
        # SigV4 signs the body's SHA-256; the newer checksum headers break older servers
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        connect_timeout=5,
        read_timeout=30,
        retries={"mode": "standard", "total_max_attempts": 4},
        tcp_keepalive=True,
    )
    # a session of its own: boto3's default one is not safe to share between threads
    return boto3.session.Session().client("s3", endpoint_url=endpoint_url, config=config)
