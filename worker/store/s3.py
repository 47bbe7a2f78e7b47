"""An object store in an S3 bucket. Only `s3`, `s3_stream` and `s3_errors` know boto.

Keys that are digests keep it simple: a key cannot have two contents, so a `put` that is repeated,
raced or retried ends in the same object, and an object of the right size needs no upload.
"""

import hashlib
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, BinaryIO, NamedTuple, cast

from db.errors import NotFound
from worker.store.address import S3Address
from worker.store.base import (
    OWN,
    Blob,
    Limit,
    checked_expiry,
    checked_key,
    digest_in_key,
    require_equal,
)
from worker.store.s3_errors import (
    Empty,
    Taken,
    Unsupported,
    no_response_error,
    redirect_error,
    response_error,
    status_of,
)
from worker.store.s3_probe import LIMITS, Ability, Bucket, probe
from worker.store.s3_stream import CutBody, ResumedStream

MULTIPART_BYTES = 64 << 20  # larger files go up in parts
PART_BYTES = 16 << 20
MAX_PUT_BYTES = 5 << 30  # of a single put, by S3's own limit
UPLOAD_THREADS = 4
# kept open: shards are stored and jobs finished by several threads each, at once
CONNECTIONS = 32
RENEW_S = 3600.0  # an older object is uploaded again, which resets its age
VERIFIED_S = 60.0  # a bucket that was known then is taken for the same
TIMEOUT_S = 30.0  # of a server that sends nothing


class Credentials(NamedTuple):
    """An access key. In place of what boto finds by itself."""

    access_key: str
    secret_key: str

    def __repr__(self) -> str:
        return "<credentials>"


