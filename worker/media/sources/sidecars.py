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


def find_sidecars(candidates: Iterable[Member], items: set[str]) -> dict[str, Member]:
    """The text file of each picture, by the picture's name; none if most pictures have none."""
    stems = {str(PurePosixPath(name).with_suffix("")): name for name in items}
    found: dict[str, Member] = {}
    for member in candidates:
        stem = str(PurePosixPath(member.name).with_suffix(""))
        if member.suffix in SUFFIXES and stem in stems:
            found.setdefault(stems[stem], member)
    return found if 2 * len(found) >= len(items) else {}


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
