"""An item as a site takes it, and what the site keeps of it for lists and feed."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from functools import cached_property
from textwrap import shorten
from typing import Any

from db.errors import BadInput
from worker.media import all_media
from worker.media.base import Medium
from worker.media.samples.exhibit import Exhibit
from worker.publishing.base import record_json

EXCERPT = 280  # characters of a text on a card
NAME = 80  # characters of a name


@dataclass(frozen=True)
class Item:
    """A sample to show, with its record and what is known of its origin.

    `key` names it for good, in the place too: letters, digits and hyphens.
    """

    key: str
    job: str
    data: bytes
    record: Mapping[str, Any]
    medium: Medium
    sha256: str
    published_at: datetime
    marks: str = ""  # the profile
    licence: str = ""
    licence_name: str = ""  # of a licence that is an address
    dataset: str = ""
    signed_by: str = ""  # the id of the signing key
    statement: Mapping[str, str] = field(default_factory=dict)  # Copyright, Creator

    @cached_property
    def exhibit(self) -> Exhibit:
        """What the page shows of it. Raises `BadInput` if it is damaged."""
        return self.medium.exhibit(self.data)

    @property
    def files(self) -> Mapping[str, bytes]:
        """The files beside its page, by their names in the place."""
        found = {
            self.file: self.data,
            f"records/{self.key}.json": record_json(self.record),
            self.picture: self.exhibit.picture,
            self.sound: self.exhibit.sound,
        }
        return {name: data for name, data in found.items() if name and data}

    @property
    def file(self) -> str:
        """The name of the sample's own file."""
        return f"files/{self.key}{self.medium.suffix}"

    @property
    def bundle(self) -> str:
        """The name of the trust bundle by which strangers verify it; empty if it is not signed."""
        return bundle_of(self.signed_by) if self.signed_by else ""

    @property
    def picture(self) -> str:
        """The name of the file of its picture, which may be its own; empty if it has none."""
        return self._beside(self.exhibit.picture, f"pictures/{self.key}.png")

    @property
    def sound(self) -> str:
        """The name of the file that plays it, which may be its own; empty if it has none."""
        return self._beside(self.exhibit.sound, f"sounds/{self.key}.wav")

    def _beside(self, data: bytes, name: str) -> str:
        if not data:
            return ""
        return self.file if data == self.data else name

    @property
    def prompt(self) -> str:
        """Its prompt as text; of a conversation, a line for each message."""
        prompt = self.record.get("prompt") or ""
        if isinstance(prompt, str):
            return prompt
        return "\n".join(f"{each.get('role')}: {each.get('content')}" for each in prompt)

    @property
    def name(self) -> str:
        """What it is called: its label, the beginning of its prompt, or else its number."""
        label = self.record.get("label")
        name = label if label is not None else shorten(self.prompt, NAME, placeholder=" …")
        return str(name) or f"Sample {self.record.get('index')}"

    def entry(self) -> "Entry":
        """What the site keeps of it."""
        width, height = self.exhibit.size
        label = self.record.get("label")
        return Entry(
            key=self.key,
            published_at=self.published_at.isoformat(timespec="seconds"),
            name=self.name,
            label="" if label is None else str(label),
            model=str(self.record.get("model") or ""),
            index=int(self.record.get("index") or 0),
            medium=self.medium.name,
            file=self.file,
            media_type=self.medium.sample_type,
            size_bytes=len(self.data),
            licence=self.licence,
            picture=self.picture,
            width=width,
            height=height,
            is_sketch=self.exhibit.is_sketch,
            sound=self.sound,
            text=_beginning(self.exhibit.text.strip()),
        )


@dataclass(frozen=True, slots=True)
class Entry:
    """What lists and feed show of an item. That its file is there makes the item listed."""

    key: str
    published_at: str  # ISO 8601, UTC
    name: str
    label: str
    model: str
    index: int
    medium: str
    file: str
    media_type: str
    size_bytes: int
    licence: str
    picture: str
    width: int
    height: int
    is_sketch: bool
    sound: str
    text: str

    @property
    def page(self) -> str:
        """The name of the item's page."""
        return page_of(self.key)

    @property
    def alt(self) -> str:
        """Its picture in words."""
        what = f"{self.medium} sample {self.index} of {self.model} (AI-generated)"
        return f"{self.name}: {'drawing of ' if self.is_sketch else ''}{what}"

    def to_json(self) -> dict[str, Any]:
        """Plain data, as `parse_entry` takes it."""
        return {each.name: getattr(self, each.name) for each in fields(self)}


def page_of(key: str) -> str:
    """The name of an item's page."""
    return f"items/{key}.html"


def entry_of(key: str) -> str:
    """The name of the file of an item's entry."""
    return f"entries/{key}.json"


def bundle_of(key_id: str) -> str:
    """The name of the trust bundle of a signing key."""
    return f"trust/{key_id}.json"


def key_of(name: str) -> str:
    """The key of the item whose page or entry this is, or of a trust bundle."""
    return name.partition("/")[2].rpartition(".")[0]


def files_of(key: str) -> list[str]:
    """The names of all files that an item can have beside its page and entry."""
    own = [f"files/{key}{medium.suffix}" for medium in all_media()]
    return [
        *own,
        f"pictures/{key}.png",
        f"sounds/{key}.wav",
        f"records/{key}.json",
    ]


def parse_entry(data: Any) -> Entry:
    """The inverse of `Entry.to_json`; `BadInput` if it is not one."""
    try:
        entry = Entry(**data)
        for each in fields(Entry):
            if type(getattr(entry, each.name)) is not each.type:
                raise TypeError(f"{each.name} is of another type")
        if datetime.fromisoformat(entry.published_at).tzinfo is None:
            raise ValueError("published_at names no time zone")
    except (TypeError, ValueError) as error:
        raise BadInput(f"not the entry of an item: {error}") from None
    return entry


def _beginning(text: str) -> str:
    """The first characters of a text, with its lines."""
    return text if len(text) <= EXCERPT else f"{text[:EXCERPT].rstrip()} …"
