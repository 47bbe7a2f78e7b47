"""Text in any language, in UTF-8, as rows of `documents.jsonl`: see `LocalDataset`.

A single text longer than `PIECE` characters becomes several rows, so that no reader needs more than
one piece in memory. Line ends stay as they are.
"""

import codecs
import io
import itertools
import json
import sys
from collections.abc import Callable, Collection, Iterator
from functools import partial
from pathlib import Path
from typing import IO

from db.errors import BadInput
from worker.cleaning.alike.texts import AlikeTexts
from worker.cleaning.rows import texts_of
from worker.cleaning.settle import Settlement
from worker.cleaning.steps import Chain
from worker.data.dataset import DOCUMENTS, TRAIN, LocalDataset
from worker.data.lines import keep_lines
from worker.data.split import Counts, Ratio, count_splits, cut_points, hash_of
from worker.files import CHUNK
from worker.media.sources.json_lines import json_array, parse_object, require_valid_unicode
from worker.media.sources.layout import Layout
from worker.media.sources.plain_text import as_utf8, decode_chunks, decode_text
from worker.media.sources.text_rows import Row, known_row
from worker.source_files.kinds import AS_ROWS
from worker.source_files.members import Member, Rejects, read_each, read_errors
from worker.source_files.source import Source

PIECE = 4 << 20  # characters a row
MAX_LINE = 16 << 20  # bytes of one line of JSONL

MAX_ROWS_BYTES = 1 << 40  # of a file of rows, because they are read one at a time
_HEAD = 4096
ROW_SUFFIXES = frozenset({".jsonl", ".ndjson", ".json"})

SplitRow = tuple[int, int, Row]  # the row's hash, the code of its stated split, the row


def write_repaired(path: Path, copy: Path, chain: Chain) -> None:
    """Write a copy of a text in which the chain's steps have repaired its lines."""
    with copy.open("w", encoding="utf-8", newline="") as out:
        for block in _blocks_of_lines(_text(path)):
            out.write(chain.repair({"text": block})["text"])


def _blocks_of_lines(parts: Iterator[str]) -> Iterator[str]:
    """The parts of a text cut anew, so that each ends with a line."""
    held = ""
    for part in parts:
        whole, end, rest = (held + part).rpartition("\n")
        if whole or end:
            yield whole + end
        held = rest
    if held:
        yield held


def read_one_text(path: Path, ratio: Ratio, chain: Chain) -> Iterator[SplitRow]:
    """One text as rows, cut in order into training, validation and test.

    Raises `BadInput` for an empty file, and for the first byte that is not UTF-8.
    """
    length = sum(map(len, _text(path)))
    if not length:
        raise BadInput(f"{path.name}: the file is empty")
    chain.check_size(length)
    for code, text in _pieces(_text(path), *cut_points(length, ratio)):
        yield hash_of(text.encode()), code, {"text": text}


def write_rows(
    rows: Iterator[SplitRow], target: Path, settlement: Settlement, *, cut: bool = False
) -> Counts:
    """Write rows, given with their hashes (`split.hash_of`) and the splits that are stated.

    Returns the rows of each split. The splits follow from all hashes together, so the rows first go
    to a file beside `target`. The rows of the version that is updated come first. Rows that were
    `cut` from one text have their splits.
    """
    index = settlement.index()
    if settlement.parent is not None:
        rows = itertools.chain(_rows_of(settlement.parent), rows)
    waiting = target.with_suffix(".part")
    with waiting.open("wb") as out:
        for number, split, row in rows:
            line = _line(row).encode()
            index.add_hashed(number, line.removesuffix(b"\n"), split)
            out.write(line)
    keep, codes = settlement.settle(index, lambda: AlikeTexts(waiting, len(index)), cut=cut)
    keep_lines(waiting, keep)
    with waiting.open("rb") as lines, target.open("wb") as out:
        for code, line in zip(codes, lines, strict=True):
            out.write(b'{"split":%d,' % code + line[1:])
    waiting.unlink()
    return count_splits(codes)


def _rows_of(parent: LocalDataset) -> Iterator[SplitRow]:
    """The rows of a version, in their splits."""
    with (parent.folder / DOCUMENTS).open("rb") as lines:
        for line in lines:
            row = json.loads(line)
            split = row.pop("split")
            yield hash_of(_line(row).encode()), split, row


def decode_file(data: bytes) -> str:
    """The text of a file; `BadInput` if it is empty or not UTF-8."""
    text = decode_text(data)
    if not text:
        raise BadInput("the file is empty")
    return text


