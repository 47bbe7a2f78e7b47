"""Fitting text into the columns of a terminal: widths, cuts and line breaks.

Widths are in cells: an East Asian wide character takes two (Unicode TR 11), a combining mark none.
"""

import unicodedata
from collections.abc import Sequence
from functools import cache

ELLIPSIS = "\N{HORIZONTAL ELLIPSIS}"
_NO_CELL = {"Mn", "Me", "Cf"}  # categories: marks on another character, and format characters
_AS_EMOJI = "\N{VARIATION SELECTOR-16}"  # makes the character before it wide


def cell_len(text: str) -> int:
    """The cells that a text takes."""
    return len(text) if text.isascii() else sum(map(_cells, text))


@cache
def _cells(mark: str) -> int:
    if unicodedata.category(mark) in _NO_CELL:
        return int(mark == _AS_EMOJI)
    return 2 if unicodedata.east_asian_width(mark) in "WF" else 1


def fit(natural: Sequence[int], least: Sequence[int], width: int) -> list[int] | None:
    """Widths of columns that take `width` cells at most; the widest shrink first.

    None if even the `least` ones take more.
    """
    widths = [min(each, max(width, low)) for each, low in zip(natural, least, strict=True)]
    while sum(widths) > width:
        shrinkable = [place for place, each in enumerate(widths) if each > least[place]]
        if not shrinkable:
            return None
        widths[max(shrinkable, key=widths.__getitem__)] -= 1
    return widths


def cut(text: str, width: int) -> str:
    """`text`, with an ellipsis in place of what is beyond `width` cells."""
    if cell_len(text) <= width:
        return text
    return _chop(text, width - 1)[0].rstrip() + ELLIPSIS


def wrap(text: str, width: int) -> list[str]:
    """`text` in lines of at most `width` cells.

    They are broken at spaces, and inside a word only if it is longer than a line.
    """
    lines, line = [], ""
    for word in text.split():
        longer = f"{line} {word}" if line else word
        if cell_len(longer) <= width:
            line = longer
            continue
        if line:
            lines.append(line)
        *whole, line = _chop(word, width)
        lines += whole
    return [*lines, line]


def _chop(text: str, width: int) -> list[str]:
    """`text` in pieces of at most `width` cells, but at least a character."""
    pieces, start, taken = [], 0, 0
    for place, mark in enumerate(text):
        cells = _cells(mark)
        if taken + cells > width and place > start:
            pieces.append(text[start:place])
            start, taken = place, 0
        taken += cells
    return [*pieces, text[start:]]


def longest_word(text: str) -> int:
    """The cells of the longest word."""
    return max(map(cell_len, text.split()), default=0)