class S3Store(Bucket):
    """Objects in an S3 bucket under `prefix`, at AWS or any endpoint that speaks S3.

    Without credentials, those of boto3's chain of providers are used. Requests are retried within
    bounds, and a broken stream is resumed by a ranged read.
    """

    def __init__(
        self,
        address: S3Address,
        credentials: Credentials | None = None,
        *,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self.address = address
        self._credentials = credentials
        self._timeout_s = timeout_s
        self.bucket = address.bucket
        self.prefix = f"{address.prefix}/" if address.prefix else ""
        self._clients: dict[int, Any] = {}
        self._abilities: dict[Ability, bool] = {}  # those that were probed

    def __str__(self) -> str:
        return str(self.address)

    @property
    def client(self) -> Any:
        """This process's client: a forked process must not share its parent's connections."""
        if os.getpid() not in self._clients:
            with self._errors():
                client = _new_client(self.address, self._credentials, self._timeout_s)
                self._clients = {os.getpid(): client}
        return self._clients[os.getpid()]

    def keep(self, blob: Blob, source: BinaryIO | bytes, *, durable: bool = True) -> None:
        """See `ByteStore.keep`; large files go up in parts, which are removed if one fails."""
        self.verify(within_s=VERIFIED_S)
        if self._holds(blob):
            return
        if isinstance(source, bytes):
            self.call("put_object", blob.key, Body=source)
        else:
            self._upload(blob, source)

    def replace(self, key: str, data: bytes) -> None:
        """See `ByteStore.replace`."""
        self.call("put_object", key, Body=data)

    def flush(self) -> None:
        """See `ObjectStore.flush`: S3 answers once an object is durable."""
        self.verify(within_s=VERIFIED_S)

    def put_as(self, key: str, data: bytes, *, durable: bool = True) -> Blob:
        """See `ObjectStore.put_as`; a conditional put, so that only one of two writers succeeds.

        Where the server knows none, of two writers at once both may succeed: the record decides.
        """
        if key not in OWN:
            self.verify(within_s=VERIFIED_S)
        try:
            self._put_new(key, data)
        except Taken:
            with self.open(key) as existing:
                require_equal(key, existing.read(), data)
        return Blob(key, hashlib.sha256(data).hexdigest(), len(data))

    def replace_public(self, key: str, data: bytes, *, media_type: str) -> None:
        """Store an object in place of what lies there. Browsers are told the `media_type`."""
        self.verify(within_s=VERIFIED_S)
        self.call("put_object", key, Body=data, ContentType=media_type)

    @contextmanager
    def open(self, key: str, *, start: int = 0, stop: int | None = None) -> Iterator[BinaryIO]:
        """See `ObjectStore.open`."""
        with ResumedStream(lambda at: self._get(key, at, stop), start) as stream:
            yield cast(BinaryIO, io.BufferedReader(stream))

    def stat(self, key: str) -> Blob:
        """See `ObjectStore.stat`."""
        try:
            head = self.call("head_object", key)
        except NotFound:
            raise self.missing(key) from None
        return Blob(key, digest_in_key(key), head["ContentLength"])

    def has(self, key: str) -> bool:
        """See `ObjectStore.has`."""
        with suppress(NotFound):
            self.call("head_object", key)
            return True
        return False

    def delete(self, key: str) -> None:
        """See `ObjectStore.delete`."""
        self.call("delete_object", key)

    def keys(self, prefix: str, *, older_than_s: float | None = None) -> Iterator[str]:
        """See `ObjectStore.keys`; reads a page at a time."""
        self.verify(within_s=VERIFIED_S)
        yield from self.listed(prefix, older_than_s)

    def sizes(self, prefix: str) -> Iterator[tuple[str, int]]:
        """See `ObjectStore.sizes`; the listing has them."""
        self.verify(within_s=VERIFIED_S)
        for page in self._listing(prefix):
            for entry in page.get("Contents", []):
                yield entry["Key"].removeprefix(self.prefix), entry["Size"]

    def versions(self, prefix: str) -> Iterator[tuple[str, str]]:
        """Every key below the folder `prefix`, and what its content is known by: the ETag."""
        self.verify(within_s=VERIFIED_S)
        for page in self._listing(prefix):
            for entry in page.get("Contents", []):
                version = entry.get("ETag") or entry["LastModified"].isoformat()
                yield entry["Key"].removeprefix(self.prefix), version

    def listed(self, prefix: str, older_than_s: float | None = None) -> Iterator[str]:
        """See `Bucket.listed`."""
        for page in self._listing(prefix):
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
        """See `ObjectStore.check`; tries all that jobs will ask of the server."""
        with self._errors():
            try:
                self.client.head_bucket(Bucket=self.bucket)
            except self.client.exceptions.ClientError as error:
                # credentials may be good for objects alone: what follows will tell
                if error.response["ResponseMetadata"].get("HTTPStatusCode") == HTTPStatus.NOT_FOUND:
                    raise
        self._abilities = probe(self)

    def limits(self) -> list[Limit]:
        """See `ObjectStore.limits`."""
        return [LIMITS[ability] for ability, has in self._abilities.items() if not has]

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
                self.call("abort_multipart_upload", key, UploadId=upload["UploadId"])
        return len(old)

    def _name(self, key: str) -> str:
        return self.prefix + checked_key(key)

    def _holds(self, blob: Blob) -> bool:
        """Whether the object exists with this size and is too new for garbage collection."""
        try:
            found = self.call("head_object", blob.key)
        except NotFound:
            return False
        is_new = _age_s(found, found["LastModified"]) < RENEW_S
        return is_new and found["ContentLength"] == blob.size

    def _can(self, ability: Ability) -> bool:
        """Whether the server has an ability, which is probed at its first use."""
        if ability not in self._abilities:
            self._abilities |= probe(self, [ability])
        return self._abilities[ability]

    def _upload(self, blob: Blob, source: BinaryIO) -> None:
        from boto3.s3.transfer import TransferConfig  # noqa: PLC0415 - as in _new_client

        in_parts = blob.size > MULTIPART_BYTES and self._can(Ability.MULTIPART)
        limit = MULTIPART_BYTES if in_parts else MAX_PUT_BYTES
        config = TransferConfig(limit, UPLOAD_THREADS, PART_BYTES)
        with self._errors(blob.key):
            self.client.upload_fileobj(source, self.bucket, self._name(blob.key), Config=config)

    def _put_new(self, key: str, data: bytes) -> None:
        """Store an object that does not exist. Raises `Taken` if it does."""
        if self._can(Ability.CONDITIONAL_PUT):
            self.call("put_object", key, Body=data, IfNoneMatch="*")
            return
        if self.has(key):
            raise Taken
        self.call("put_object", key, Body=data)

    def call(self, operation: str, key: str, **arguments: Any) -> Any:
        """See `Bucket.call`."""
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
            response = self.call("get_object", key, **ranged)
        except Empty:
            return None
        except NotFound:
            raise self.missing(key) from None
        except Unsupported:
            if not ranged:
                raise
            response = self.call("get_object", key)
        body = response["Body"]
        ignored = ranged and status_of(response) != HTTPStatus.PARTIAL_CONTENT
        return CutBody(body, start, stop) if ignored else body

    def _listing(self, prefix: str) -> Iterator[dict[str, Any]]:
        """Pages of objects; in version 1 of the request where the server does not know the other.

        A server that answers version 2 as if it were 1 has more, but does not say how to go on.
        """
        last = ""
        with suppress(Unsupported):
            for page in self._pages("list_objects_v2", prefix):
                yield page
                last = page["Contents"][-1]["Key"] if page.get("Contents") else last
            if not page.get("IsTruncated"):
                return
        yield from self._pages("list_objects", prefix, Marker=last)

    def _pages(self, operation: str, prefix: str, **more: str) -> Iterator[dict[str, Any]]:
        pages = self.client.get_paginator(operation).paginate(
            Bucket=self.bucket, Prefix=f"{self._name(prefix)}/", **more
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
            raise response_error(self.address, error.response, key) from error
        except (BotoCoreError, OSError) as error:
            raise no_response_error(self.address, error) from error
        except RecursionError as error:  # boto follows redirects, and asks each time which region
            raise redirect_error(self.address) from error


def _age_s(response: dict[str, Any], since: datetime) -> float:
    """Seconds from `since` to a response, by the server's clock."""
    now = parsedate_to_datetime(response["ResponseMetadata"]["HTTPHeaders"]["date"])
    return (now - since).total_seconds()


def _new_client(address: S3Address, credentials: Credentials | None, timeout_s: float) -> Any:
    """A client with bounded retries that also works with servers other than AWS."""
    import boto3  # noqa: PLC0415 - takes 0.2 s, and a folder store does not need it
    from botocore.config import Config  # noqa: PLC0415 - as above

    usual = "path" if address.endpoint_url else "auto"
    config = Config(
        signature_version="s3v4",
        s3={"addressing_style": address.addressing_style or usual},
        # SigV4 signs the body's SHA-256; newer checksum headers break older servers
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        connect_timeout=5,
        read_timeout=timeout_s,
        retries={"mode": "standard", "total_max_attempts": 4},
        tcp_keepalive=True,
        max_pool_connections=CONNECTIONS,
    )
    # a session of its own: boto3's default one is not safe to share between threads
    return boto3.session.Session().client(
        "s3",
        endpoint_url=address.endpoint_url,
        region_name=address.region,
        verify=address.ca_bundle,  # None: the usual certificates
        aws_access_key_id=credentials.access_key if credentials else None,
        aws_secret_access_key=credentials.secret_key if credentials else None,
        config=config,
    )
