"""The layout of the Hugging Face hub: files, `metadata.jsonl` and a card, in a folder or pushed.

Samples make a dataset, whose `metadata.jsonl` `datasets` reads; files of a version make a model. An
item's record is kept in `records/`, from which the metadata and the card are made anew each time.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from db.errors import GenmillError, NotFound, Refused
from worker.files import is_plain
from worker.publishing.access import addresses, public_files
from worker.publishing.access.hf_repository import Files, Repository
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


class _InFolder(Files):
    def __init__(self, root: Path) -> None:
        self._root = root

    def __str__(self) -> str:
        return str(self._root)

    def write(self, files: Mapping[str, bytes], *, why: str) -> None:
        for name, data in files.items():
            public_files.write(self._root, name, data)

    def read(self, name: str) -> bytes:
        return public_files.read(self._root, name)

    def remove(self, names: Sequence[str], *, why: str) -> None:
        for name in names:
            public_files.remove(self._root, name)

    def names(self) -> list[str]:
        public_files.require_folder(self._root)
        found = (each for each in self._root.rglob("*") if each.is_file())
        return sorted(each.relative_to(self._root).as_posix() for each in found)


class Hub(Target[HubSettings]):
    """A dataset or a model in the layout of the hub."""

    title: ClassVar[str] = "a dataset or model of the Hugging Face hub, or a folder of its layout"
    schema: ClassVar[type[TargetSettings]] = HubSettings
    secrets: ClassVar[Mapping[str, str]] = {"token": "an access token that may write"}
    batched: ClassVar[bool] = True

    @classmethod
    def place(cls, address: str) -> str | Path:
        """See `Target.place`: a repository, as in `datasets/ann/cats`, or a folder."""
        if not address.startswith(SCHEME):
            return addresses.folder(address)
        parts = address.removeprefix(SCHEME).split("/")
        if len(parts) != (3 if parts[0] == "datasets" else 2) or not all(map(is_plain, parts)):
            raise Refused(f"{addresses.ADDRESS} names no repository", remedy=ADDRESSES)
        return "/".join(parts)

    @cached_property
    def _files(self) -> Files:
        place = self.place(self.settings.address)
        if isinstance(place, Path):
            return _InFolder(place)
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
        """See `Target.locate`: samples below `data/`; files of a model where the hub has them."""
        if item.sample is not None:
            return f"{DATA}/{item.key}"
        return item.key.rpartition("/")[2] if self._takes == "files" else item.key

    def put(self, item: Item, data: bytes, record: Record) -> str:
        """See `Target.put`."""
        [found] = self.put_all([Delivery(item, data, record)])
        if isinstance(found, GenmillError):
            raise found
        return found

    def put_all(self, deliveries: Sequence[Delivery]) -> Sequence[str | GenmillError]:
        """See `Target.put_all`: one commit for all."""
        unfit = {each.item.key for each in deliveries if not self._fits(each.item)}
        files: dict[str, bytes] = {}
        for each in deliveries:
            if each.item.key not in unfit:
                place = self.locate(each.item)
                files |= {_record_of(place): record_json(each.record), place: each.data}
        if files:
            self._files.write(files, why=f"Publish {len(files) // 2} items")
        return [
            ItemRefused(f"{self} takes {self._takes} only")
            if each.item.key in unfit
            else self.locate(each.item)
            for each in deliveries
        ]

    def fetch(self, remote_id: str) -> bytes:
        """See `Target.fetch`."""
        return self._files.read(remote_id)

    def list(self) -> Iterator[str]:
        """See `Target.list`."""
        yield from self._items()

    def take_down(self, remote_id: str) -> None:
        """See `Target.take_down`."""
        there = set(self._files.names())
        gone = [name for name in (remote_id, _record_of(remote_id)) if name in there]
        if gone:
            self._files.remove(gone, why=f"Take down {remote_id}")

    def finish(self) -> None:
        """See `Target.finish`: the metadata and the card follow from the records."""
        for _ in range(ROUNDS):
            items = self._items()
            records = {place: self._record(place) for place in items}
            samples = {place: each for place, each in records.items() if place.startswith(DATA)}
            pages = {CARD: card(records, samples, self.settings.license).encode()}
            if samples:
                pages[METADATA] = metadata(samples).encode()
            self._files.write(pages, why="Describe what is published")
            if self._items() == items:
                return

    def _fits(self, item: Item) -> bool:
        return self._takes in {"both", "files" if item.sample is None else "samples"}

    def _items(self) -> Sequence[str]:
        names = set(self._files.names())
        return sorted(name for name in names if _record_of(name) in names)

    def _record(self, place: str) -> Record:
        try:
            found: Record = json.loads(self._files.read(_record_of(place)))
        except (NotFound, ValueError):  # taken down meanwhile
            return {}
        return found


def _record_of(place: str) -> str:
    return f"{RECORDS}/{place}.json"


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
