"""The objects in a user's JSON Lines or JSON file, with the reason if one is not usable."""

import json
from collections.abc import Iterator
from functools import partial
from typing import IO, Any

from db.errors import BadInput
from worker.files import CHUNK
from worker.media.sources.plain_text import decode_chunks


def parse_object(line: bytes, *, max_bytes: int) -> dict[str, Any]:
    """The object in a line, empty if the line holds another value; `BadInput` for bad JSON."""
    if len(line) > max_bytes:
        raise BadInput(f"longer than {max_bytes:,} bytes")
    try:
        data = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise BadInput(
            f"not UTF-8: byte 0x{line[error.start]:02x} at offset {error.start}"
        ) from error
    except (ValueError, RecursionError) as error:
        raise BadInput(f"not JSON: {error}") from error
    return data if isinstance(data, dict) else {}


def json_array(
    file: IO[bytes], *, max_chars: int
) -> Iterator[tuple[str, dict[str, Any] | BadInput]]:
    """The objects of a file that is one JSON array, each with its place, one at a time in memory.

    Raises `BadInput` where the file stops being JSON.
    """
    parts, decoder = decode_chunks(iter(partial(file.read, CHUNK), b"")), json.JSONDecoder()
    text, number = "".join(next(parts, "")).lstrip()[1:], 0
    while True:
        text = text.lstrip(" \t\r\n,")
        if text.startswith("]"):
            return
        try:
            value, end = decoder.raw_decode(text)
        except (ValueError, RecursionError) as error:
            more = next(parts, None) if len(text) < max_chars else None
            if more is None:
                raise BadInput(f"not JSON after item {number}: {error}") from error
            text += more
            continue
        number, text = number + 1, text[end:]
        wrong = BadInput("not an object of keys and values")
        yield f"item {number}", value if isinstance(value, dict) else wrong


def require_valid_unicode(text: str) -> None:
    """Refuse a text with half of a surrogate pair, which JSON can hold and UTF-8 cannot."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise BadInput("holds half of a surrogate pair, which is not a character") from error