def read_files(
    source: Source,
    layout: Layout,
    rejects: Rejects,
    chain: Chain,
    *,
    suffixes: Collection[str],
    decode: Callable[[bytes], str] = decode_file,
) -> Iterator[SplitRow]:
    """The decoded text of each file of a folder or archive; unusable files go to `rejects`."""

    def read(member: Member) -> SplitRow:
        with member.open() as file:
            data = file.read()
        split = layout.read(member)[1]
        return hash_of(data), split, _cleaned({"text": decode(data)}, chain)

    return read_each(source.members(rejects), suffixes, read, rejects)


def _cleaned(row: Row, chain: Chain) -> Row:
    cleaned: Row = chain(row, sum(map(len, texts_of(row))))
    return cleaned


def read_row_files(
    source: Source, layout: Layout, rejects: Rejects, chain: Chain
) -> Iterator[SplitRow]:
    """The rows of every JSON Lines or JSON file; unusable lines go to `rejects`."""
    for member in source.members(rejects):
        place = "" if source.is_single else f"{member.name} "
        try:
            if member.suffix not in ROW_SUFFIXES:
                raise BadInput(f"its name ends in none of {', '.join(sorted(ROW_SUFFIXES))}")
            split = layout.read(member)[1]
            with member.open(MAX_ROWS_BYTES) as file:
                for row in _rows(as_utf8(file), member, place, rejects, chain):
                    yield hash_of(_line(row).encode()), split, row
        except BadInput as error:
            if source.is_single:
                raise BadInput(f"{source.name}: {error.message}", remedy=error.remedy) from error
            rejects.add(member.name, str(error))


def _rows(
    file: IO[bytes], member: Member, place: str, rejects: Rejects, chain: Chain
) -> Iterator[Row]:
    if _is_array(file):
        found = json_array(file, max_chars=MAX_LINE)
    else:
        found = _json_lines(file)
        if member.suffix == ".json" and file.readline(3).strip() == b"{":
            raise BadInput("one JSON object over several lines, not rows", remedy=AS_ROWS)
        file.seek(0)
    for name, value in found:
        try:
            if isinstance(value, BadInput):
                raise value
            row = known_row(value)
            require_valid_unicode(_line(row))
            row = _cleaned(row, chain)
        except BadInput as error:
            rejects.add(f"{place}{name}", error)
        else:
            yield row


def _is_array(file: IO[bytes]) -> bool:
    """Whether a file is one JSON array: the lines of JSON Lines are objects."""
    head = file.read(_HEAD).removeprefix(codecs.BOM_UTF8).lstrip()
    file.seek(0)
    return head.startswith((b"[{", b"[ ", b"[\n", b"[\r", b"[]"))


def _json_lines(file: IO[bytes]) -> Iterator[tuple[str, Row | BadInput]]:
    for number, line in enumerate(_lines(file), start=1):
        if line.strip():
            try:
                yield f"line {number}", parse_object(line, max_bytes=MAX_LINE)
            except BadInput as error:
                yield f"line {number}", error


def _lines(file: IO[bytes]) -> Iterator[bytes]:
    """The lines of a file; a line that is too long is cut, but stays too long."""
    more = partial(file.readline, MAX_LINE + 1)
    for line in iter(more, b""):
        yield line
        rest = line
        while len(rest) > MAX_LINE and not rest.endswith(b"\n"):
            rest = more()


def _text(path: Path) -> Iterator[str]:
    with read_errors(path.name), path.open("rb") as file:
        yield from decode_chunks(iter(partial(file.read, CHUNK), b""), source=path.name)


def _pieces(parts: Iterator[str], train: int, validation: int) -> Iterator[tuple[int, str]]:
    """The text in pieces with their split codes, none across splits or longer than `PIECE`."""
    bounds = [train, validation, sys.maxsize]
    code, at, held = TRAIN, 0, io.StringIO()
    for part in parts:
        rest = part
        while rest:
            while bounds[code] == at:
                code += 1
            take = rest[: min(bounds[code] - at, PIECE - held.tell())]
            held.write(take)
            at, rest = at + len(take), rest[len(take) :]
            if at == bounds[code] or held.tell() == PIECE:
                yield code, held.getvalue()
                held = io.StringIO()
    if held.tell():
        yield code, held.getvalue()


def _line(row: Row) -> str:
    return json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n"
