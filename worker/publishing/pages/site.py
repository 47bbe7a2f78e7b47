"""A site in a folder or a bucket: items put, taken down, and listed anew.

An item is listed once its entry is there, which is written after all else that its page needs, and
deleted before any of it. So whenever the work is killed, every link on a list leads to a page, and
doing it again completes it. Several processes may write one site at once: each lists the items
again until none of them has changed meanwhile. So the last list that is written is of all items.
"""

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from itertools import islice
from typing import Any, TypeVar

from db.errors import BadInput, NotFound
from worker.publishing.access.renewed import Renewed
from worker.publishing.base import ROUNDS, Presence, TargetAway, compare_files, parse_foreign
from worker.publishing.pages.entry import (
    Entry,
    Item,
    bundle_of,
    entry_of,
    files_of,
    key_of,
    page_of,
    parse_entry,
)
from worker.publishing.pages.feed import write_feed
from worker.publishing.pages.render import GONE, File, Look, Renderer
from worker.publishing.pages.selections import EVERYTHING, FRONT, Lists
from worker.store.folder import FolderStore
from worker.store.s3 import S3Store

log = logging.getLogger(__name__)

ENTRIES, ITEMS, LISTS, BUNDLES = "entries", "items", "lists", "trust"
# all entries as of the last listing, each read anew only where its file is another one by now
CATALOGUE = "catalogue.json"
THREADS = 8
AT_ONCE = 64  # files that are rendered before they are written

A = TypeVar("A")
B = TypeVar("B")


