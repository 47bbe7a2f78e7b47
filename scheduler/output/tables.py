"""Tables and fields as lines of text: whole in a pipe, fitted to a terminal.

Where a terminal is too narrow for a table, each row is a block of lines instead, so that no id is
ever broken.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import zip_longest
from typing import Any

import click

from scheduler.output.layout import ELLIPSIS, cell_len, cut, fit, longest_word, wrap
from scheduler.output.values import PREFIX, shorten_ids, show, to_age

Row = Mapping[str, Any]

GAP = 2  # cells between columns
NARROWEST = 8  # cells of a column that may be cut
NARROWEST_PROSE = 16  # and of one whose text continues below
LONGEST_WORD = 40  # cells; no shorter word is broken, such as an id
MIN_ROOM = 24  # cells beside a name; a longer value with less stands below it

# Columns that are never cut: people copy their values, or compare them down the column.
_WHOLE = {
    *("id", "job", "name", "kind", "status", "size", "version", "sha256"),
    *("created_at", "next_due", "check", "ok", "setting"),
}
_PREFIXES = {"sha256": 12}  # characters shown
_ID = re.compile(rf"\b[0-9a-f-]{{{PREFIX}}}\b")  # as it is shown
_STATES = {"status", "old", "new", "outcome", "ok"}  # columns whose words have colours
_COLOURS = {
    **dict.fromkeys(("succeeded", "promoted", "fired", "triggered", "yes"), "green"),
    **dict.fromkeys(("running", "finalizing"), "cyan"),
    **dict.fromkeys(("queued", "waiting", "skipped", "cancelled", "rolled back"), "yellow"),
    **dict.fromkeys(("failed", "refused", "no"), "red"),
}


@dataclass(frozen=True)
class Page:
    """Where text goes: a terminal of `width` cells, or a pipe, which takes lines of any length.

    `full`: long values continue below instead of being cut, and ids and times are whole.
    """

    width: int | None = None
    colours: bool = False
    full: bool = False


def table_lines(
    rows: Sequence[Row], columns: Sequence[str], page: Page, *, prose: bool = False
) -> Iterator[str]:
    """A line of headings and the rows. With `prose`, long values continue below even if not full.

    In a pipe, headings are the names of the columns and values are complete.
    """
    heads = [_head(column, page) for column in columns]
    cells = [[_cell(column, row.get(column), page) for column in columns] for row in rows]
    by_column = list(zip(heads, *cells, strict=True))
    widths = [max(map(cell_len, texts)) for texts in by_column]
    whole = page.full or prose
    if page.width is not None:
        each = zip(columns, widths, by_column, strict=True)
        least = [_least(name, width, texts, whole=whole) for name, width, texts in each]
        fitted = fit(widths, least, page.width - GAP * (len(columns) - 1))
        if fitted is None:
            yield from _blocks(cells, columns, page, whole=whole)
            return
        widths = fitted
    padded = (_pad(head, width) for head, width in zip(heads, widths, strict=True))
    line = (" " * GAP).join(padded).rstrip()
    yield click.style(line, bold=True) if page.colours else line
    for row in cells:
        yield from _row_lines(row, columns, widths, page, whole=whole)


def field_lines(fields: Sequence[tuple[str, str]], page: Page) -> Iterator[str]:
    """A line `name  value` for each field that has a value; more where a terminal is too narrow."""
    shown = [(name, text) for name, text in fields if text]
    label = max((cell_len(name) for name, _ in shown), default=0)
    for name, text in shown:
        yield from _field_lines(name, text, label, page)


def text_lines(text: str, page: Page) -> Iterator[str]:
    """The lines of a text; on a terminal, long ones continue below, at the same indentation."""
    for line in text.removesuffix("\n").split("\n"):
        if page.width is None or cell_len(line) <= page.width:
            yield line
            continue
        indent = line[: len(line) - len(line.lstrip())][: page.width // 2]
        first, *more = wrap(line, page.width - len(indent) - GAP)
        yield indent + first
        yield from (f"{indent}{' ' * GAP}{each}" for each in more)


def _head(column: str, page: Page) -> str:
    shown = column if page.width is None else column.removesuffix("_at").replace("_", " ")
    return shown.upper()


def _cell(column: str, value: Any, page: Page) -> str:
    """On a terminal, ids and digests are prefixes and times ages, unless values are full."""
    if page.width is None or page.full:
        return show(value)
    if isinstance(value, datetime):
        return to_age(value)
    return shorten_ids(show(value))[: _PREFIXES.get(column)]


def _least(column: str, width: int, texts: Sequence[str], *, whole: bool) -> int:
    """How narrow a column may become: `texts` are its heading and its values."""
    if column in _WHOLE:
        return width
    if whole:
        words = min(LONGEST_WORD, max(map(longest_word, texts)))
        return min(width, max(cell_len(texts[0]), NARROWEST_PROSE, words))
    ids = PREFIX + 1 if any(map(_ID.match, texts)) else 0  # and an ellipsis
    return min(width, max(cell_len(texts[0]), NARROWEST, ids))


def _row_lines(
    row: Sequence[str], columns: Sequence[str], widths: Sequence[int], page: Page, *, whole: bool
) -> Iterator[str]:
    parts = [_parts(*each, page, whole=whole) for each in zip(row, widths, strict=True)]
    for line in zip_longest(*parts, fillvalue=""):
        cells = zip(columns, line, widths, strict=True)
        padded = (
            _painted(column, text, page) + " " * (width - cell_len(text))
            for column, text, width in cells
        )
        yield (" " * GAP).join(padded).rstrip()


def _parts(text: str, width: int, page: Page, *, whole: bool) -> list[str]:
    if page.width is None:
        return [text]
    return wrap(text, width) if whole else [_cut(text, width)]


def _cut(text: str, width: int) -> str:
    """`text` in `width` cells, with an ellipsis if it is cut, and no part of an id before it."""
    short = cut(text, width)
    if short == text:
        return text
    kept = len(short) - 1
    broken = (each.start() for each in _ID.finditer(text) if each.start() < kept < each.end())
    return text[: next(broken, kept)].rstrip() + ELLIPSIS


def _blocks(
    cells: Sequence[Sequence[str]], columns: Sequence[str], page: Page, *, whole: bool
) -> Iterator[str]:
    """Each row as lines `column  value`, with an empty line between rows."""
    labels = [_head(column, page) for column in columns]
    room = (page.width or 0) - max(map(cell_len, labels)) - GAP
    for number, row in enumerate(cells):
        if number:
            yield ""
        kept = (
            text if whole or column in _WHOLE else _cut(text, room)
            for column, text in zip(columns, row, strict=True)
        )
        yield from field_lines(list(zip(labels, kept, strict=True)), page)


def _field_lines(name: str, text: str, label: int, page: Page) -> Iterator[str]:
    room = cell_len(text) if page.width is None else page.width - label - GAP
    if cell_len(text) <= room:
        yield f"{_pad(name, label)}{' ' * GAP}{_painted(name, text, page)}"
    elif room >= MIN_ROOM and longest_word(text) <= room:
        first, *more = wrap(text, room)
        yield f"{_pad(name, label)}{' ' * GAP}{first}"
        yield from (f"{' ' * (label + GAP)}{each}" for each in more)
    else:
        yield name
        yield from (f"{' ' * GAP}{each}" for each in wrap(text, (page.width or 0) - GAP))


def _painted(column: str, text: str, page: Page) -> str:
    colour = _COLOURS.get(text) if page.colours and column.lower() in _STATES else None
    return click.style(text, fg=colour) if colour else text


def _pad(text: str, width: int) -> str:
    return text + " " * max(0, width - cell_len(text))
