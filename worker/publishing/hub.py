"""The layout of the Hugging Face hub: files, `metadata.jsonl` and a card, in a folder or pushed.

Samples make a dataset, whose `metadata.jsonl` `datasets` reads; files of one version make a model.
An item's record is kept in `records/`, from which the metadata and the card are made anew each
time. The remote id of an item names its record; an item is there while its record is.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from db.errors import GenmillError, NotFound, Refused
from worker.files import is_plain
from worker.publishing.access import addresses
from worker.publishing.access.hf_repository import Files, InFolder, Repository
from worker.publishing.base import (
    Delivery,
    Item,
    ItemRefused,
    Record,
    Target,
    TargetSettings,
    record_json,
)

DATA, RECORDS, METADATA, CARD = "data", "records", "metadata.jsonl", "README.md"
RESERVED = {CARD, METADATA}  # are no names of items at the top
SCHEME = "hf://"
ROUNDS = 5  # until no other worker has changed the items meanwhile
ADDRESSES = "use hf://datasets/OWNER/NAME, hf://OWNER/NAME for a model, or a folder's path"


class HubSettings(TargetSettings):
    """What can be set of a hub target."""

    concurrency: int = Field(32, ge=1, le=256, description="half as many items as a commit has")
    endpoint: str | None = Field(
        None, max_length=200, description="URL of the hub; default: that of HF_ENDPOINT"
    )
    license: str | None = Field(
        None, max_length=100, description="the licence that the card names, as in cc-by-4.0"
    )


class Hub(Target[HubSettings]):
    """A dataset or a model in the layout of the hub."""

    title: ClassVar[str] = "a dataset or model of the Hugging Face hub, or a folder of its layout"
    schema: ClassVar[type[TargetSettings]] = HubSettings
    secrets: ClassVar[Mapping[str, str]] = {"token": "an access token that may write"}
    batched: ClassVar[bool] = True

    def __init__(self, settings: HubSettings, secrets: Mapping[str, str]) -> None:
        super().__init__(settings, secrets)
        self._put: dict[str, Record] = {}  # by remote id: these need not be read again

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
        if endpoint := settings.get("endpoint"):
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
        return item.key if item.sample is None else f"{DATA}/{item.key}"

    def put(self, item: Item, data: bytes, record: Record) -> str:
        """See `Target.put`."""
        [found] = self.put_all([Delivery(item, data, record)])
        if isinstance(found, GenmillError):
            raise found
        return found

    def put_all(self, deliveries: Sequence[Delivery]) -> Sequence[str | GenmillError]:
        """See `Target.put_all`: one commit for all."""
        others = self._items() if self._takes == "files" else ()
        results = [
            self._refusal(each.item, others) or self.locate(each.item) for each in deliveries
        ]
        files: dict[str, bytes] = {}
        for each, place in zip(deliveries, results, strict=True):
            if isinstance(place, str):
                files |= {_record_of(place): record_json(each.record)}
                files |= {self._file_of(place): each.data}
                self._put[place] = each.record
        if files:
            self._files.write(files, why=f"Publish {len(files) // 2} items")
        return results

    def fetch(self, remote_id: str) -> bytes:
        """See `Target.fetch`."""
        return self._files.read(self._file_of(remote_id))

    def list(self) -> Iterator[str]:
        """See `Target.list`."""
        yield from self._items()

    def take_down(self, remote_id: str) -> None:
        """See `Target.take_down`."""
        self.take_down_all([remote_id])

    def take_down_all(self, remote_ids: Sequence[str]) -> None:
        """See `Target.take_down_all`: one commit; a file that another version has by now stays."""
        names, going = set(self._files.names()), set(remote_ids)
        used = {self._file_of(each) for each in _recorded(names) if each not in going}
        wanted = {name for each in going for name in (_record_of(each), self._file_of(each))}
        for each in going:
            self._put.pop(each, None)
        gone = wanted - used
        if self._takes != "both":  # a folder may hold an unfinished file, which has no name yet
            gone &= names
        if gone:
            self._files.remove(sorted(gone), why=f"Take down {len(going)} items")

    def finish(self) -> None:
        """See `Target.finish`: the metadata and the card follow from the records."""
        self._files.sweep()
        for _ in range(ROUNDS):
            items = self._items()
            known = {**self._described(), **self._put}
            records = {place: known.get(place) or self._record(place) for place in items}
            samples = {place: each for place, each in records.items() if _is_sample(place)}
            pages = {CARD: card(records, samples, self.settings.license).encode()}
            if samples or METADATA in self._files.names():  # it may hold what was taken down
                pages[METADATA] = metadata(samples).encode()
            self._files.write(pages, why="Describe what is published")
            if self._items() == items:
                return

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

    def _items(self) -> Sequence[str]:
        names = set(self._files.names())
        return sorted(each for each in _recorded(names) if self._file_of(each) in names)

    def _described(self) -> Mapping[str, Record]:
        """The records of samples by the metadata, as far as that holds them."""
        try:
            lines = [json.loads(line) for line in self._files.read(METADATA).splitlines()]
            return {each.pop("file_name"): each for each in lines}
        except (NotFound, ValueError, KeyError, AttributeError, TypeError):  # none, or another's
            return {}

    def _record(self, place: str) -> Record:
        try:
            found: Record = json.loads(self._files.read(_record_of(place)))
        except (NotFound, ValueError):  # taken down meanwhile
            return {}
        return found


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


def metadata(samples: Mapping[str, Record]) -> str:
    """The lines of `metadata.jsonl`: a sample's file, and what its record says in plain values."""
    lines = []
    for place, record in sorted(samples.items()):
        plain = {key: each for key, each in record.items() if isinstance(each, str | int | float)}
        lines.append(json.dumps({"file_name": place, **plain}, ensure_ascii=False))
    return "".join(f"{line}\n" for line in lines)


def card(records: Mapping[str, Record], samples: Mapping[str, Record], license: str | None) -> str:
    """The card: what there is, which models made it, that AI did, and how to check it."""
    models = Counter(str(each["model"]) for each in records.values() if each.get("model"))
    weights = {str(each.get("model")): each.get("weights_sha256") for each in records.values()}
    head = ["---", "tags:", "- synthetic", "- genmill"]
    tag = next((each["pipeline_tag"] for each in records.values() if "pipeline_tag" in each), None)
    head += [f"pipeline_tag: {tag}"] if tag and not samples else []
    head += [f"license: {license}"] if license else []
    what = f"{len(samples):,} samples" if samples else f"{len(records):,} files"
    body = [
        f"# {what}, made by AI" if samples else f"# {what} of a model",
        "",
        "Published by Genmill. Each file has its record in `records/`; a sample carries it inside, "
        "too: the model, its settings and seed, and that it was made by AI (IPTC digital source "
        "type `trainedAlgorithmicMedia`).",
        "",
        "| model | items | SHA-256 of its weights |",
        "| --- | --- | --- |",
        *(
            f"| {name} | {number:,} | `{weights[name]}` |"
            for name, number in sorted(models.items())
        ),
    ]
    return "\n".join([*head, "---", "", *body, ""])


TARGET = Hub
