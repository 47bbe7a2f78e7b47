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
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from db.errors import BadInput
from worker.data.dataset import TRAIN
from worker.data.source_files import members
from worker.data.split import FREE, Counts, Ratio, assign, counted, cut, place
from worker.files import CHUNK

PIECE = 4 << 20  # characters a row
MAX_LINE = 16 << 20  # bytes of one line of JSONL

Rejecting = Callable[[str, str], None]  # told the name and the reason
Row = dict[str, Any]

_ROLES = {"system", "user", "assistant", "tool"}
_UTF16 = {codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE}


def write_text(path: Path, target: Path, ratio: Ratio) -> Counts:
    """One text, cut in order into training, validation and test; returns the rows of each.

    Raises `BadInput` naming the first byte that is not UTF-8, and for an empty file.
    """
    with path.open("rb") as file:
        length = sum(len(part) for part in decoded(_chunks(file), path.name))
    if not length:
        raise BadInput(f"{path.name}: the file is empty")
    codes = array("B")
    with path.open("rb") as file, target.open("w", encoding="utf-8") as out:
        for code, text in _cut_up(decoded(_chunks(file), path.name), *cut(length, ratio)):
            out.write(_line({"split": code, "text": text}))
            codes.append(code)
    return counted(np.frombuffer(codes, np.uint8))


def write_rows(rows: Iterator[tuple[int, Row]], target: Path, ratio: Ratio) -> Counts:
    """Rows with their places (`split.place`), each in one split; returns the rows of each split."""
    places = array("Q")
    plain = target.with_suffix(".part")
    with plain.open("w", encoding="utf-8") as out:
        for where, row in rows:
            places.append(where)
            out.write(_line(row))
    points = np.frombuffer(places, np.uint64) if places else np.zeros(0, np.uint64)
    codes = assign(points, np.full(len(points), FREE, np.uint8), ratio)
    _add_splits(plain, target, codes)
    return counted(codes)


def text_of(data: bytes, name: str) -> str:
    """The text that a file holds; `BadInput` where it is empty or not UTF-8."""
    text = "".join(decoded(iter([data]), name))
    if not text:
        raise BadInput("the file is empty")
    return text


def files_of(
    path: Path,
    reject: Rejecting,
    *,
    suffixes: Collection[str] = (".txt",),
    read: Callable[[bytes, str], str] = text_of,
) -> Iterator[tuple[int, Row]]:
    """What `read` makes of each file of a folder or zip; what it refuses goes to `reject`."""
    for member in members(path):
        try:
            if member.suffix not in suffixes:
                raise BadInput(f"another kind by its name; taken here are {', '.join(suffixes)}")
            with member.open() as file:
                data = file.read()
            text = read(data, member.name)
        except BadInput as error:
            reject(member.name, str(error))
        else:
            yield place(data), {"text": text}


def lines_of(path: Path, reject: Rejecting) -> Iterator[tuple[int, Row]]:
    """The rows of a JSONL file, one a line; a line that is none goes to `reject` by its number."""
    with path.open("rb") as file:
        for number, line in enumerate(_lines(file), start=1):
            if not line.strip():
                continue
            try:
                row = _row(line)
            except BadInput as error:
                reject(f"line {number}", str(error))
            else:
                yield place(_line(row).encode()), row


def decoded(chunks: Iterator[bytes], name: str) -> Iterator[str]:
    """UTF-8 as text, without a byte order mark; `BadInput` names the first byte that is none."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    start, first = 0, True  # of the bytes that the decoder has not turned into text
    for chunk in itertools.chain(chunks, [b""]):
        held = decoder.getstate()[0]
        try:
            text = decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            raise BadInput(_not_utf8(name, start, held + chunk, error.start)) from error
        start += len(held) + len(chunk) - len(decoder.getstate()[0])
        yield text.removeprefix("\ufeff") if first else text
        first = first and not text


def _not_utf8(name: str, start: int, data: bytes, bad: int) -> str:
    """The complaint about byte `bad` of `data`, which begins at `start` of the file."""
    guess = "UTF-16" if start + bad == 0 and data[:2] in _UTF16 else "GB18030"
    return (
        f"{name}: not UTF-8: byte 0x{data[bad]:02x} at offset {start + bad}; convert it first, "
        f"for instance by: iconv -f {guess} -t UTF-8 (with the encoding that it has)"
    )


def _lines(file: IO[bytes]) -> Iterator[bytes]:
    """The lines of a file; of one that is too long, only enough to show that it is."""
    more = partial(file.readline, MAX_LINE + 1)
    for line in iter(more, b""):
        yield line
        rest = line
        while len(rest) > MAX_LINE and not rest.endswith(b"\n"):
            rest = more()


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    return iter(partial(file.read, CHUNK), b"")


def _cut_up(parts: Iterator[str], train: int, validation: int) -> Iterator[tuple[int, str]]:
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


def _add_splits(plain: Path, target: Path, codes: npt.NDArray[np.uint8]) -> None:
    """Put each row's split before its other keys."""
    with plain.open(encoding="utf-8") as rows, target.open("w", encoding="utf-8") as out:
        for code, row in zip(codes, rows, strict=True):
            out.write(f'{{"split":{code},{row[1:]}')
    plain.unlink()


def _row(line: bytes) -> Row:
    """One line as a row that holds what training reads and nothing else."""
    if len(line) > MAX_LINE:
        raise BadInput(f"longer than {MAX_LINE:,} bytes")
    try:
        data = json.loads(line.decode("utf-8-sig"))
        row = _known(data if isinstance(data, dict) else {})
        _line(row).encode("utf-8")
    except UnicodeDecodeError as error:
        raise BadInput(
            f"not UTF-8: byte 0x{error.object[error.start]:02x} at {error.start}"
        ) from error
    except UnicodeEncodeError as error:
        raise BadInput("holds half of a surrogate pair, which is no character") from error
    except (ValueError, RecursionError) as error:
        raise BadInput(f"not JSON: {error}") from error
    return row


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
