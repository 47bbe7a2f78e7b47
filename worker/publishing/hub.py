"""The layout of the Hugging Face hub: files, `metadata.jsonl` and a card, in a folder or pushed.

Samples make a dataset, whose `metadata.jsonl` `datasets` reads; files of one version make a model.
An item's record is kept in `records/`, from which the metadata and the card are made anew each
time. The remote id of an item names its record; an item is there while its record is.

Several workers may change one repository at once. What is made from all items is written only if
none was changed since they were listed, and else from a new list.
"""

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property, partial
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, ClassVar, NamedTuple, TypeVar

from pydantic import Field

from db.errors import GenmillError, NotFound, Refused
from worker.complaints import matching
from worker.files import is_plain
from worker.publishing.access import addresses
from worker.publishing.access.hf_repository import Files, InFolder, Listing, Outdated, Repository
from worker.publishing.access.renewed import Renewed
from worker.publishing.base import (
    ROUNDS,
    Delivery,
    Item,
    ItemRefused,
    Obstructed,
    Presence,
    Record,
    Target,
    TargetSettings,
    parse_foreign,
    record_json,
)
from worker.publishing.pages.card import card, metadata_line

DATA, RECORDS, METADATA, CARD = "data", "records", "metadata.jsonl", "README.md"
RESERVED = {CARD, METADATA}  # are no names of items at the top
PER_FOLDER = 5000  # samples: the hub takes no folder of more than 10,000 files
SCHEME = "hf://"
ADDRESSES = "use hf://datasets/OWNER/NAME, hf://OWNER/NAME for a model, or a folder's path"

T = TypeVar("T")


class HubSettings(TargetSettings):
    """What can be set of a hub target."""

    concurrency: int = Field(32, ge=1, le=256, description="half as many items as a commit has")
    endpoint: str | None = Field(
        None, max_length=200, description="URL of the hub; default: that of HF_ENDPOINT"
    )
    license: Annotated[str, matching(r"[A-Za-z0-9][A-Za-z0-9.-]{0,99}", "as in cc-by-4.0")] | (
        None
    ) = Field(None, description="the licence that the card names, as in cc-by-4.0")


class _Look(NamedTuple):
    """What a target shows of all items at one time."""

    listing: Listing
    lines: Mapping[str, str]  # of the metadata, by the samples' remote ids


