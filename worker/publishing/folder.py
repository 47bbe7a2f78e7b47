"""A folder: each item is a file, with its record beside it as `FILE.json`."""

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from worker.files import is_plain
from worker.publishing.access import addresses, public_files
from worker.publishing.base import Item, Record, Target, TargetSettings, record_json

RECORD_SUFFIX = ".json"
_PROBE = "genmill-check"


class Folder(Target[TargetSettings]):
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

    def check(self) -> None:
        """See `Target.check`."""
        public_files.write(self.root, _PROBE, b"written by `genmill target check`\n")
        public_files.remove(self.root, _PROBE)

    def locate(self, item: Item) -> str:
        """See `Target.locate`: the key is the path below the folder."""
        return item.key

    def put(self, item: Item, data: bytes, record: Record) -> str:
        """See `Target.put`; the record comes first, so that no file is without one."""
        public_files.write(self.root, f"{item.key}{RECORD_SUFFIX}", record_json(record))
        public_files.write(self.root, item.key, data)
        return self.locate(item)

    def fetch(self, remote_id: str) -> bytes:
        """See `Target.fetch`."""
        return public_files.read(self.root, remote_id)

    def list(self) -> Iterator[str]:
        """See `Target.list`."""
        public_files.require_folder(self.root)
        for path in sorted(self.root.rglob(f"*{RECORD_SUFFIX}")):
            item = path.with_name(path.name.removesuffix(RECORD_SUFFIX))
            if item.is_file() and not item.is_symlink() and is_plain(item.name):
                yield item.relative_to(self.root).as_posix()

    def take_down(self, remote_id: str) -> None:
        """See `Target.take_down`; the file goes first, for the reason in `put`."""
        public_files.remove(self.root, remote_id)
        public_files.remove(self.root, f"{remote_id}{RECORD_SUFFIX}")

    def finish(self) -> None:
        """See `Target.finish`: nothing is made, but what killed workers left is removed."""
        public_files.sweep(self.root)


TARGET = Folder
