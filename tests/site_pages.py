"""Reading a site as its visitors do: pages, links, feed; and samples to put there."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from worker.data.dataset import Shape
from worker.media import find_medium
from worker.media.samples.containers import Output, SampleRecord
from worker.media.samples.record import Origin
from worker.publishing.base import Item
from worker.store.folder import FolderStore
from worker.store.s3 import S3Store

ADDRESSES = ("url", "contentUrl", "thumbnailUrl")  # in the data for programs
JOB = "01999999-0000-7000-8000-000000000001"
OUTPUTS: dict[str, Output] = {
    "image": np.linspace(0, 255, 28 * 28).astype(np.uint8).reshape(28, 28, 1),
    "audio": np.sin(np.linspace(0, 900, 4000)).astype(np.float32),
    "text": "The quick brown fox.",
    "music": "t100 60:4 62:2 64+67:8 r:2 72:4",
}


def sample(
    index: int = 0,
    what: str = "image",
    *,
    label: str | None = None,
    prompt: str | None = None,
    model: str = "digits:3",
    job: str = JOB,
) -> tuple[Item, bytes, dict[str, Any]]:
    """A sample of a job, as a target is given it."""
    medium = find_medium({"music": "text"}.get(what, what))
    origin = Origin("gan", model, "ab" * 32, 7, {"micro_batch": 1, "top_k": 5}, 1, torch="0")
    made = SampleRecord(index, OUTPUTS[what], origin.shared(label=label, prompt=prompt))
    [data] = medium.encode([made], Shape(medium.name, sample_rate=8000))
    key = f"{job}/{index:09d}{medium.suffix}"
    item = Item(key, JOB, "cd" * 32, medium.sample_type, job=job, sample=index, model=model)
    return item, data, medium.read_record(data)


@dataclass
class Page(HTMLParser):
    """A page as it is read: tags with their attributes, the words, data for programs."""

    text: str
    tags: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    words: str = ""
    linked_data: Any = None

    def __post_init__(self) -> None:
        HTMLParser.__init__(self)
        self.feed(self.text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        if self.tags and self.tags[-1][0] == "script" and data.strip():
            self.linked_data = json.loads(data)
        else:
            self.words += data

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    def links(self) -> Iterator[str]:
        """What the page leads to or loads, but for places on it, and what it tells programs."""
        data = self.linked_data or {}
        for each in (data, *data.get("hasPart", ())):
            yield from (each[name] for name in ADDRESSES if name in each)
        for _, attributes in self.tags:
            for name in ("href", "src"):
                if (link := attributes.get(name)) and not link.startswith("#"):
                    yield link


def read_site(place: FolderStore | S3Store) -> dict[str, bytes]:
    """Every file of a site by its name."""
    folders = ["entries", "files", "items", "lists", "pictures", "records", "sounds", "trust"]
    names = [name for folder in folders for name in place.keys(folder)]
    names += [each for each in ("index.html", "feed.xml", "style.css") if place.has(each)]
    found = {}
    for name in names:
        with place.open(name) as file:
            found[name] = file.read()
    return found


def pages_of(files: dict[str, bytes]) -> dict[str, Page]:
    return {name: Page(data.decode()) for name, data in files.items() if name.endswith(".html")}


def resolve(page: str, link: str) -> str:
    """The file that a relative link on a page leads to."""
    assert not re.match(r"[a-z]+:|/", link), f"{page} leads out: {link}"
    parts: list[str] = []
    for part in (PurePosixPath(page).parent / link).parts:
        assert parts or part != "..", f"{page} leads out: {link}"
        parts = parts[:-1] if part == ".." else [*parts, part]
    return "/".join(parts)


def listed(pages: dict[str, Page]) -> set[str]:
    """The items that some list names."""
    return {
        target
        for name, page in pages.items()
        if name == "index.html" or name.startswith("lists/")
        for link in page.links()
        if (target := resolve(name, link)).startswith("items/")
    }


def check_links(files: dict[str, bytes], *, gone: str = "no key") -> None:
    """Whoever begins at the front page meets no dead link.

    The files, not the page, of an item that is being taken down may be `gone` already.
    """
    seen, left = set(), ["index.html"]
    while left:
        name = left.pop()
        seen.add(name)
        for link in Page(files[name].decode()).links():
            target = resolve(name, link)
            if gone in target and not target.endswith(".html"):
                continue
            assert target in files, f"{name} leads to {link}, which is not there"
            if target.endswith(".html") and target not in seen and target not in left:
                left.append(target)


def folder(path: Path) -> FolderStore:
    path.mkdir(exist_ok=True)
    return FolderStore(path)