class Hub(Target[HubSettings]):
    """A dataset or a model in the layout of the hub."""

    title: ClassVar[str] = "a dataset or model of the Hugging Face hub, or a folder of its layout"
    schema: ClassVar[type[TargetSettings]] = HubSettings
    secrets: ClassVar[Mapping[str, str]] = {"token": "an access token that may write"}
    batched: ClassVar[bool] = True
    lists_all: ClassVar[bool] = True

    def __init__(self, settings: HubSettings, secrets: Mapping[str, str]) -> None:
        super().__init__(settings, secrets)
        self._records: dict[str, Record] = {}  # of items as they are there, by remote id
        self._looks = Renewed(self._look)

    @classmethod
    def place(cls, address: str) -> str | Path:
        """See `Target.place`: a repository, as in `datasets/ann/cats`, or a folder."""
        if not address.startswith(SCHEME):
            return addresses.folder(address)
        parts = address.removeprefix(SCHEME).split("/")
        if len(parts) != (3 if parts[0] == "datasets" else 2) or not all(map(is_plain, parts)):
            raise Refused(f"{addresses.ADDRESS} names no repository", remedy=ADDRESSES)
        return "/".join(parts)

    @classmethod
    def parse(cls, settings: Mapping[str, Any]) -> HubSettings:
        """See `Target.parse`."""
        if (endpoint := settings.get("endpoint")) is not None:
            addresses.endpoint(str(endpoint), "the target's endpoint")
        return super().parse(settings)

    @cached_property
    def _files(self) -> Files:
        place = self.place(self.settings.address)
        if isinstance(place, Path):
            return InFolder(place)
        return Repository(
            place,
            token=self._secrets.get("token"),
            endpoint=self.settings.endpoint,
            timeout_s=self.settings.timeout_s,
        )

    @property
    def _takes(self) -> str:
        """What a repository takes: samples or files; a folder takes both."""
        place = self.place(self.settings.address)
        if isinstance(place, Path):
            return "both"
        return "samples" if place.startswith("datasets/") else "files"

    def __str__(self) -> str:
        return str(self._files)

    def open(self) -> None:
        """See `Target.open`."""
        self._files.open()

    def close(self) -> None:
        """See `Target.close`."""
        self._files.close()

    def check(self) -> None:
        """See `Target.check`."""
        self._files.write({"genmill-check": b"written by `genmill target check`\n"}, why="check")
        self._files.remove(["genmill-check"], why="check")

    def locate(self, item: Item) -> str:
        """See `Target.locate`: samples below `data/`, files of models below `models/`."""
        if item.sample is None:
            return item.key
        folder, _, name = item.key.rpartition("/")
        part = item.sample // PER_FOLDER
        return "/".join([DATA, folder, *([f"{part:05d}"] if part else []), name])

    def put(self, item: Item, data: bytes, record: Record) -> str:
        """See `Target.put`."""
        [found] = self.put_all([Delivery(item, data, record)])
        if isinstance(found, GenmillError):
            raise found
        return found

    def put_all(self, deliveries: Sequence[Delivery]) -> Sequence[str | GenmillError]:
        """See `Target.put_all`: one commit for all."""
        if self._takes == "files":  # no other version may come in between
            return self._until_unchanged(partial(self._put_all, deliveries))
        return self._put_all(deliveries, None)

    def fetch(self, remote_id: str) -> bytes:
        """See `Target.fetch`."""
        return self._files.read(self._file_of(remote_id))

    def compare(self, delivery: Delivery) -> Presence:
        """See `Target.compare`; of a repository, what git knows its files by is compared."""
        place, files = self.locate(delivery.item), self._written(delivery)
        listing, lines = self._looks.get()
        if self._file_of(place) not in listing.versions:
            return Presence.MISSING
        unchanged = all(self._files.holds(listing, name, files[name]) for name in files)
        if _is_sample(place):
            unchanged &= lines.get(place) == metadata_line(place, delivery.record)
        if not unchanged:
            return Presence.ALTERED
        self._records[place] = delivery.record
        return Presence.UNCHANGED

    def list(self) -> Iterator[str]:
        """See `Target.list`."""
        yield from self._items(self._files.listing())

    def take_down(self, remote_id: str) -> None:
        """See `Target.take_down`."""
        self.take_down_all([remote_id])

    def take_down_all(self, remote_ids: Sequence[str]) -> None:
        """See `Target.take_down_all`: one commit; a file that another version has by now stays."""
        for each in remote_ids:
            self._records.pop(each, None)
        if self._takes == "both":  # a folder may hold an unfinished file, which has no name yet
            self._files.remove(sorted(self._names_of(remote_ids)), why="")
        else:
            self._until_unchanged(partial(self._remove, set(remote_ids)))

    def finish(self, changed: Collection[str] = ()) -> None:
        """See `Target.finish`: the metadata and the card follow from the records."""
        self._files.sweep()
        self._until_unchanged(partial(self._describe, changed=changed))

    def _until_unchanged(self, act: Callable[[Listing], T]) -> T:
        """Act on the files as they are listed, and again if they were changed meanwhile."""
        for _ in range(ROUNDS - 1):
            with suppress(Outdated):
                return act(self._files.listing())
        return act(self._files.listing())

    def _put_all(
        self, deliveries: Sequence[Delivery], there: Listing | None
    ) -> Sequence[str | GenmillError]:
        others = self._items(there) if there else ()
        refused = {each.item.key: self._refusal(each.item, others) for each in deliveries}
        taken = [each for each in deliveries if refused[each.item.key] is None]
        if self._takes == "both":  # a folder, where each file is written by itself
            for each in taken:
                refused[each.item.key] = self._obstruction(each)
        elif taken:
            files = {name: data for each in taken for name, data in self._written(each).items()}
            self._files.write(files, why=f"Publish {len(taken)} items", after=there)
        taken = [each for each in taken if refused[each.item.key] is None]
        self._records |= {self.locate(each.item): each.record for each in taken}
        return [refused[each.item.key] or self.locate(each.item) for each in deliveries]

    def _obstruction(self, delivery: Delivery) -> ItemRefused | None:
        """Write the files of an item; why they cannot be, if that is for what is in their place."""
        try:
            self._files.write(self._written(delivery), why="")
        except Obstructed as error:
            return ItemRefused(error.message, remedy=error.remedy)
        return None

    def _written(self, delivery: Delivery) -> Mapping[str, bytes]:
        """The files of an item."""
        place = self.locate(delivery.item)
        record = record_json(delivery.record)
        return {_record_of(place): record, self._file_of(place): delivery.data}

    def _names_of(self, remote_ids: Iterable[str]) -> set[str]:
        """The names of the files of items."""
        return {name for each in remote_ids for name in (_record_of(each), self._file_of(each))}

    def _remove(self, going: set[str], there: Listing) -> None:
        staying = (each for each in _recorded(there.versions) if each not in going)
        used = {self._file_of(each) for each in staying}
        gone = (self._names_of(going) & there.versions.keys()) - used
        after = there if self._takes == "files" else None
        if gone:
            self._files.remove(sorted(gone), why=f"Take down {len(going)} items", after=after)

    def _describe(self, there: Listing, *, changed: Collection[str]) -> None:
        """Write the metadata and the card of all items that are listed."""
        items = self._items(there)
        lines = self._lines([each for each in items if _is_sample(each)], changed)
        records = [self._record(each) for each in items if not _is_sample(each)]
        told = chain(map(json.loads, lines), records)
        pages = {CARD: card(told, len(lines), self.settings.license).encode()}
        if lines or METADATA in there.versions:  # it may hold what was taken down
            pages[METADATA] = "".join(f"{line}\n" for line in lines).encode()
        pages = {
            each: new for each, new in pages.items() if not self._files.holds(there, each, new)
        }
        if pages:
            self._files.write(pages, why="Describe what is published", after=there)

    def _lines(self, samples: Sequence[str], changed: Collection[str]) -> Sequence[str]:
        """The lines of the metadata about samples; their records are read where nothing else tells.

        The metadata may be of a record that was replaced since: in a folder by another worker, and
        anywhere by one that was killed before it described what it had `changed`.
        """
        known = self._read_metadata() if self._files.is_atomic else {}
        for each in changed:
            known.pop(each, None)
        known |= {place: metadata_line(place, each) for place, each in self._records.items()}
        return [known.get(each) or metadata_line(each, self._record(each)) for each in samples]

    def _refusal(self, item: Item, there: Sequence[str]) -> ItemRefused | None:
        """Why the repository, with these items, does not take another; None if it does."""
        own = _version_of(item.key)
        if self._takes not in {"both", "files" if item.sample is None else "samples"}:
            return ItemRefused(f"{self} takes {self._takes} only")
        if others := {_version_of(each) for each in there} - {own}:
            return ItemRefused(
                f"{self} holds {min(others)}, and a repository is for one version of a model",
                remedy="take that down first, or add a target with another repository",
            )
        return None

    def _file_of(self, remote_id: str) -> str:
        """The file of an item: of a model at the top, where the hub has them."""
        if self._takes != "files":
            return remote_id
        name = remote_id.removeprefix(_version_of(remote_id)).removeprefix("/")
        return remote_id if not name or name in RESERVED else name

    def _items(self, there: Listing) -> Sequence[str]:
        names = there.versions
        return sorted(each for each in _recorded(names) if self._file_of(each) in names)

    def _look(self, before: _Look | None) -> _Look:
        """What the target shows now, if it is not what it showed before."""
        listing = self._files.listing(before.listing if before else None)
        version = listing.versions.get(METADATA)
        if before and before.listing.versions.get(METADATA) == version:
            return _Look(listing, before.lines)
        return _Look(listing, self._read_metadata() if version else {})

    def _read_metadata(self) -> dict[str, str]:
        """The lines of the metadata by the samples' remote ids; empty where it is another's."""
        try:
            lines = self._files.read(METADATA).splitlines()
            return {parse_foreign(line)["file_name"]: line.decode() for line in lines}
        except (NotFound, ValueError, KeyError, TypeError):
            return {}

    def _record(self, place: str) -> Record:
        if place in self._records:
            return self._records[place]
        try:
            found = parse_foreign(self._files.read(_record_of(place)))
        except (NotFound, ValueError):  # taken down meanwhile, or another's
            return {}
        return found if isinstance(found, dict) else {}


def _record_of(remote_id: str) -> str:
    return f"{RECORDS}/{remote_id}.json"


def _recorded(names: Iterable[str]) -> list[str]:
    """The remote ids whose records are among some files."""
    found = (each.removeprefix(f"{RECORDS}/") for each in names if each.startswith(f"{RECORDS}/"))
    return [each.removesuffix(".json") for each in found if each.endswith(".json")]


def _is_sample(remote_id: str) -> bool:
    return remote_id.startswith(f"{DATA}/")


def _version_of(remote_id: str) -> str:
    """The version that a file of a model is of, as in `models/digits/3`."""
    return "/".join(remote_id.split("/")[:3])


TARGET = Hub
