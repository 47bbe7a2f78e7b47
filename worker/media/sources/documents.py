"""Text in any language, as rows of `documents.jsonl`: `{"split": 0, "text": ...}` and its kin.

UTF-8 only. A text longer than `PIECE` characters becomes several rows, so that no reader ever needs
more than one piece in memory. Line ends stay as they are.
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
from worker.data.source_files import Member, Rejects, members, read_each, reading
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
from worker.media.sources.json_rows import parse_object, require_whole_characters

PIECE = 4 << 20  # characters a row
MAX_LINE = 16 << 20  # bytes of one line of JSONL

Row = dict[str, Any]

_ROLES = {"system", "user", "assistant", "tool"}
_UTF16 = {codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE}


def write_one_text(path: Path, target: Path, ratio: Ratio) -> Counts:
    """One text, cut in order into training, validation and test; returns the rows of each.

    Raises `BadInput` naming the first byte that is not UTF-8, and for an empty file.
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
    """Rows with their hashes (`split.hash_of`), each in one split; returns the rows of each split.

    The splits follow from all hashes, so the rows wait in a file beside `target`.
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


def decode_file(data: bytes, name: str) -> str:
    """The text that a file holds; `BadInput` where it is empty or not UTF-8."""
    text = "".join(decode_utf8(iter([data]), name))
    if not text:
        raise BadInput("the file is empty")
    return text


def read_files(
    path: Path,
    rejects: Rejects,
    *,
    suffixes: Collection[str],
    decode: Callable[[bytes, str], str] = decode_file,
) -> Iterator[tuple[int, Row]]:
    """The text that `decode` makes of each file of a folder or zip; others go to `rejects`."""

    def read(member: Member) -> tuple[int, Row]:
        with member.open() as file:
            data = file.read()
        return hash_of(data), {"text": decode(data, member.name)}

    return read_each(members(path, rejects), suffixes, read, rejects)


def read_json_lines(path: Path, rejects: Rejects) -> Iterator[tuple[int, Row]]:
    """The rows of a JSON Lines file; a line that is none goes to `rejects` by its number."""
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        try:
            row = _known(parse_object(line, max_bytes=MAX_LINE))
            require_whole_characters(_line(row))
        except BadInput as error:
            rejects.add(f"line {number}", str(error))
        else:
            yield hash_of(_line(row).encode()), row


def decode_utf8(chunks: Iterator[bytes], name: str) -> Iterator[str]:
    """UTF-8 as text, without a byte order mark; `BadInput` names the first byte that is none."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    start, first = 0, True  # of the bytes that the decoder has not turned into text
    for chunk in itertools.chain(chunks, [b""]):
        held = decoder.getstate()[0]
        try:
            text = decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            at, data = start + error.start, held + chunk
            guess = "UTF-16" if at == 0 and data[:2] in _UTF16 else "GB18030"
            raise BadInput(
                f"{name}: not UTF-8: byte 0x{data[error.start]:02x} at offset {at}",
                remedy=f"convert it first, for instance by: iconv -f {guess} -t UTF-8 (with the "
                "encoding that it has)",
            ) from error
        start += len(held) + len(chunk) - len(decoder.getstate()[0])
        yield text.removeprefix("\ufeff") if first else text
        first = first and not text


def _lines(path: Path) -> Iterator[bytes]:
    """The lines of a file; of one that is too long, only enough to show that it is."""
    with reading(path.name), path.open("rb") as file:
        more = partial(file.readline, MAX_LINE + 1)
        for line in iter(more, b""):
            yield line
            rest = line
            while len(rest) > MAX_LINE and not rest.endswith(b"\n"):
                rest = more()


def _text(path: Path) -> Iterator[str]:
    with reading(path.name), path.open("rb") as file:
        yield from decode_utf8(iter(partial(file.read, CHUNK), b""), path.name)


def _pieces(parts: Iterator[str], train: int, validation: int) -> Iterator[tuple[int, str]]:
    """The text in rows with their split codes, none over a boundary or longer than `PIECE`."""
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


def _known(data: Row) -> Row:
    """The row's known keys; `BadInput` where none of the three forms is there."""
    if isinstance(data.get("text"), str) and data["text"]:
        return {"text": data["text"]}
    if isinstance(data.get("prompt"), str) and isinstance(data.get("completion"), str):
        return {"prompt": data["prompt"], "completion": data["completion"]}
    if isinstance(data.get("messages"), list) and data["messages"]:
        return {"messages": [_message(each) for each in data["messages"]]}
    raise BadInput(
        'holds none of "text" (not empty), "prompt" and "completion", or "messages", as text'
    )


def _message(data: Any) -> dict[str, str]:
    role, content = (data.get("role"), data.get("content")) if isinstance(data, dict) else ("", "")
    if role not in _ROLES or not isinstance(content, str):
        raise BadInput(f'a message needs "role", one of {", ".join(sorted(_ROLES))}, and "content"')
    return {"role": role, "content": content}


def _line(row: Row) -> str:
    return json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n"
