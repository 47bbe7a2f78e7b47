"""A folder: each item is a file, with its record beside it as `FILE.json`."""

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from worker.publishing.access import addresses, public_files
from worker.publishing.access.item_files import ItemFiles
from worker.publishing.base import TargetSettings


class Folder(ItemFiles[TargetSettings]):
    """A folder that this machine's workers can write."""

    title: ClassVar[str] = "a folder of files, each with its record"
    schema: ClassVar[type[TargetSettings]] = TargetSettings

    @classmethod
    def place(cls, address: str) -> Path:
        """See `Target.place`."""
        return addresses.folder(address)

    @property
    def root(self) -> Path:
        """The folder."""
        return self.place(self.settings.address)

    def __str__(self) -> str:
        return str(self.root)

    def finish(self) -> None:
        """See `Target.finish`: nothing is made, but what killed workers left is removed."""
        public_files.sweep(self.root)

    def _write(self, name: str, data: bytes, media_type: str) -> None:
        public_files.write(self.root, name, data)

    def _read(self, name: str) -> bytes:
        return public_files.read(self.root, name)

    def _remove(self, name: str) -> None:
        public_files.remove(self.root, name)

    def _names(self) -> Iterator[str]:
        return (name for name, _ in public_files.versions(self.root))


TARGET = Folder
