"""An object store in an S3 bucket. Only this module speaks S3.

Keys that are digests keep it simple: a key cannot have two contents, so a `put` that is repeated,
raced or retried ends in the same object, and an object of the right size needs no upload.
"""

import hashlib
import io
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, BinaryIO, cast
from urllib.parse import urlsplit
from uuid import uuid4

from db.errors import GenmillError, NotFound, Refused, Unreachable
from worker.files import digest_of
from worker.store.base import (
    Blob,
    ObjectStore,
    checked_expiry,
    checked_key,
    digest_in_key,
    require_equal,
)

MULTIPART_BYTES = 64 << 20  # larger files go up in parts
PART_BYTES = 16 << 20
UPLOAD_THREADS = 4
# kept open: shards are stored and jobs finished by several threads each, at once
CONNECTIONS = 32
READ_TRIES = 5  # fruitless requests in a row for the rest of a broken stream
RENEW_S = 3600.0  # an older object is uploaded again, which resets its age

_MISSING = {"404", "NoSuchKey", "NotFound"}
_REMEDY = "check its URL (GENMILL_STORE_URL, GENMILL_S3_ENDPOINT_URL) and the AWS_* credentials"


class S3Store(ObjectStore):
    """Objects in an S3 bucket under `prefix`, at AWS or any endpoint that speaks S3.

    Credentials come from boto3's chain of providers. Requests are retried within bounds, and a
    broken stream is resumed by a ranged read.
    """

    def __init__(self, bucket: str, prefix: str = "", *, endpoint_url: str | None = None) -> None:
        self.bucket = bucket
        self.prefix = f"{checked_key(prefix)}/" if prefix else ""
        if endpoint_url and not urlsplit(endpoint_url).netloc:
            raise Refused(
                f"GENMILL_S3_ENDPOINT_URL {endpoint_url!r} is not a URL",
                remedy="use one such as https://host:9000",
            )
        self.endpoint_url = endpoint_url
        self._clients: dict[int, Any] = {}

    @property
    def client(self) -> Any:
        """This process's client: a forked process must not share its parent's connections."""
        if os.getpid() not in self._clients:
            with self._errors():
                self._clients = {os.getpid(): _new_client(self.endpoint_url)}
        return self._clients[os.getpid()]

    def put(self, prefix: str, path: Path) -> Blob:
        """See `ObjectStore.put`; large files go up in parts, which are removed if one fails."""
        from boto3.s3.transfer import TransferConfig  # noqa: PLC0415 - as in _new_client

        sha256 = digest_of(path)
        blob = Blob(f"{prefix}/{sha256}", sha256, path.stat().st_size)
        if not self._holds(blob):
            config = TransferConfig(MULTIPART_BYTES, UPLOAD_THREADS, PART_BYTES)
            with self._errors(blob.key), path.open("rb") as file:
                self.client.upload_fileobj(file, self.bucket, self._name(blob.key), Config=config)
        return blob

    def put_bytes(self, prefix: str, data: bytes, *, durable: bool = True) -> Blob:
        """See `ObjectStore.put_bytes`."""
        sha256 = hashlib.sha256(data).hexdigest()
        blob = Blob(f"{prefix}/{sha256}", sha256, len(data))
        if not self._holds(blob):
            self._call("put_object", blob.key, Body=data)
        return blob

    def flush(self) -> None:
        """See `ObjectStore.flush`: S3 answers once an object is durable."""

    def put_as(self, key: str, data: bytes, *, durable: bool = True) -> Blob:
        """See `ObjectStore.put_as`; a conditional put, so that only one of two writers succeeds."""
        try:
            self._call("put_object", key, Body=data, IfNoneMatch="*")
        except _Taken:
            with self.open(key) as existing:
                require_equal(key, existing.read(), data)
        return Blob(key, hashlib.sha256(data).hexdigest(), len(data))

    @contextmanager
    def open(self, key: str, *, start: int = 0, stop: int | None = None) -> Iterator[BinaryIO]:
        """See `ObjectStore.open`."""
        with _Stream(lambda at: self._get(key, at, stop), start) as stream:
            yield cast(BinaryIO, io.BufferedReader(stream))

    def stat(self, key: str) -> Blob:
        """See `ObjectStore.stat`."""
        return Blob(key, digest_in_key(key), self._call("head_object", key)["ContentLength"])

    def delete(self, key: str) -> None:
        """See `ObjectStore.delete`."""
        self._call("delete_object", key)

    def keys(self, prefix: str, *, older_than_s: float | None = None) -> Iterator[str]:
        """See `ObjectStore.keys`; reads a page at a time."""
        for page in self._pages("list_objects_v2", prefix):
            for entry in page.get("Contents", []):
                if older_than_s is None or _age_s(page, entry["LastModified"]) > older_than_s:
                    yield entry["Key"].removeprefix(self.prefix)

    def url(self, key: str, expires_s: int) -> str:
        """A presigned URL, made without a request."""
        with self._errors(key):
            url: str = self.client.generate_presigned_url(
                "get_object",
                Params={"Bucket": self.bucket, "Key": self._name(key)},
                ExpiresIn=checked_expiry(expires_s),
            )
        return url

    def check(self) -> None:
        """See `ObjectStore.check`."""
        with self._errors():
            self.client.head_bucket(Bucket=self.bucket)
        key = f"probe/{uuid4()}"
        self._call("put_object", key, Body=b"genmill")
        self.delete(key)

    def abort_uploads(self, prefix: str, older_than_s: float) -> int:
        """See `ObjectStore.abort_uploads`; ages are by the server's clock."""
        old = [
            upload
            for page in self._pages("list_multipart_uploads", prefix)
            for upload in page.get("Uploads", [])
            if _age_s(page, upload["Initiated"]) >= older_than_s
        ]
        for upload in old:
            key = upload["Key"].removeprefix(self.prefix)
            with suppress(NotFound):  # finished or aborted meanwhile
                self._call("abort_multipart_upload", key, UploadId=upload["UploadId"])
        return len(old)

    def _name(self, key: str) -> str:
        return self.prefix + checked_key(key)

    def _holds(self, blob: Blob) -> bool:
        """Whether the object exists with this size and is too new for garbage collection."""
        try:
            found = self._call("head_object", blob.key)
        except NotFound:
            return False
        is_new = _age_s(found, found["LastModified"]) < RENEW_S
        return is_new and found["ContentLength"] == blob.size

    def _call(self, operation: str, key: str, **arguments: Any) -> Any:
        with self._errors(key):
            name = self._name(key)
            return getattr(self.client, operation)(Bucket=self.bucket, Key=name, **arguments)

    def _get(self, key: str, start: int, stop: int | None) -> Any:
        """The response's body of bytes `start` to `stop`, or None if there are none."""
        if stop is not None and stop <= start:
            self.stat(key)
            return None
        last = "" if stop is None else stop - 1
        # an empty object has no ranges
        ranged = {} if start == 0 and stop is None else {"Range": f"bytes={start}-{last}"}
        try:
            return self._call("get_object", key, **ranged)["Body"]
        except _Empty:
            return None

    def _pages(self, operation: str, prefix: str) -> Iterator[dict[str, Any]]:
        pages = self.client.get_paginator(operation).paginate(
            Bucket=self.bucket, Prefix=f"{self._name(prefix)}/"
        )
        with self._errors(prefix):
            yield from pages

    @contextmanager
    def _errors(self, key: str = "") -> Iterator[None]:
        """Raise our errors in place of boto's; without `key`, the request is about the bucket."""
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 - _new_client

        try:
            yield
        except ClientError as error:
            raise self._error_of(error.response, key) from error
        except BotoCoreError as error:
            raise Unreachable(f"object store {self._where}: {error}", remedy=_REMEDY) from error

    def _error_of(self, response: dict[str, Any], key: str) -> GenmillError:
        code = str(response["Error"].get("Code"))
        status = response["ResponseMetadata"].get("HTTPStatusCode")
        if code == "NoSuchBucket" or (code in _MISSING and not key):
            return Unreachable(
                f"object store {self._where}: no such bucket", remedy=f"create it, or {_REMEDY}"
            )
        if code in _MISSING or code == "NoSuchUpload":
            return NotFound(f"no object {key!r} in {self._where}")
        if status in _EXPECTED:
            return _EXPECTED[status](f"object {key!r} in {self._where}: {code}")
        if status in {401, 403}:
            return Unreachable(
                f"object store {self._where}: access refused ({code})",
                remedy="check that the AWS_* credentials are right and may read, write and list "
                "this bucket",
            )
        text = f"{code} (HTTP {status}) {response['Error'].get('Message', '')}".strip()
        return Unreachable(f"object store {self._where}: {text}", remedy=_REMEDY)

    @property
    def _where(self) -> str:
        return f"s3://{self.bucket}" + (f" at {self.endpoint_url}" if self.endpoint_url else "")


