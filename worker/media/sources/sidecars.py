"""A text file beside each picture, with its caption, as kohya's scripts take them."""

import re
from collections.abc import Iterable
from pathlib import PurePosixPath

from db.errors import BadInput
from worker.media.sources.plain_text import decode_text
from worker.source_files.members import Member

SUFFIXES = frozenset({".txt", ".caption"})
MAX_BYTES = 1 << 20
_BOXES = re.compile(r"(?:\d+(?: [-\d.e]+){4,}\s*)+")  # YOLO: a class and numbers a line


def find_sidecars(
    candidates: Iterable[Member], items: Iterable[Member]
) -> list[tuple[str, Member]]:
    """The names of pictures, each with the text file beside it; none if most have none."""
    texts: dict[str, Member] = {}
    for member in candidates:
        if member.suffix in SUFFIXES:
            texts.setdefault(_bare(member), member)
    if not texts:
        return []
    count, found = 0, list[tuple[str, Member]]()
    for item in items:
        count += 1
        if text := texts.pop(_bare(item), None):
            found.append((item.name, text))
    return found if 2 * len(found) >= count else []


def _bare(member: Member) -> str:
    return str(PurePosixPath(member.name).with_suffix(""))


def read_sidecar(member: Member) -> str:
    """The text in a file; `BadInput` if there is none."""
    with member.open(MAX_BYTES) as file:
        text = decode_text(file.read()).strip()
    if not text:
        raise BadInput("empty, not a caption")
    return text


def is_boxes(text: str) -> bool:
    """Whether a text is numbers, such as the boxes of objects that YOLO learns from."""
    return _BOXES.fullmatch(text) is not None
