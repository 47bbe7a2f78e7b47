import pytest
from rich.cells import cell_len

from scheduler.output.layout import cut, fit, wrap


@pytest.mark.parametrize(
    ("natural", "least", "width", "found"),
    [
        ((10, 10), (5, 5), 30, [10, 10]),
        ((10, 30), (5, 5), 30, [10, 20]),
        ((18, 90), (18, 8), 40, [18, 22]),
        ((20, 20, 5), (8, 8, 5), 25, [10, 10, 5]),
        ((18, 90), (18, 8), 20, None),
    ],
)
def test_the_widest_columns_shrink_first(natural, least, width, found):
    assert fit(natural, least, width) == found


@pytest.mark.parametrize(
    ("text", "width", "shown"),
    [("short", 5, "short"), ("too long", 5, "too…"), ("春眠不覚暁", 6, "春眠…"), ("", 3, "")],
)
def test_what_is_too_long_ends_in_an_ellipsis(text, width, shown):
    assert cut(text, width) == shown
    assert cell_len(cut(text, width)) <= width


@pytest.mark.parametrize(
    ("text", "width", "lines"),
    [
        ("one two three", 7, ["one two", "three"]),
        ("a 0123456789 b", 4, ["a", "0123", "4567", "89 b"]),
        ("春眠不覚暁 処処", 6, ["春眠不", "覚暁", "処処"]),
        ("\u200b" * 3 + " full", 4, ["\u200b" * 3, "full"]),
        ("", 4, [""]),
    ],
)
def test_lines_break_at_spaces_and_long_words_anywhere(text, width, lines):
    assert wrap(text, width) == lines
