"""Single lines of a user's JSON Lines file, with the reason if one is not usable."""

import json
from typing import Any

from db.errors import BadInput


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


def require_valid_unicode(text: str) -> None:
    """Refuse a text with half of a surrogate pair, which JSON can hold and UTF-8 cannot."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise BadInput("holds half of a surrogate pair, which is not a character") from error
