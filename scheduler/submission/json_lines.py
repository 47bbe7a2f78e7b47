"""JSON Lines files that people hand in: batches and prompts. Errors name the file and the line."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from db.errors import BadInput
from worker.specs import MAX_PROMPTS

MAX_LINES = 200_000
MAX_LINE_BYTES = 1 << 20
MAX_FILE_BYTES = 256 << 20


def read_lines(path: str) -> list[str]:
    """The lines of a UTF-8 file, blank ones included, so that a line's number stays its place.

    Raises `BadInput` where it cannot be read, is not UTF-8, is empty or beyond the limits.
    """
    try:
        with Path(path).open("rb") as file:
            lines = [_decode(line, path, number) for number, line in _bounded(file, path)]
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror}") from None
    if not any(line.strip() for line in lines):
        raise BadInput(f"{path}: no lines")
    return lines


def read_prompts(path: str) -> list[dict[str, Any]]:
    """The prompts of a file: a line is `{"prompt", "custom_id"?}`, or a JSON string alone."""
    prompts = [
        _read_prompt(line, f"{path}: line {number}")
        for number, line in enumerate(read_lines(path), 1)
        if line.strip()
    ]
    if len(prompts) > MAX_PROMPTS:
        raise BadInput(f"{path}: {len(prompts):,} prompts; at most {MAX_PROMPTS:,} are allowed")
    return prompts


def _read_prompt(line: str, where: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{where}: not JSON ({error})") from None
    row = {"prompt": value} if isinstance(value, str) else value
    if not isinstance(row, dict) or not isinstance(row.get("prompt"), str):
        raise BadInput(f'{where}: expected {{"prompt": "text"}} (got {line.strip()[:40]!r})')
    if extra := row.keys() - {"prompt", "custom_id"}:
        raise BadInput(f"{where}: unknown key {min(extra)!r}; known: custom_id, prompt")
    return row


def _bounded(file: BinaryIO, path: str) -> Iterator[tuple[int, bytes]]:
    """Yield (number, line), holding the file to its limits before it fills the memory."""
    size = 0
    for number in range(1, MAX_LINES + 2):
        line = file.readline(MAX_LINE_BYTES + 1)
        size += len(line)
        if not line:
            return
        if number > MAX_LINES or len(line) > MAX_LINE_BYTES or size > MAX_FILE_BYTES:
            raise BadInput(
                f"{path}: line {number} is beyond the limits of {MAX_LINES:,} lines, "
                f"{MAX_LINE_BYTES:,} bytes a line and {MAX_FILE_BYTES:,} bytes in all"
            )
        yield number, line


def _decode(line: bytes, path: str, number: int) -> str:
    try:
        return line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise BadInput(
            f"{path}: line {number}: not UTF-8 at byte {error.start} of the line; "
            "save the file as UTF-8"
        ) from None
