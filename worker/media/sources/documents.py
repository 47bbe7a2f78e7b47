"""Text in any language, in UTF-8, as rows of `documents.jsonl`: see `LocalDataset`.

A single text longer than `PIECE` characters becomes several rows, so that no reader needs more than
one piece in memory. Line ends stay as they are.
"""

import codecs
import io
import itertools
import json
import sys
from array import array
from collections.abc import Callable, Collection, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from db.errors import BadInput
from worker.data.dataset import TRAIN
from worker.data.source_files import Member, Rejects, members, read_each, read_errors
from worker.data.split import (
    UNASSIGNED,
    Counts,
    Ratio,
    assign_splits,
    count_splits,
    cut_points,
    hash_of,
)
from worker.files import CHUNK
from worker.media.sources.json_lines import parse_object, require_valid_unicode

PIECE = 4 << 20  # characters a row
MAX_LINE = 16 << 20  # bytes of one line of JSONL

Row = dict[str, Any]

_ROLES = {"system", "user", "assistant", "tool"}
_UTF16 = {codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE}


def write_one_text(path: Path, target: Path, ratio: Ratio) -> Counts:
    """Write one text, cut in order into training, validation and test; return the rows of each.

    Raises `BadInput` for an empty file, and for the first byte that is not UTF-8.
    """
    length = sum(map(len, _text(path)))
    if not length:
        raise BadInput(f"{path.name}: the file is empty")
    codes = array("B")
    with target.open("w", encoding="utf-8") as out:
        for code, text in _pieces(_text(path), *cut_points(length, ratio)):
            out.write(_line({"split": code, "text": text}))
            codes.append(code)
    return count_splits(np.frombuffer(codes, np.uint8))


def write_rows(rows: Iterator[tuple[int, Row]], target: Path, ratio: Ratio) -> Counts:
    """Write rows, given with their hashes (`split.hash_of`); return the rows of each split.

    The splits follow from all hashes together, so the rows first go to a file beside `target`.
    """
    hashes = array("Q")
    waiting = target.with_suffix(".part")
    with waiting.open("w", encoding="utf-8") as out:
        for number, row in rows:
            hashes.append(number)
            out.write(_line(row))
    given = np.full(len(hashes), UNASSIGNED, np.uint8)
    codes = assign_splits(np.frombuffer(hashes, np.uint64), given, ratio)
    with waiting.open(encoding="utf-8") as lines, target.open("w", encoding="utf-8") as out:
        for code, line in zip(codes, lines, strict=True):
            out.write(f'{{"split":{code},{line[1:]}')
    waiting.unlink()
    return count_splits(codes)


def decode_file(data: bytes) -> str:
    """The text of a file; `BadInput` if it is empty or not UTF-8."""
    text = "".join(decode_utf8(iter([data])))
    if not text:
        raise BadInput("the file is empty")
    return text


def read_files(
    path: Path,
    rejects: Rejects,
    *,
    suffixes: Collection[str],
    decode: Callable[[bytes], str] = decode_file,
) -> Iterator[tuple[int, Row]]:
    """The decoded text of each file of a folder or zip; unusable files go to `rejects`."""

    def read(member: Member) -> tuple[int, Row]:
        with member.open() as file:
            data = file.read()
        return hash_of(data), {"text": decode(data)}

    return read_each(members(path, rejects), suffixes, read, rejects)


def read_json_lines(path: Path, rejects: Rejects) -> Iterator[tuple[int, Row]]:
    """The rows of a JSON Lines file; unusable lines go to `rejects`, by their numbers."""
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        try:
            row = _known_keys(parse_object(line, max_bytes=MAX_LINE))
            require_valid_unicode(_line(row))
        except BadInput as error:
            rejects.add(f"line {number}", str(error))
        else:
            yield hash_of(_line(row).encode()), row


def decode_utf8(chunks: Iterator[bytes], *, source: str = "") -> Iterator[str]:
    """UTF-8 as text, without a byte order mark; `BadInput` for the first byte that is not UTF-8.

    `source` names the file in the error, if the caller does not.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    start, first = 0, True  # `start`: offset of the bytes that are not decoded yet
    for chunk in itertools.chain(chunks, [b""]):
        held = decoder.getstate()[0]
        try:
            text = decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            at, data = start + error.start, held + chunk
            guess = "UTF-16" if at == 0 and data[:2] in _UTF16 else "GB18030"
            where = f"{source}: " if source else ""
            raise BadInput(
                f"{where}not UTF-8: byte 0x{data[error.start]:02x} at offset {at}",
                remedy=f"convert it; if it is {guess}, with iconv -f {guess} -t UTF-8",
            ) from error
        start += len(held) + len(chunk) - len(decoder.getstate()[0])
        yield text.removeprefix("\ufeff") if first else text
        first = first and not text


def _lines(path: Path) -> Iterator[bytes]:
    """The lines of a file; a line that is too long is cut, but stays too long."""
    with read_errors(path.name), path.open("rb") as file:
        more = partial(file.readline, MAX_LINE + 1)
        for line in iter(more, b""):
            yield line
            rest = line
            while len(rest) > MAX_LINE and not rest.endswith(b"\n"):
                rest = more()


def _text(path: Path) -> Iterator[str]:
    with read_errors(path.name), path.open("rb") as file:
        yield from decode_utf8(iter(partial(file.read, CHUNK), b""), source=path.name)


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


def _known_keys(data: Row) -> Row:
    """The keys of one of the three forms of rows; `BadInput` if the line has none."""
    if isinstance(data.get("text"), str) and data["text"]:
        return {"text": data["text"]}
    if isinstance(data.get("prompt"), str) and isinstance(data.get("completion"), str):
        return {"prompt": data["prompt"], "completion": data["completion"]}
    if isinstance(data.get("messages"), list) and data["messages"]:
        return {"messages": [_message(each) for each in data["messages"]]}
    raise BadInput(
        'holds none of "text", "prompt" with "completion", and "messages"',
        remedy="give one of them, not empty",
    )


def _message(data: Any) -> dict[str, str]:
    role, content = (data.get("role"), data.get("content")) if isinstance(data, dict) else ("", "")
    if role not in _ROLES or not isinstance(content, str):
        raise BadInput(
            f"a message has the role {str(role)[:40]!r} or no content",
            remedy=f'give "role", one of {", ".join(sorted(_ROLES))}, and "content", a text',
        )
    return {"role": role, "content": content}


def _line(row: Row) -> str:
    return json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n"
