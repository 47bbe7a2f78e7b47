"""The object store: objects under keys, most ending in a SHA-256, in a folder or an S3 bucket.

Knows no jobs, datasets or models. Only this room speaks S3.
"""

from worker.store.address import S3Address, parse_store_url
from worker.store.base import ObjectStore
from worker.store.folder import FolderStore
from worker.store.s3 import S3Store

__all__ = ["ObjectStore", "open_store"]


def open_store(url: str, *, s3_endpoint_url: str | None = None) -> ObjectStore:
    """The store at `file:///folder` or `s3://bucket/prefix`; `Refused` for any other URL."""
    place = parse_store_url(url, s3_endpoint_url=s3_endpoint_url)
    return S3Store(place) if isinstance(place, S3Address) else FolderStore(place)
