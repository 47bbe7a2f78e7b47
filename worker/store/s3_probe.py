"""What an S3 server can do, found out by trying it on a scratch key.

Servers that speak S3 differ: some refuse a header that they do not know, others ignore it.
"""

import ssl
import urllib.request
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from enum import Enum
from typing import Any
from uuid import uuid4

from db.errors import GenmillError, NotFound, Unreachable
from worker.store.address import S3Address
from worker.store.base import Limit
from worker.store.byte_store import ByteStore
from worker.store.s3_errors import Forbidden, Taken, Unsupported

PREFIX = "probe"
URL_S = 60
_TIMEOUT_S = 10.0
_DATA = b"genmill"


class Bucket(ByteStore):
    """An object store that answers single requests of S3 too."""

    address: S3Address

    @abstractmethod
    def call(self, operation: str, key: str, **arguments: Any) -> Any:
        """Send one request about an object, by boto's name; raise our errors in place of boto's."""

    @abstractmethod
    def listed(self, prefix: str, older_than_s: float | None = None) -> Iterator[str]:
        """As `keys`, whichever store this is."""


class Ability(Enum):
    """What jobs and commands ask of a server beyond putting and getting objects."""

    CONDITIONAL_PUT = "conditional put"
    RANGED_GET = "ranged get"
    MULTIPART = "multipart upload"
    LIST = "list"
    PRESIGN = "presigned URL"
    DELETE = "delete"  # the last, as its probe removes the key


_LACKING = (Unsupported, Forbidden)

LIMITS = {
    Ability.CONDITIONAL_PUT: Limit(
        "no conditional put", "a key is looked up before it is written", covered=True
    ),
    Ability.RANGED_GET: Limit(
        "no ranged get", "whole objects are transferred to read one sample", covered=True
    ),
    Ability.MULTIPART: Limit(
        "no multipart upload", "files go up in one piece, of 5 GB at most", covered=True
    ),
    Ability.LIST: Limit("no list", "what no job uses any more is never removed"),
    Ability.DELETE: Limit("no delete", "nothing is ever removed, this check's objects included"),
    Ability.PRESIGN: Limit("no presigned URL", "`genmill artifact url` makes URLs that fail"),
}


def probe(store: Bucket, abilities: Iterable[Ability] = Ability) -> dict[Ability, bool]:
    """Which of `abilities` the server has. Raises `Unreachable` if it cannot put or get."""
    key = f"{PREFIX}/{uuid4()}"
    store.call("put_object", key, Body=_DATA)
    try:
        return {ability: _PROBES[ability](store, key) for ability in abilities}
    finally:
        with suppress(GenmillError):
            store.delete(key)


def _puts_conditionally(store: Bucket, key: str) -> bool:
    try:
        store.call("put_object", key, Body=_DATA, IfNoneMatch="*")
    except Taken:
        return True
    except _LACKING:
        pass
    return False  # or the header was ignored, and the object replaced


def _gets_ranges(store: Bucket, key: str) -> bool:
    with store.open(key) as stream:
        if stream.read() != _DATA:
            raise Unreachable(f"object store {store.address}: other bytes come back than went")
    try:
        response = store.call("get_object", key, Range="bytes=2-4")
        return bool(response["Body"].read() == _DATA[2:5])
    except _LACKING:
        return False


def _uploads_in_parts(store: Bucket, key: str) -> bool:
    upload = {}
    try:
        upload = {"UploadId": store.call("create_multipart_upload", key)["UploadId"]}
        part = store.call("upload_part", key, PartNumber=1, Body=_DATA, **upload)
        parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
        store.call("complete_multipart_upload", key, MultipartUpload=parts, **upload)
    except (*_LACKING, NotFound, KeyError):
        if upload:
            with suppress(GenmillError):
                store.call("abort_multipart_upload", key, **upload)
        return False
    return True


def _lists(store: Bucket, key: str) -> bool:
    try:
        return key in store.listed(PREFIX)
    except _LACKING:
        return False


def _deletes(store: Bucket, key: str) -> bool:
    try:
        store.delete(key)
        return not store.has(key)
    except _LACKING:
        return False


def _presigns(store: Bucket, key: str) -> bool:
    trusted = ssl.create_default_context(cafile=store.address.ca_bundle)
    try:
        url = store.url(key, URL_S)
        with urllib.request.urlopen(url, timeout=_TIMEOUT_S, context=trusted) as response:  # noqa: S310 - made by boto for the endpoint
            return bool(response.read() == _DATA)
    except (Unreachable, OSError):
        return False


_PROBES: dict[Ability, Callable[[Bucket, str], bool]] = {
    Ability.CONDITIONAL_PUT: _puts_conditionally,
    Ability.RANGED_GET: _gets_ranges,
    Ability.MULTIPART: _uploads_in_parts,
    Ability.LIST: _lists,
    Ability.PRESIGN: _presigns,
    Ability.DELETE: _deletes,
}
