"""The object store: objects under keys, most ending in a SHA-256, in a folder or an S3 bucket.

They lie there as they are, or encrypted. Knows no jobs, datasets or models; only this room speaks
S3.
"""

from worker.store.address import S3Address, parse_store_url
from worker.store.base import ObjectStore
from worker.store.byte_store import ByteStore
from worker.store.folder import FolderStore
from worker.store.s3 import S3Store

__all__ = ["ByteStore", "ObjectStore", "open_store"]


def open_store(url: str, *, s3_endpoint_url: str | None = None) -> ByteStore:
    """The store at `file:///folder` or `s3://bucket/prefix`, of bytes as they are.

    Raises `Refused` for any other URL.
    """
    place = parse_store_url(url, s3_endpoint_url=s3_endpoint_url)
    return S3Store(place) if isinstance(place, S3Address) else FolderStore(place)
