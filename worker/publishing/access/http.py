"""What the answers of an HTTP server mean for a target, and errors of the way to it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from xml.etree.ElementTree import ParseError

from db.errors import GenmillError
from worker.publishing.base import ItemRefused, TargetAway

MAX_RETRY_AFTER_S = 3600.0
# what a client raises at an answer that is not by its protocol, as of any web site
UNREADABLE = (ValueError, KeyError, ParseError)
_BUSY = {
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.LOCKED,
    HTTPStatus.TOO_EARLY,
    HTTPStatus.TOO_MANY_REQUESTS,
}
# of the address, or of who asks: nothing that another item would change
_OF_TARGET: Mapping[int, str] = {
    HTTPStatus.UNAUTHORIZED: "check its secrets",
    HTTPStatus.FORBIDDEN: "check its secrets, and what they allow",
    HTTPStatus.PROXY_AUTHENTICATION_REQUIRED: "check the proxy",
    HTTPStatus.NOT_FOUND: "check its address",
    HTTPStatus.METHOD_NOT_ALLOWED: "check its address",
    HTTPStatus.GONE: "check its address",
}


def failure(where: object, status: int, retry_after: str | None = None) -> GenmillError:
    """The error for an answer that is no success."""
    told = f"{where} answers {status} {_phrase(status)}".rstrip()
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in _BUSY:
        return TargetAway(told, retry_after_s=_seconds(retry_after))
    if status in _OF_TARGET:
        return TargetAway(told, remedy=_OF_TARGET[status])
    if status < HTTPStatus.BAD_REQUEST:
        return TargetAway(told, remedy="give the address that it sends to")
    return ItemRefused(told)


def unreadable(where: object, error: Exception) -> TargetAway:
    """The error for an answer that is not by the protocol; no part of it is repeated."""
    return TargetAway(
        f"{where}: the answer is not that of such a server ({type(error).__name__})",
        remedy="check its address",
    )


@contextmanager
def network_errors(where: object) -> Iterator[None]:
    """Raise `TargetAway` in place of httpx's errors of connections and timeouts."""
    import httpx  # noqa: PLC0415 - of an extra

    try:
        yield
    except httpx.HTTPError as error:
        # its text may hold an address, never a header
        told = str(error) or type(error).__name__
        raise TargetAway(f"{where} does not answer: {told}") from error


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def _seconds(retry_after: str | None) -> float | None:
    """The seconds of a Retry-After header; dates are left to the usual pauses."""
    if retry_after is None or not retry_after.strip().isdigit():
        return None
    return min(float(retry_after), MAX_RETRY_AFTER_S)
