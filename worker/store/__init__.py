"""The object store: objects under keys, most of them SHA-256 digests, in a folder or an S3 bucket.

Knows no jobs, datasets or models. Nothing else speaks S3.
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
        f"store URL {url!r} is neither file:///folder nor s3://bucket/prefix",
        remedy="set GENMILL_STORE_URL",
    )
