"""What pages say to programs, as JSON-LD of schema.org."""

from collections.abc import Sequence
from typing import Any

from worker.media import find_medium
from worker.media.samples.record import AI_GENERATED
from worker.publishing.pages.entry import Entry, Item

CONTEXT = "https://schema.org"


def item_data(item: Item, url: str) -> dict[str, Any]:
    """An item. Addresses begin with the site's `url`; without one, they are seen from its page."""
    entry, root = item.entry(), url or "../"
    model = {"@type": "SoftwareApplication", "name": entry.model, "applicationCategory": "AI model"}
    known: dict[str, Any] = {
        "@context": CONTEXT,
        "@type": item.medium.schema_type,
        "identifier": item.key,
        "name": entry.name,
        "digitalSourceType": AI_GENERATED,
        "url": f"{root}{entry.page}",
        "contentUrl": f"{root}{entry.file}",
        "thumbnailUrl": f"{root}{entry.picture}" if entry.picture else "",
        "encodingFormat": entry.media_type,
        "contentSize": str(entry.size_bytes),
        "sha256": item.sha256,
        "datePublished": entry.published_at,
        "license": item.licence,
        "keywords": entry.label,
        "text": item.exhibit.text,
        "creator": model,
        "isBasedOn": {"@type": "Dataset", "name": item.dataset} if item.dataset else "",
    }
    return {name: value for name, value in known.items() if value != ""}


def collection(title: str, items: Sequence[Entry], root: str) -> dict[str, Any]:
    """A page of items, whose addresses begin with `root`."""
    return {
        "@context": CONTEXT,
        "@type": "CollectionPage",
        "name": title,
        "hasPart": [
            {
                "@type": find_medium(each.medium).schema_type,
                "name": each.name,
                "url": f"{root}{each.page}",
                "digitalSourceType": AI_GENERATED,
            }
            for each in items
        ],
    }
