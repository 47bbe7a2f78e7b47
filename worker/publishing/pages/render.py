"""Pages from templates. All that is shown of an item is escaped; no page runs a script."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from worker.code_version import code_version
from worker.media import all_media
from worker.publishing.pages.entry import Entry, Item
from worker.publishing.pages.linked_data import collection, item_data
from worker.publishing.pages.selections import NOUNS, Choices, Lists, Selection, all_page, pages

TEMPLATES = Path(__file__).parent / "templates"
STYLE, FEED = "style.css", "feed.xml"
GONE = b"<h1>Taken down</h1>"  # on the page of such an item, and on no other
TYPES = {medium.suffix: medium.sample_type for medium in all_media()} | {
    ".css": "text/css",
    ".html": "text/html; charset=utf-8",
    ".xml": "application/atom+xml",
}
AROUND = 2  # page numbers that are shown on each side of a page's own


@dataclass(frozen=True)
class Look:
    """What a site is called, and where it will be reached: `url` is empty if nobody knows."""

    title: str = "Gallery"
    url: str = ""  # of the folder of the front page, with its slash at the end
    author: str = "Genmill"
    about: str = ""


@dataclass(frozen=True)
class File:
    """A file of a site: its name in the place, and its content."""

    name: str
    data: bytes

    @property
    def media_type(self) -> str:
        """What browsers are told."""
        return TYPES[Path(self.name).suffix]


class Renderer:
    """Makes the pages of one site."""

    def __init__(self, look: Look) -> None:
        self.look = look

    def style(self) -> File:
        """The style sheet of all pages."""
        return File(STYLE, (TEMPLATES / STYLE).read_bytes())

    def item(self, item: Item) -> File:
        """The page of an item."""
        entry = item.entry()
        label = Selection(label=entry.label).page() if entry.label else ""
        model = Selection(model=entry.model).page() if entry.model else ""
        return self._page(
            "item.html",
            entry.page,
            item=item,
            entry=entry,
            text=item.exhibit.text,
            facts=list(_facts(item)),
            settings=item.record.get("sampling") or {},
            pages={"label": label, "model": model},
            linked_data=item_data(item, self.look.url),
        )

    def gone(self, page: str) -> File:
        """What stands in place of an item that has been taken down, until no list names it."""
        return self._page("gone.html", page)

    def lists(self, lists: Lists, wanted: Callable[[str], bool]) -> Iterator[File]:
        """The pages of all selections whose names are wanted, the front page last."""
        for noun in NOUNS:
            if wanted(all_page(noun)):
                every = lists.every(noun)
                yield self._page("choices.html", all_page(noun), noun=noun, choices=every)
        for selection, items in reversed(lists.of.items()):  # everything is the first
            choices = list(lists.choices(selection))
            parts = list(pages(items))
            for number in range(len(parts), 0, -1):
                if wanted(selection.page(number)):
                    yield self._list(selection, choices, parts, number)

    def _list(
        self,
        selection: Selection,
        choices: Sequence[Choices],
        parts: Sequence[Sequence[Entry]],
        number: int,
    ) -> File:
        items, page = parts[number - 1], selection.page(number)
        return self._page(
            "list.html",
            page,
            heading=" · ".join(each for each in vars(selection).values() if each),
            choices=choices,
            items=items,
            total=sum(map(len, parts)),
            number=number,
            last=len(parts),
            numbers=_numbers(number, len(parts)),
            page_of=selection.page,
            linked_data=collection(self.look.title, items, self.look.url or _root(page)),
        )

    def _page(self, template: str, name: str, **values: Any) -> File:
        made = self._environment.get_template(template)
        text = made.render(root=_root(name), name=name, **values)
        return File(name, text.encode())

    @cached_property
    def _environment(self) -> Environment:
        made = Environment(
            loader=FileSystemLoader(TEMPLATES),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        made.globals |= {"look": self.look, "version": code_version(), "feed": FEED}
        made.filters["size"] = _size
        return made


def _root(page: str) -> str:
    """The way from a page to the folder of the site."""
    return "../" * page.count("/")


def _facts(item: Item) -> Iterator[tuple[str, str]]:
    """What is known of an item's origin, for people."""
    record = item.record
    known = {
        "Made by": f"the model {record.get('model')}",
        "Family": record.get("family"),
        "Trained on": item.dataset,
        "Weights": record.get("weights_sha256"),
        "Job": item.job,
        "Index": record.get("index"),
        "Seed": record.get("seed"),
        "Label": record.get("label"),
        "Made from": record.get("dataset"),
        **item.statement,
        "Licence": item.licence,
        "Published": item.published_at.strftime("%Y-%m-%d %H:%M UTC"),
        "SHA-256": item.sha256,
        "Marks": item.marks,
        "Software": f"genmill {record.get('genmill')}",
    }
    for name, value in known.items():
        if value is not None and value != "":
            yield name, str(value)


def _numbers(number: int, last: int) -> list[int]:
    """The numbers of the pages to show: first, last, and those around this one; 0: a gap."""
    near = {1, last, *range(max(1, number - AROUND), min(last, number + AROUND) + 1)}
    found: list[int] = []
    for each in sorted(near):
        if found and each > found[-1] + 1:
            found.append(0)
        found.append(each)
    return found


def _size(count: int) -> str:
    """A number of bytes for people."""
    for unit, least in (("MB", 1_000_000), ("kB", 1_000)):
        if count >= least:
            return f"{count / least:.1f} {unit}"
    return f"{count} bytes"
