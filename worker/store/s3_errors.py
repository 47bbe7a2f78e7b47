"""The errors of an S3 server, of the way to it, and of the files that boto reads by itself."""

from typing import Any

from db.addresses import readable_file
from db.causes import Cause
from db.errors import GenmillError, NotFound, Unreachable
from worker.environment import boto_files
from worker.store.address import S3Address

_REMEDY = "check its URL (GENMILL_STORE_URL, GENMILL_S3_ENDPOINT_URL) and the AWS_* credentials"
MAX_TOLD = 160  # characters; an `Authorization` header has more
_MISSING = {"404", "NoSuchKey", "NotFound"}


class Unsupported(Unreachable):
    """The server does not know the operation, or one of its headers."""

    cause = Cause.SERVICE


class Forbidden(Unreachable):
    """The credentials may not do it."""

    cause = Cause.SERVICE


class Taken(GenmillError):
    """A conditional put found an object under its key."""

    cause = Cause.UNKNOWN


class Empty(GenmillError):
    """A ranged read begins at or after the object's end."""

    cause = Cause.UNKNOWN


_EXPECTED: dict[int, type[GenmillError]] = {409: Taken, 412: Taken, 416: Empty}
# Bad Request, Method Not Allowed and Not Implemented, for headers and operations that are not known
_NOT_SUPPORTED = {400, 405, 501}


def status_of(response: dict[str, Any]) -> int:
    """The HTTP status of a response; 0 if it has none."""
    status: int = response["ResponseMetadata"].get("HTTPStatusCode", 0)
    return status


def redirect_error(address: S3Address) -> Unreachable:
    """The error for a server that answers redirects alone, as a web site often does."""
    return Unreachable(f"object store {address}: it redirects without an end", remedy=_REMEDY)


def response_error(address: S3Address, response: dict[str, Any], key: str) -> GenmillError:
    """The error that a response tells of; without `key`, the request was about the bucket."""
    code = _told(response, "Code")
    status = status_of(response)
    if code == "NoSuchBucket" or (code in _MISSING and not key):
        return Unreachable(
            f"object store {address}: no such bucket", remedy=f"create it, or {_REMEDY}"
        )
    if code in _MISSING or code == "NoSuchUpload":
        return NotFound(f"no object {key!r} in {address}")
    if status in _EXPECTED:
        return _EXPECTED[status](f"object {key!r} in {address}: {code}")
    if status in {401, 403}:
        return Forbidden(
            f"object store {address}: access refused ({code})",
            remedy="check that the AWS_* credentials are right and may read, write and list this "
            "bucket",
        )
    text = f"{code} (HTTP {status}) {_told(response, 'Message')}".strip()
    kind = Unsupported if status in _NOT_SUPPORTED else Unreachable
    return kind(f"object store {address}: {text}", remedy=_REMEDY)


def _told(response: dict[str, Any], what: str) -> str:
    """Words of the server's; of long ones, which may repeat the request with its token, none."""
    text = str(response["Error"].get(what, ""))
    return text if len(text) <= MAX_TOLD else "(...)"


def no_response_error(address: S3Address, error: Exception) -> Unreachable:
    """The error for a request that got no response; a file that boto cannot read is named."""
    from botocore import exceptions as boto  # noqa: PLC0415 - takes 0.2 s, as in `s3`

    network = isinstance(error, boto.ConnectionError | boto.HTTPClientError)
    if not network or isinstance(error, boto.SSLError):
        for name, path in boto_files().items():
            try:
                readable_file(path)
            except ValueError as wrong:
                return Unreachable(
                    f"object store {address}: {error}: {name} is not {wrong}", remedy=_REMEDY
                )
    return Unreachable(f"object store {address}: {error}", remedy=_REMEDY)