class _Taken(GenmillError):
    """A conditional put found an object under its key."""


class _Empty(GenmillError):
    """A ranged read begins at or after the object's end."""


_EXPECTED: dict[int, type[GenmillError]] = {409: _Taken, 412: _Taken, 416: _Empty}


class _Stream(io.RawIOBase):
    """An object's bytes from `start`. If the connection breaks, `get` requests the rest."""

    def __init__(self, get: Callable[[int], Any], start: int) -> None:
        self._get = get
        self._at = start
        self._tries = 0
        self._body: Any = None  # for `close`, should `get` raise
        self._body = get(start)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """Read some bytes; `Unreachable` after `READ_TRIES` fruitless requests in a row."""
        from botocore.exceptions import BotoCoreError  # noqa: PLC0415 - as in _new_client

        while self._body is not None:
            try:
                data = self._body.read(len(buffer))
            except BotoCoreError as error:
                self._tries += 1
                if self._tries >= READ_TRIES:
                    raise Unreachable(
                        f"object store: reading failed {READ_TRIES} times in a row: {error}"
                    ) from error
                self._body.close()
                time.sleep(0.1 * 2**self._tries)
                self._body = self._get(self._at)
                continue
            buffer[: len(data)] = data
            self._at += len(data)
            self._tries = 0
            return len(data)
        return 0

    def close(self) -> None:
        if self._body is not None:
            self._body.close()
        super().close()


def _age_s(response: dict[str, Any], since: datetime) -> float:
    """Seconds from `since` to a response, by the server's clock."""
    now = parsedate_to_datetime(response["ResponseMetadata"]["HTTPHeaders"]["date"])
    return (now - since).total_seconds()


def _new_client(endpoint_url: str | None) -> Any:
    """A client with bounded retries that also works with servers other than AWS."""
    import boto3  # noqa: PLC0415 - takes 0.2 s, and a folder store does not need it
    from botocore.config import Config  # noqa: PLC0415 - as above

    config = Config(
        signature_version="s3v4",
        s3={"addressing_style": "path" if endpoint_url else "auto"},
        # SigV4 signs the body's SHA-256; newer checksum headers break older servers
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        connect_timeout=5,
        read_timeout=30,
        retries={"mode": "standard", "total_max_attempts": 4},
        tcp_keepalive=True,
        max_pool_connections=CONNECTIONS,
    )
    # a session of its own: boto3's default one is not safe to share between threads
    return boto3.session.Session().client("s3", endpoint_url=endpoint_url, config=config)
