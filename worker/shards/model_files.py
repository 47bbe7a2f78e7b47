"""The files of model versions in this machine's cache."""

import hashlib
from contextlib import suppress
from pathlib import Path

from db.tables import ModelVersion
from worker.cache import Cache, HeldFolder
from worker.files import digest_of, inside
from worker.store.base import ObjectStore


def content_key(version: ModelVersion) -> str:
    """The SHA-256 of the names and digests of a version's files."""
    lines = sorted(f"{name} {file['sha256']}" for name, file in version.files.items())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def fetch_version(store: ObjectStore, version: ModelVersion, cache: Cache) -> HeldFolder:
    """The folder of a version's files, downloaded and checked unless the cache has it.

    A file gets its name once its digest is checked, so a file of the right size is not read again.
    Raises `NotFound`, `Unreachable` or `DigestMismatch` as the store does, and `BadInput` for a
    file whose name on record is no plain one.
    """

    def has_file(folder: Path, name: str) -> bool:
        path = inside(folder, name)
        return path.is_file() and path.stat().st_size == version.files[name]["size"]

    def is_complete(folder: Path) -> bool:
        return all(has_file(folder, name) for name in version.files)

    def download(folder: Path) -> None:
        for name, file in version.files.items():
            path = inside(folder, name)
            if not has_file(folder, name) and not _link_equal_file(path, **file):
                store.fetch(file["key"], path, sha256=file["sha256"])

    return cache.hold("models", content_key(version), download, is_complete=is_complete)


def _link_equal_file(path: Path, *, size: int, sha256: str, **_: object) -> bool:
    """Link the same file of another version (adapters share a base); False if there is none.

    Only the first file of the same name and size is read, so many versions cost one reading.
    """
    for folder in path.parent.parent.iterdir():
        other = folder / path.name
        with suppress(OSError):  # another process may evict it, or link it too
            if folder != path.parent and other.stat().st_size == size:
                if same := digest_of(other) == sha256:
                    path.unlink(missing_ok=True)  # a file of another size
                    path.hardlink_to(other)
                return same
    return False
