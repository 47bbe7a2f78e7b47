import re
from datetime import UTC, datetime, timedelta

import click
import pytest
from rich.cells import cell_len

from scheduler.output.tables import Page, field_lines, table_lines, text_lines
from scheduler.output.values import to_age

ID = "01a203dc-c0b4-7a23-803a-334a0d8dda8f"
ROW = {"id": ID, "model": "digits", "status": "failed", "error": "the weights are broken " * 8}
COLUMNS = ("id", "model", "status", "error")


def lines(rows, columns, width, **how):
    prose = how.pop("prose", False)
    return list(table_lines(rows, columns, Page(width, **how), prose=prose))


@pytest.mark.parametrize("width", [20, 40, 80, 120])
@pytest.mark.parametrize("how", [{}, {"full": True}, {"prose": True}])
def test_no_line_is_wider_than_the_terminal_and_no_id_is_broken(width, how):
    found = lines([ROW, ROW | {"model": "春" * 60}], COLUMNS, width, **how)
    assert max(map(cell_len, found)) <= width
    shown = ID if how.get("full") else ID[:18]
    if len(shown) < width - 2:
        assert "\n".join(found).count(shown) == 2


@pytest.mark.parametrize("width", range(27, 100))
def test_an_id_is_shown_as_a_prefix_that_is_never_cut_wherever_it_stands(width):
    row = {"item": f"{ID}/000000017.png", "reason": f"it was to run after job {ID}, which failed"}
    text = "\n".join(lines([row], ("item", "target", "reason"), width))
    found = re.findall(r"\b01a[0-9a-f-]*", text)
    assert {*found} <= {ID[:18]}
    assert ID[:18] in text
    assert ID in "\n".join(lines([row], ("item",), None))


def test_a_long_value_is_cut_and_in_full_continues_below():
    head, row = lines([ROW], COLUMNS, 80)
    assert head.split() == ["ID", "MODEL", "STATUS", "ERROR"]
    assert row.startswith(ID[:18] + "  digits")
    assert row.endswith("…")
    full = " ".join(" ".join(lines([ROW], COLUMNS, 100, full=True)).split())
    assert full.count("broken") == 8
    assert ID in full


def test_where_a_table_does_not_fit_each_row_is_a_block_of_lines():
    found = lines([ROW, ROW], COLUMNS, 40)
    assert found[0].split() == ["ID", ID[:18]]
    assert found[3].startswith("ERROR")
    assert found[4] == ""
    assert len(found) == 9


def test_a_pipe_gets_every_value_whole():
    _, row = lines([ROW], COLUMNS, None)
    assert ID in row
    assert row.count("broken") == 8
    assert lines([{"created_at": None}], ("created_at",), None) == ["CREATED_AT", ""]


def test_states_have_colours_where_they_are_wanted():
    plain, coloured = (lines([ROW], COLUMNS, 120, colours=wanted) for wanted in (False, True))
    assert [click.unstyle(line) for line in coloured] == plain
    assert click.style("failed", fg="red") in coloured[1]
    assert "\x1b" not in "".join(plain)
    assert list(field_lines([("status", "succeeded")], Page(80, colours=True))) == [
        f"status  {click.style('succeeded', fg='green')}"
    ]


def test_a_field_s_value_goes_on_beside_or_below_its_name():
    text = "word " * 20
    beside = list(field_lines([("name", text), ("empty", "")], Page(60)))
    assert beside[0].startswith("name  word")
    assert all(line.startswith(" " * 6 + "word") for line in beside[1:])
    below = list(field_lines([("a_rather_long_name", ID)], Page(40)))
    assert below == ["a_rather_long_name", f"  {ID}"]


def test_text_continues_at_its_indentation():
    found = list(text_lines("short\n   " + "word " * 20, Page(40)))
    assert found[0] == "short"
    assert found[1].startswith("   word")
    assert found[2].startswith("     word")
    assert max(map(len, found)) <= 40


@pytest.mark.parametrize(
    ("ahead", "text"),
    [
        (timedelta(hours=3), "in 3 h"),
        (timedelta(hours=-50), "2 days ago"),
        (timedelta(minutes=-5), "5 min ago"),
        (timedelta(seconds=30), "in 30 s"),
        (timedelta(hours=26), "in 26 h"),
        (timedelta(minutes=80), "in 80 min"),
    ],
)
def test_ages_have_one_unit(ahead, text):
    assert to_age(datetime.now(UTC) + ahead) == text
