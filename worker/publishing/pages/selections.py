"""Selections: the items of a label, of a model, or of both, page by page, each under a fixed name.

A name is made of a label's or model's own letters where they are plain, and else of those that are
and a digest, so that any text can be a label and no two share a page.
"""

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from worker.publishing.pages.entry import Entry

FRONT = "index.html"
PAGE_SIZE = 60
MAX_PAIRS = 1000  # of a label and a model; with more, there are no pages of both
CHIPS = 24  # choices that a page shows; another page lists all
NOUNS = ("label", "model")

_PLAIN = re.compile(r"[a-z0-9]{1,40}")
_OTHERS = re.compile(r"[^a-z0-9]+")


@dataclass(frozen=True)
class Selection:
    """The items of a label and a model; None: of any."""

    label: str | None = None
    model: str | None = None

    def page(self, number: int = 1) -> str:
        """The name of a page of it, counted from 1."""
        parts = [f"{noun}.{slug(name)}" for noun, name in vars(self).items() if name is not None]
        if not parts and number == 1:
            return FRONT
        return f"lists/{'.'.join(parts or ['all'])}{f'.{number}' if number > 1 else ''}.html"

    def narrowed(self, noun: str, name: str | None) -> "Selection":
        """This selection with another label or model."""
        return replace(self, **{noun: name})


EVERYTHING = Selection()


@dataclass(frozen=True)
class Choice:
    """A label or a model to choose: how many items that leaves, and where they are listed."""

    name: str
    count: int
    page: str
    is_chosen: bool = False


@dataclass(frozen=True)
class Choices:
    """The choices of one noun on a page; `all_page` lists all of them, if there are more."""

    noun: str
    shown: Sequence[Choice]
    all_page: str = ""


class Lists:
    """The selections of some items that are not empty, each with its items, the newest first."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        newest = sorted(entries, key=lambda each: (each.published_at, each.key), reverse=True)
        pairs = {(each.label, each.model) for each in newest}
        self._has_pairs = len(pairs) <= MAX_PAIRS
        self.of = defaultdict[Selection, list[Entry]](list, {EVERYTHING: newest})
        for entry in newest:
            for selection in self._of_entry(entry):
                self.of[selection].append(entry)
        self._by_use = {noun: self._names(noun) for noun in NOUNS}  # the most frequent first

    def choices(self, selection: Selection) -> Iterator[Choices]:
        """What can be chosen on a page of a selection; nothing of a noun that has one name."""
        for noun, names in self._by_use.items():
            if len(names) > 1:
                yield self._choices(selection, noun, names)

    def every(self, noun: str) -> list[Choice]:
        """Every label or model, in order."""
        names = self._by_use[noun]
        return [self._choice(EVERYTHING, noun, name) for name in in_order(names)]

    def _choices(self, selection: Selection, noun: str, names: Sequence[str]) -> Choices:
        chosen = getattr(selection, noun)
        shown = list(names[:CHIPS])
        if chosen is not None and chosen not in shown:
            shown.append(chosen)
        whole = selection.narrowed(noun, None)
        first = Choice("all", len(self.of[whole]), whole.page(), chosen is None)
        found = [first, *(self._choice(selection, noun, name) for name in in_order(shown))]
        return Choices(noun, found, all_page(noun) if len(names) > len(shown) else "")

    def _choice(self, selection: Selection, noun: str, name: str) -> Choice:
        narrowed = selection.narrowed(noun, name)
        if not self._has_pairs:
            narrowed = EVERYTHING.narrowed(noun, name)
        is_chosen = getattr(selection, noun) == name
        return Choice(name, len(self.of.get(narrowed, ())), narrowed.page(), is_chosen)

    def _names(self, noun: str) -> list[str]:
        alone = {
            name: len(items)
            for selection, items in self.of.items()
            if (name := getattr(selection, noun)) is not None
            and selection == EVERYTHING.narrowed(noun, name)
        }
        return sorted(alone, key=lambda name: (-alone[name], name))

    def _of_entry(self, entry: Entry) -> Iterator[Selection]:
        if entry.label:
            yield Selection(label=entry.label)
        if entry.model:
            yield Selection(model=entry.model)
        if entry.label and entry.model and self._has_pairs:
            yield Selection(entry.label, entry.model)


def all_page(noun: str) -> str:
    """The name of the page that lists every label or model."""
    return f"lists/{noun}s.html"


def pages(items: Sequence[Entry], size: int = PAGE_SIZE) -> Iterator[Sequence[Entry]]:
    """Items page by page; one empty page of none."""
    rest = iter(items)
    yield list(islice(rest, size))
    while page := list(islice(rest, size)):
        yield page


def in_order(names: Sequence[str]) -> list[str]:
    """Names in order, numbers by their value and before other names."""
    return sorted(names, key=lambda name: (not name.isdigit(), name.isdigit() and len(name), name))


def slug(name: str) -> str:
    """A part of a file's name that stands for `name` and no other."""
    if _PLAIN.fullmatch(name):
        return name
    plain = _OTHERS.sub("-", name.lower()).strip("-")[:40].strip("-")
    digest = hashlib.sha256(name.encode()).hexdigest()[:10]
    return f"{plain or 'x'}-{digest}"