class Site:
    """The site in `place`. Raises what the place does: `Unreachable`, `NotFound`."""

    def __init__(self, place: FolderStore | S3Store, look: Look) -> None:
        self.place = place
        self._renderer = Renderer(look)
        self._look = look
        self._has_style = False
        self._catalogued = Renewed[Mapping[str, tuple[str, Entry]]](lambda _: self._catalogue())

    def put(self, item: Item) -> str:
        """Write an item and return the name of its page; `refresh` lists it.

        One that is there keeps the time at which it was published.
        """
        self._write_style()
        known = self._read_entry(entry_of(item.key))
        for file in self._files_of(_as_of(item, known)):
            self._write(file)
        return page_of(item.key)

    def compare(self, item: Item) -> Presence:
        """How an item is there: its files, its page, its entry, and what the lists show of it."""
        known = self._read_entry(entry_of(item.key))
        item = _as_of(item, known)
        found = compare_files({each.name: each.data for each in self._files_of(item)}, self._read)
        if found is Presence.MISSING or known is None:
            return Presence.MISSING
        listed = self._catalogued.get().get(entry_of(item.key))
        return found if listed and listed[1] == known else Presence.ALTERED

    def certify(self, key_id: str, bundle: Mapping[str, Any]) -> None:
        """Write the trust bundle of a signing key, to which the pages of what it signed lead."""
        self._write(File(bundle_of(key_id), json.dumps(bundle, indent=2).encode() + b"\n"))

    def certified(self) -> set[str]:
        """The ids of the keys whose trust bundles are there."""
        return {key_of(name) for name in self.place.keys(BUNDLES)}

    def take_down(self, key: str) -> None:
        """Delete an item. Its page says so until `refresh`, once no list names it, deletes it."""
        self.place.delete(entry_of(key))
        if self.place.has(page_of(key)):
            self._write(self._renderer.gone(page_of(key)))
        for name in files_of(key):
            self.place.delete(name)

    def keys(self) -> set[str]:
        """The keys of all items that are there."""
        return {key_of(name) for name in self._listed()}

    def fetch(self, key: str) -> bytes:
        """The file of an item. Raises `NotFound`."""
        entry = self._read_entry(entry_of(key))
        if entry is None:
            raise NotFound(f"no item {key} in {self.place}")
        return self._read(entry.file)

    def refresh(self) -> None:
        """Write the lists and the feed anew, and delete what nothing names any more.

        Raises `TargetAway` if items were changed meanwhile, however often it began anew.
        """
        self._write_style()
        found = dict(self.place.versions(ENTRIES))
        for _ in range(ROUNDS):
            listed = found
            self._write_lists(self._read_entries(listed), listed)
            found = dict(self.place.versions(ENTRIES))
            if found == listed:
                break
        else:
            raise TargetAway(f"{self.place}: its items were changed while they were listed")
        self._delete_gone(set(found))
        self.place.flush()

    def _files_of(self, item: Item) -> Iterator[File]:
        """What is written of an item: its own file first, its entry last."""
        yield from (File(name, data) for name, data in item.files.items())
        yield self._renderer.item(item)
        yield File(entry_of(item.key), _json(item.entry().to_json()))

    def _write_lists(self, entries: list[Entry], versions: Mapping[str, str]) -> None:
        lists = Lists(entries)
        newest = lists.of[EVERYTHING]
        catalogue = {
            each.key: each.to_json() | {"version": versions[entry_of(each.key)]} for each in newest
        }
        self._write(File(CATALOGUE, _json(catalogue)))
        self._write(write_feed(self._look, newest))
        there, written = set(self.place.keys(LISTS)) | {FRONT}, set[str]()
        # no list names one that is not there yet, until all are
        for wanted in (lambda name: name not in there, there.__contains__):
            for files in _pieces(self._renderer.lists(lists, wanted)):
                _each(self._write, files[:-1])
                self._write(files[-1])  # the front page, in the end
                written |= {file.name for file in files}
        for name in set(self.place.keys(LISTS)) - written:
            self.place.delete(name)

    def _delete_gone(self, entries: set[str]) -> None:
        """Delete the pages that say that their items were taken down."""
        for page in self.place.keys(ITEMS):
            if entry_of(key_of(page)) not in entries:
                with suppress(NotFound):  # another worker was faster
                    if GONE in self._read(page):
                        self.place.delete(page)

    def _listed(self) -> set[str]:
        return set(self.place.keys(ENTRIES))

    def _read_entries(self, versions: Mapping[str, str]) -> list[Entry]:
        """The entries in these files; those that cannot be read are told and left out."""
        known = {
            name: entry
            for name, (version, entry) in self._catalogue().items()
            if versions.get(name) == version
        }
        read = _each(self._read_entry, sorted(versions.keys() - known.keys()))
        return [*known.values(), *(each for each in read if each)]

    def _catalogue(self) -> Mapping[str, tuple[str, Entry]]:
        """The entries by their files' names, each with the version of its file."""
        try:
            found = parse_foreign(self._read(CATALOGUE)).values()
            versions = [each.pop("version") for each in found]
            entries = [parse_entry(each) for each in found]
        except NotFound:
            return {}
        except (ValueError, AttributeError, KeyError, TypeError, BadInput) as error:
            log.warning("the catalogue of %s is made anew: %s", self.place, error)
            return {}
        named = zip(versions, entries, strict=True)
        return {entry_of(entry.key): (version, entry) for version, entry in named}

    def _read_entry(self, name: str) -> Entry | None:
        try:
            entry = parse_entry(parse_foreign(self._read(name)))
        except NotFound:
            return None
        except (ValueError, BadInput) as error:
            log.warning("%s in %s is left out: %s", name, self.place, error)
            return None
        if entry_of(entry.key) == name:
            return entry
        log.warning("%s in %s is left out: it is that of %r", name, self.place, entry.key)
        return None

    def _write_style(self) -> None:
        if not self._has_style:
            self._write(self._renderer.style())
            self._has_style = True

    def _read(self, name: str) -> bytes:
        with self.place.open(name) as file:
            return file.read()

    def _write(self, file: File) -> None:
        self.place.replace_public(file.name, file.data, media_type=file.media_type)


def _as_of(item: Item, known: Entry | None) -> Item:
    """The item as of the time at which it was first published, by the entry that is there."""
    if known is None:
        return item
    return replace(item, published_at=datetime.fromisoformat(known.published_at))


def _each(act: Callable[[A], B], things: Iterable[A]) -> list[B]:
    """What `act` returns of each thing, by several threads."""
    with ThreadPoolExecutor(THREADS) as threads:
        return list(threads.map(act, things))


def _pieces(things: Iterable[A]) -> Iterator[list[A]]:
    rest = iter(things)
    while some := list(islice(rest, AT_ONCE)):
        yield some


def _json(data: Any) -> bytes:
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode()
