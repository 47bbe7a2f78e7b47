"""Reading users' JSON Lines files: batches and prompts. Errors name the file and the line."""

import json
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import IO, Any, NoReturn

from db.errors import BadInput
from db.path_errors import reading, shown
from worker.media.sources.plain_text import as_utf8, conversion

STDIN = "-"  # in place of a file's name

MAX_LINES = 200_000
MAX_LINE_BYTES = 1 << 20
MAX_FILE_BYTES = 256 << 20


def read_lines(
    path: str, *, max_lines: int = MAX_LINES, max_bytes: int = MAX_FILE_BYTES
) -> Iterator[str]:
    """The lines of a file, including blank ones, so that line numbers stay true.

    It is in UTF-8, or in UTF-16 with a byte order mark, as PowerShell writes it. The file `-` is
    the standard input. A line is read when it is asked for. Raises `BadInput` for a file that is
    unreadable, in another encoding, empty or beyond the limits.
    """
    empty, name = True, "standard input" if path == STDIN else path
    with (
        reading(Path(name)),
        nullcontext(sys.stdin.buffer) if path == STDIN else Path(path).open("rb") as file,
    ):
        for line in _decoded(as_utf8(file), shown(name), max_lines, max_bytes):
            empty = empty and not line.strip()
            yield line
    if empty:
        raise BadInput(f"{shown(name)}: no lines")


def parse_json(text: str) -> Any:
    """The value of a JSON text by RFC 8259, which has no NaN. Raises `BadInput`."""
    try:
        return _DECODER.decode(text)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"not JSON ({error})") from None


def parse_object(line: str) -> dict[str, Any]:
    """The JSON object of a line. Raises `BadInput`."""
    value = parse_json(line)
    if not isinstance(value, dict):
        raise BadInput(f"expected a JSON object (got {line.strip()[:40]!r})")
    return value


def refuse_constant(constant: str) -> NoReturn:
    """Raise `BadInput` for `NaN` or `Infinity`: the `parse_constant` of `json.loads`."""
    raise BadInput(f"{constant} is not a number that can be used")


_DECODER = json.JSONDecoder(parse_constant=refuse_constant)


def _decoded(file: IO[bytes], path: str, max_lines: int, max_bytes: int) -> Iterator[str]:
    size = 0
    for number in range(1, max_lines + 2):
        line = file.readline(MAX_LINE_BYTES + 1)
        size += len(line)
        if not line:
            return
        if number > max_lines or len(line) > MAX_LINE_BYTES or size > max_bytes:
            raise BadInput(
                f"{path}: line {number} is beyond the limits of {max_lines:,} lines, "
                f"{MAX_LINE_BYTES:,} bytes a line and {max_bytes:,} bytes in all"
            )
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise BadInput(
                f"{path}: line {number}: not UTF-8 at byte {error.start} of the line",
                remedy=conversion(line),
            ) from None
