"""The Atom feed of a site (RFC 4287): its newest items."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from html import escape
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from feedgen.entry import FeedEntry
from feedgen.ext.base import BaseEntryExtension
from feedgen.feed import FeedGenerator
from feedgen.util import xml_elem

from worker.code_version import code_version
from worker.media.samples.record import AI_GENERATED
from worker.publishing.pages.entry import Entry
from worker.publishing.pages.render import FEED, File, Look
from worker.publishing.pages.selections import FRONT

NEWEST = 50  # items in the feed
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class _Links(BaseEntryExtension):  # type: ignore[misc] # feedgen has no types
    """The links of an entry: feedgen 1.0 itself leaves out their relations and types."""

    def __init__(self) -> None:
        self.links: list[dict[str, str]] = []

    def extend_atom(self, entry: Any) -> Any:
        """Add them to the entry's element."""
        for link in self.links:
            xml_elem("link", entry, **link)
        return entry


def write_feed(look: Look, newest: Sequence[Entry]) -> File:
    """The feed of some items, the newest first. It was updated when the newest was published."""
    feed = FeedGenerator()
    feed.id(_id(f"gallery {look.url or look.title}"))
    feed.title(_xml(look.title))
    feed.subtitle(_xml(look.about) or "Made by AI")
    feed.author(name=_xml(look.author))
    feed.generator("Genmill", version=code_version())
    feed.link(href=f"{look.url}{FEED}", rel="self", type="application/atom+xml")
    feed.link(href=f"{look.url}{FRONT}", rel="alternate", type="text/html")
    feed.updated(_time(newest[0]) if newest else datetime.now(UTC))
    for entry in newest[:NEWEST]:
        _fill(feed.add_entry(order="append"), entry, look)
    return File(FEED, feed.atom_str(pretty=True))


def _fill(item: FeedEntry, entry: Entry, look: Look) -> None:
    item.id(_id(entry.key))
    item.title(_xml(entry.name))
    item.published(_time(entry))
    item.updated(_time(entry))
    item.register_extension("own_links", _Links, rss=False)
    page = {"href": f"{look.url}{entry.page}", "rel": "alternate", "type": "text/html"}
    file = {"href": f"{look.url}{entry.file}", "rel": "enclosure", "type": entry.media_type}
    item.own_links.links = [page, file | {"length": str(entry.size_bytes)}]
    item.category({"term": AI_GENERATED, "label": "AI-generated"})
    item.category([{"term": _xml(each)} for each in (entry.label, entry.model) if each])
    if entry.licence:
        item.rights(_xml(entry.licence))
    item.content(_xml(_content(entry, look)), type="html")


def _content(entry: Entry, look: Look) -> str:
    """What a reader of feeds shows."""
    parts = [f"<p>AI-generated: sample {entry.index} of {escape(entry.model)}.</p>"]
    if entry.picture:
        source, alt = escape(f"{look.url}{entry.picture}"), escape(entry.alt)
        parts.append(f'<p><img src="{source}" alt="{alt}" width="{max(entry.width, 128)}"></p>')
    if entry.text:
        parts.append(f"<blockquote>{escape(entry.text)}</blockquote>")
    return "".join(parts)


def _time(entry: Entry) -> datetime:
    return datetime.fromisoformat(entry.published_at)


def _id(name: str) -> str:
    return f"urn:uuid:{uuid5(NAMESPACE_URL, name)}"


def _xml(text: str) -> str:
    """Text without what no XML can hold."""
    return _NO_XML.sub("\ufffd", text)
