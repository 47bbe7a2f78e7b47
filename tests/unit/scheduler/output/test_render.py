import json
from datetime import UTC, datetime, timedelta, timezone

import pytest

from scheduler.output.render import (
    clean,
    print_fields,
    print_json,
    print_table,
    show,
    to_count,
    to_duration,
    to_iso,
    to_size,
)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1536, "1.5 KiB"),
        (3 << 30, "3.0 GiB"),
        (1 << 50, "1024.0 TiB"),
    ],
)
def test_sizes(size, text):
    assert to_size(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0s"), (59.9, "1m00s"), (185, "3m05s"), (7800, "2h10m")]
)
def test_durations(seconds, text):
    assert to_duration(seconds) == text


def test_times_are_iso_8601_in_utc():
    noon = datetime(2026, 3, 1, 12, tzinfo=timezone(timedelta(hours=2)))
    assert to_iso(noon) == "2026-03-01T10:00:00Z"


def test_json_escapes_what_could_drive_a_terminal_and_keeps_every_language(capsys):
    print_json({"text": "春\x9b31m\u202e\x1b", "at": datetime(2026, 3, 1, tzinfo=UTC)})
    out = capsys.readouterr().out
    assert "春" in out
    assert not {"\x9b", "\u202e", "\x1b"} & set(out)
    assert json.loads(out) == {"text": "春\x9b31m\u202e\x1b", "at": "2026-03-01T00:00:00Z"}


def test_columns_line_up_under_wide_characters(capsys):
    print_table([{"name": "春眠", "n": 1}, {"name": "abcd", "n": 22}], ("name", "n"))
    assert capsys.readouterr().out == "NAME  N\n春眠  1\nabcd  22\n"


def test_empty_fields_are_left_out(capsys):
    print_fields({"name": "x", "error": None, "labels": []})
    assert capsys.readouterr().out == "name  x\n"


def test_nested_fields_are_named_by_their_path(capsys):
    print_fields({"spec": {"model": "m:1", "params": {"lr": 0.1}}})
    assert capsys.readouterr().out == "spec.model   m:1\nspec.params  lr=0.1\n"


def test_a_terminal_gets_short_ids_and_ages(capsys, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    row = {"id": "01a203dc-c0b4-7a23-803a-334a0d8dda8f", "created_at": datetime.now(UTC)}
    print_table([row], ("id", "created_at"))
    out = capsys.readouterr().out
    assert "01a203dc-c0b4-7a23 " in out
    assert "0 s ago" in out


def test_values_are_one_clean_line():
    assert show({"a": [1, 0.123456], "b\x1b": True, "c": None}) == "a=1, 0.1235, b=yes"
    assert clean("a\nb\x00", keep_lines=True) == "a\nb"


def test_a_narrow_terminal_keeps_every_column_and_whole_ids(capsys, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "30")
    row = {"id": "01a203dc-c0b4-7a23-803a-334a0d8dda8f", "model": "dig", "note": "word " * 20}
    print_table([row], ("id", "model", "note"))
    out = capsys.readouterr().out
    assert all(part in out for part in ("ID", "MODEL", "NOTE", "01a203dc-c0b4-7a23", "dig"))


@pytest.mark.parametrize(("number", "text"), [(0, "no samples"), (1, "1 sample"), (2, "2 samples")])
def test_counts(number, text):
    assert to_count(number, "sample") == text
