"""Captions of images in files `metadata.jsonl`, as in Hugging Face's ImageFolder.

A line is `{"file_name": "seven.png", "text": "a bold seven"}`, with a path from the folder that the
`metadata.jsonl` lies in. Every folder may have one. A line that is not usable is reported by its
number; the others count.
"""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from db.errors import BadInput
from worker.data.source_files import Member, Rejects, members
from worker.media.sources.json_lines import parse_object, require_valid_unicode

FILE = "metadata.jsonl"
MAX_CAPTION = 4_096  # characters
MAX_LINE = 1 << 20  # bytes
MAX_TOTAL = 512 << 20  # bytes of all captions of a dataset, because they are kept in memory


@dataclass(frozen=True)
class Caption:
    """A caption and the line that it comes from."""

    text: str
    source: str  # "train/metadata.jsonl line 3"


Captions = dict[str, Caption]  # by the image's name inside the folder or zip


def is_metadata(member: Member) -> bool:
    """Whether a file's name says that it holds captions."""
    return PurePosixPath(member.name).name == FILE


def read_captions(path: Path, rejects: Rejects) -> Captions:
    """The captions of a folder or zip by the names of their images, which may not exist.

    Of several lines about one image, the first counts. A line or file that is not usable goes to
    `rejects`.
    """
    found, room = Captions(), MAX_TOTAL
    for member in filter(is_metadata, members(path)):
        try:
            with member.open() as file:
                if (room := room - sum(map(len, file))) < 0:
                    raise BadInput(f"more than {MAX_TOTAL:,} bytes of captions in all")
                file.seek(0)
                for number, line in enumerate(file, start=1):
                    if line.strip():
                        _add_line(line, f"{member.name} line {number}", member, found, rejects)
        except BadInput as error:
            rejects.add(member.name, str(error))
    return found


def _add_line(line: bytes, source: str, member: Member, found: Captions, rejects: Rejects) -> None:
    try:
        name, text = _parse_line(line)
        image = str(PurePosixPath(*member.parents, name))
        if image in found:
            raise BadInput(f"{image} already has a caption from {found[image].source}")
        found[image] = Caption(text, source)
    except BadInput as error:
        rejects.add(source, str(error))


def _parse_line(line: bytes) -> tuple[str, str]:
    """The file's name and the caption; `BadInput` says what is wrong with the line."""
    fields = parse_object(line, max_bytes=MAX_LINE)
    name, text = fields.get("file_name"), fields.get("text")
    if not isinstance(name, str) or not name:
        raise BadInput('it has no "file_name", the path of an image from this file\'s folder')
    if not isinstance(text, str) or not text.strip():
        raise BadInput('it has no "text", the caption of an image')
    if len(text) > MAX_CAPTION:
        raise BadInput(
            f"a caption of {len(text):,} characters", remedy=f"use at most {MAX_CAPTION:,}"
        )
    require_valid_unicode(text)
    return name, text.strip()
