"""Rendering: tables, fields, lists and lines for people, JSON for programs.

On a terminal, output is fitted to its width, with colours for states; in a pipe it is plain.
"""

import json
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import click

from scheduler.output.tables import Page, Row, field_lines, table_lines, text_lines
from scheduler.output.values import (
    clean,
    first_lines,
    flatten,
    show,
    to_age,
    to_count,
    to_duration,
    to_iso,
    to_prefix,
    to_size,
)
from scheduler.output.view import current_view
from worker.environment import wants_colours

__all__ = [
    "clean",
    "first_lines",
    "print_chain",
    "print_fields",
    "print_json",
    "print_list",
    "print_table",
    "print_text",
    "show",
    "to_age",
    "to_count",
    "to_duration",
    "to_iso",
    "to_prefix",
    "to_size",
]

_JSON_CONTROL = re.compile(r"[\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")

_NARROWEST = 20  # cells of a terminal; a narrower one wraps lines itself


def print_json(document: Any, *, line: bool = False) -> None:
    """Write one JSON document, or with `line` one compact line of a stream, to stdout.

    Of each object, only the fields that `--json` names, if it names any.
    """
    text = json.dumps(
        _picked(document, current_view().fields),
        ensure_ascii=False,
        allow_nan=False,
        indent=None if line else 2,
        separators=(",", ":") if line else None,
        default=_to_json,
    )
    click.echo(_JSON_CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", text))


def print_list(
    documents: Sequence[Row],
    columns: Sequence[str],
    *,
    as_json: bool,
    quiet: bool,
    rows: Iterable[Row] | None = None,
    key: str = "name",
    prose: bool = False,
) -> None:
    """Write a list: as JSON, as the `key` of each on a line, or else as a table of `rows`.

    The `rows` are the documents unless they are given.
    """
    if as_json:
        print_json(documents)
    elif quiet:
        for each in documents:
            click.echo(show(each[key]))
    else:
        print_table(list(documents if rows is None else rows), columns, prose=prose)


def print_table(
    rows: Sequence[Row], columns: Sequence[str], *, heading: str = "", prose: bool = False
) -> None:
    """Write `rows` under `columns`. On a terminal, long values are cut, unless they are `prose`.

    Without rows, say so on stderr. A `heading` stands above the table, after an empty line.
    """
    if heading:
        print_text(f"\n{heading}")
    if not rows:
        click.echo("nothing to show", err=True)
        return
    _echo(table_lines(rows, columns, _page(), prose=prose))


def print_fields(fields: Mapping[str, Any]) -> None:
    """Write one `name  value` line per field; empty ones are left out, nested ones named `a.b`."""
    _echo(field_lines([(name, show(value)) for name, value in flatten(fields)], _page()))


def print_text(text: str) -> None:
    """Write lines as they are; on a terminal, long ones continue below."""
    _echo(text_lines(text, _page()))


def print_chain(jobs: Sequence[Row], marked: str) -> None:
    """Write a line for each job of a chain, indented below the one that it waits for.

    The job `marked` has an asterisk.
    """
    page = _page()
    whole = page.width is None or page.full
    print_text("\nCHAIN\n" + "\n".join(_draw_chain(jobs, marked, str if whole else to_prefix)))


def _draw_chain(jobs: Sequence[Row], marked: str, name: Callable[[str], str]) -> Iterator[str]:
    """The lines; `name` is what is shown of an id."""
    after: dict[str | None, list[Row]] = {}
    known = {job["id"] for job in jobs}
    for job in jobs:
        after.setdefault(job["after"] if job["after"] in known else None, []).append(job)
    waiting = [(0, job) for job in reversed(after.get(None, []))]
    while waiting:
        depth, job = waiting.pop()
        indent = "   " * (depth - 1) + ("└─ " if depth else "")
        error = f": {job['error']}" if job["error"] else ""
        retried = f", a retry of {name(job['retry_of'])}" if job["retry_of"] else ""
        told = f"{job['kind']} {job['model'] or ''} {job['status']}{retried}{error}"
        yield clean(f"{indent}{name(job['id'])} {told}{' *' if job['id'] == marked else ''}")
        waiting += [(depth + 1, each) for each in reversed(after.get(job["id"], []))]


def _page() -> Page:
    """What stdout is."""
    full = current_view().full
    if not sys.stdout.isatty():
        return Page(full=full)
    width = max(_NARROWEST, shutil.get_terminal_size().columns)
    return Page(width, colours=wants_colours(), full=full)


def _echo(lines: Iterable[str]) -> None:
    for line in lines:
        click.echo(line)


def _picked(document: Any, fields: Sequence[str]) -> Any:
    if not fields:
        return document
    if isinstance(document, Mapping):
        return {name: document.get(name) for name in fields}
    return [_picked(each, fields) for each in document]


def _to_json(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    raise TypeError(f"not JSON: {type(value).__name__}")
