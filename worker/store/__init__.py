"""The object store: objects under keys, most ending in a SHA-256, in a folder or an S3 bucket.

Knows no jobs, datasets or models. Only this room speaks S3.
"""

from pathlib import Path
from urllib.parse import unquote, urlsplit

from db.errors import Refused
from worker.store.base import ObjectStore
from worker.store.folder import FolderStore
from worker.store.s3 import S3Store

__all__ = ["ObjectStore", "open_store"]


def open_store(url: str, *, s3_endpoint_url: str | None = None) -> ObjectStore:
    """The store at `file:///folder` or `s3://bucket/prefix`; `Refused` for any other URL."""
    parts = urlsplit(url)
    if parts.scheme == "file" and not parts.netloc and parts.path.strip("/"):
        return FolderStore(Path(unquote(parts.path)))
    if parts.scheme == "s3" and parts.netloc:
        return S3Store(parts.netloc, parts.path.strip("/"), endpoint_url=s3_endpoint_url)
    raise Refused(
        f"{url!r} is not the URL of an object store",
        remedy="set GENMILL_STORE_URL to file:///folder or s3://bucket/prefix",
    )
