"""Fitting text into the columns of a terminal: widths, cuts and line breaks.

Widths are in cells: an East Asian wide character takes two, a combining mark none.
"""

from collections.abc import Sequence

from rich.cells import cell_len, chop_cells, split_text

ELLIPSIS = "\N{HORIZONTAL ELLIPSIS}"


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
    return split_text(text, width - 1)[0].rstrip() + ELLIPSIS


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
        *whole, line = chop_cells(word, width) or [word]  # marks alone take no cell
        lines += whole
    return [*lines, line]


def longest_word(text: str) -> int:
    """The cells of the longest word."""
    return max(map(cell_len, text.split()), default=0)
