"""The folder of a gallery: a store of files in whose place others may have put anything else.

See `worker.publishing.access.public_files` for what is done about that.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from worker.files import disk_errors
from worker.publishing.access import public_files
from worker.store.base import is_key
from worker.store.folder import FolderStore


class PublicStore(FolderStore):
    """A `FolderStore` that follows no link below its root; raises `NoFile` and `Obstructed`."""

    def replace_public(self, key: str, data: bytes, *, media_type: str) -> None:
        """See `FolderStore.replace_public`."""
        with disk_errors(self.root):
            public_files.clear(self.root, self._path(key))
        super().replace_public(key, data, media_type=media_type)

    def has(self, key: str) -> bool:
        """See `ObjectStore.has`."""
        with disk_errors(self.root):
            return public_files.is_file(self.root, self._path(key))

    def delete(self, key: str) -> None:
        """See `ObjectStore.delete`."""
        with disk_errors(self.root):
            public_files.delete(self.root, self._path(key))

    def keys(self, prefix: str, *, older_than_s: float | None = None) -> Iterator[str]:
        """See `ObjectStore.keys`; files whose names are no keys are others'."""
        yield from filter(is_key, super().keys(prefix, older_than_s=older_than_s))

    def _open_file(self, path: Path) -> BinaryIO:
        return public_files.open_file(self.root, path)
