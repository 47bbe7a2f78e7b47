"""Numbers of samples as people write them, and what they choose."""

import pytest

from scheduler.results.choice import ALL, Choice, parse_ranges, show_ranges


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("17", [17]), ("17,20-22", [17, 20, 21, 22]), (" 3 , 1-1", [1, 3]), ("5,4-6,1", [1, 4, 5, 6])],
)
def test_numbers_and_ranges_are_read(text, numbers):
    assert list(Choice.of(parse_ranges(text))) == numbers


@pytest.mark.parametrize("text", ["", "x", "1-", "-1", "2-1", "1,,2", "1.5", "1" * 10])
def test_anything_else_is_refused(text):
    with pytest.raises(ValueError, match=r"no number or range|ends before"):
        parse_ranges(text)


def test_numbers_are_shown_in_short():
    assert show_ranges([0, 1, 2, 7, 4, 3]) == "0-4,7"
    assert show_ranges([]) == ""


def test_a_choice_knows_its_numbers_and_whether_a_range_has_any():
    choice = Choice.of(parse_ranges("3,10-12"))
    assert [each for each in range(15) if choice.has(each)] == [3, 10, 11, 12]
    assert [choice.meets(range(*each)) for each in ((0, 3), (0, 4), (4, 10), (12, 99))] == [
        False, True, False, True
    ]  # fmt: skip
    assert (bool(choice), bool(ALL), ALL.has(5), ALL.takes("x")) == (True, False, True, True)
    assert [Choice(patterns=("*.png",)).takes(name) for name in ("a.png", "a.json")] == [
        True,
        False,
    ]
