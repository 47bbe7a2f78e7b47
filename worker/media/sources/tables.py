"""Rows about files, as people keep them beside the files: JSON Lines, CSV, Parquet, COCO's JSON.

A row that is not usable comes as the `BadInput` that says why; a file that is not, raises it.
"""

import csv
import io
import itertools
import json
import re
from collections.abc import Callable, Iterator
from typing import IO, Any

from db.errors import BadInput, raise_outage
from worker.extras import needed_for
from worker.media.sources.json_lines import parse_object
from worker.media.sources.plain_text import as_utf8, decode_text
from worker.source_files.members import Member

MAX_LINE = 1 << 20  # bytes of a line of JSON Lines
MAX_BYTES = 512 << 20  # of a table
MAX_JSON = 128 << 20  # bytes of a JSON document, because it is read whole

_EXCEL = re.compile(r'"?sep=.?"?\r?\n')  # a line before a table that names the delimiter

Row = dict[str, Any]
Rows = Iterator[tuple[str, Row | BadInput]]  # each with its place: "line 3"


def read_table(member: Member, is_file: Callable[[str], bool]) -> Rows:
    """The rows of a file, in order; `BadInput` if it cannot be read.

    A CSV that begins with a row about a file, as `is_file` says, has no header: its columns are
    called `1`, `2` and so on.
    """
    with member.open(MAX_BYTES) as file:
        if member.suffix in {".csv", ".tsv", ".txt"}:
            yield from _csv(file, is_file)
        else:
            yield from READERS[member.suffix](file)


def _json_lines(file: IO[bytes]) -> Rows:
    for number, line in enumerate(as_utf8(file), start=1):
        if not line.strip():
            continue
        try:
            yield f"line {number}", parse_object(line, max_bytes=MAX_LINE)
        except BadInput as error:
            yield f"line {number}", error


def _csv(file: IO[bytes], is_file: Callable[[str], bool]) -> Rows:
    text = decode_text(file.read())
    if stated := _EXCEL.match(text):
        text = text[stated.end() :]
    first = text.partition("\n")[0]
    delimiter = next((each for each in "\t|" if each in first), max(";,", key=first.count))
    if delimiter not in first:
        raise BadInput("not a table: its first line has no comma, tab, semicolon or bar")
    plain = delimiter == "|"  # LJSpeech quotes nothing
    lines = csv.reader(
        io.StringIO(text, newline=""),
        delimiter=delimiter,
        quoting=csv.QUOTE_NONE if plain else csv.QUOTE_MINIMAL,
    )
    try:
        header = [cell.strip() for cell in next(lines)]
        headless = any(map(is_file, header))
        columns = list(map(str, range(1, len(header) + 1))) if headless else header
        for row in itertools.chain([header] if headless else [], lines):
            if any(row):
                yield f"line {lines.line_num}", dict(zip(columns, row, strict=False))
    except csv.Error as error:
        raise BadInput(f"not a table: {error}") from error


def _parquet(file: IO[bytes]) -> Rows:
    with needed_for("a Parquet file", remedy="save the table as metadata.jsonl"):
        from pyarrow import parquet  # noqa: PLC0415 - large, and an optional extra
    try:
        table = parquet.ParquetFile(file)
        plain = [f.name for f in table.schema_arrow if not hasattr(f.type, "num_fields")
                 or not f.type.num_fields]  # fmt: skip
        number = 0
        for batch in table.iter_batches(batch_size=1024, columns=plain):
            for row in batch.to_pylist():
                number += 1
                yield f"row {number}", row
    except Exception as error:  # the library raises many kinds of errors
        raise_outage(error)
        raise BadInput(f"not a readable Parquet file: {error}") from error


def _json(file: IO[bytes]) -> Rows:
    """COCO's captions, a list of rows, or captions or rows by the names of files."""
    data = file.read(MAX_JSON + 1)
    if len(data) > MAX_JSON:
        raise BadInput(f"more than {MAX_JSON:,} bytes of JSON")
    try:
        found = json.loads(decode_text(data))
    except (ValueError, RecursionError) as error:
        raise BadInput(f"not JSON: {error}") from error
    if isinstance(found, dict) and "annotations" in found:
        yield from _coco(found)
    elif isinstance(found, dict):
        for name, value in found.items():
            row = value if isinstance(value, dict) else {"caption": value}
            yield f"entry {name}", {"file_name": name} | row
    else:
        for number, row in enumerate(found if isinstance(found, list) else [], start=1):
            wrong = BadInput("not an object of keys and values")
            yield f"item {number}", row if isinstance(row, dict) else wrong


def _coco(found: Row) -> Rows:
    """Captions: `images` with ids and names, `annotations` with captions of ids."""
    images, annotations = (_objects(found, key) for key in ("images", "annotations"))
    names = {str(each.get("id")): each.get("file_name") for each in images}
    captions: dict[str, str] = {}
    for each in annotations:
        if isinstance(each.get("caption"), str):
            captions.setdefault(str(each.get("image_id")), each["caption"])
    if annotations and not captions:
        raise BadInput("COCO annotations without captions, such as boxes: they are not used")
    for key, caption in captions.items():
        yield f"image {key}", {"file_name": names.get(key), "caption": caption}


def _objects(data: Row, key: str) -> list[Row]:
    found = data.get(key)
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def is_coco(head: bytes) -> bool:
    """Whether the beginning of a JSON file is that of COCO's annotations."""
    begun = head.lstrip()[:1] == b"{"
    return begun and any(key in head for key in (b'"images"', b'"annotations"', b'"licenses"'))


READERS: dict[str, Callable[[IO[bytes]], Rows]] = {
    ".jsonl": _json_lines,
    ".parquet": _parquet,
    ".json": _json,
}
SUFFIXES = frozenset({".csv", ".tsv", *READERS})
