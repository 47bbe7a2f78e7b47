"""Targets that keep each item as a file, with its record beside it as `FILE.json`."""

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from typing import TypeVar

from worker.publishing.base import (
    Delivery,
    Item,
    Presence,
    Record,
    Target,
    TargetSettings,
    compare_files,
    record_json,
)

RECORD_SUFFIX, RECORD_TYPE = ".json", "application/json"
PROBE, PROBE_TEXT = "genmill-check", b"written by `genmill target check`\n"

S = TypeVar("S", bound=TargetSettings)


class ItemFiles(Target[S]):
    """A place for files; a remote id is the name of an item's file there."""

    def locate(self, item: Item) -> str:
        """See `Target.locate`: the path below the address."""
        return item.key

    def check(self) -> None:
        """See `Target.check`."""
        self._write(PROBE, PROBE_TEXT, "text/plain")
        self._remove(PROBE)

    def put(self, item: Item, data: bytes, record: Record) -> str:
        """See `Target.put`; the record comes first, so that no file is without one."""
        name = self.locate(item)
        self._write(f"{name}{RECORD_SUFFIX}", record_json(record), RECORD_TYPE)
        self._write(name, data, item.media_type)
        return name

    def fetch(self, remote_id: str) -> bytes:
        """See `Target.fetch`."""
        return self._read(remote_id)

    def compare(self, delivery: Delivery) -> Presence:
        """See `Target.compare`."""
        name = self.locate(delivery.item)
        record = record_json(delivery.record)
        return compare_files({name: delivery.data, f"{name}{RECORD_SUFFIX}": record}, self._read)

    def list(self) -> Iterator[str]:
        """See `Target.list`."""
        names = set(self._names())
        yield from (name for name in sorted(names) if f"{name}{RECORD_SUFFIX}" in names)

    def take_down(self, remote_id: str) -> None:
        """See `Target.take_down`; the file goes first, for the reason in `put`."""
        self._remove(remote_id)
        self._remove(f"{remote_id}{RECORD_SUFFIX}")

    @abstractmethod
    def _write(self, name: str, data: bytes, media_type: str) -> None:
        """Write a file whole or not at all, in place of one of that name."""

    @abstractmethod
    def _read(self, name: str) -> bytes:
        """The bytes of a file. Raises `NotFound`."""

    @abstractmethod
    def _remove(self, name: str) -> None:
        """Remove a file, if it is there, and what a killed worker left of it."""

    @abstractmethod
    def _names(self) -> Iterable[str]:
        """The names of all files."""
