"""Captions of images, as Hugging Face's image folder has them: `metadata.jsonl` beside them.

A line is `{"file_name": "seven.png", "text": "a bold seven"}`, its file's path taken from the
folder that the `metadata.jsonl` lies in. There may be one in every folder. What is wrong with a
line is reported by its number; the other lines count.
"""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from db.errors import BadInput
from worker.data.source_files import Member, Rejects, members
from worker.media.sources.json_rows import parse_object, require_whole_characters

FILE = "metadata.jsonl"
MAX_CAPTION = 4_096  # characters
MAX_LINE = 1 << 20  # bytes
MAX_TOTAL = 512 << 20  # bytes of all the captions of a data set, for they are in memory while read


@dataclass(frozen=True)
class Caption:
    """A caption, and the line that it comes from."""

    text: str
    source: str  # "train/metadata.jsonl line 3"


Captions = dict[str, Caption]  # by the image's name inside the folder or zip


def is_metadata(member: Member) -> bool:
    """Whether a file holds captions, by its name."""
    return PurePosixPath(member.name).name == FILE


def read_captions(path: Path, rejects: Rejects) -> Captions:
    """The captions of a folder or zip, by the names of their images, whether there or not.

    Of several lines for one image the first counts. A line or file that is not usable goes to
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
                        _add(line, f"{member.name} line {number}", member, found, rejects)
        except BadInput as error:
            rejects.add(member.name, str(error))
    return found


def _add(line: bytes, source: str, member: Member, found: Captions, rejects: Rejects) -> None:
    try:
        name, text = _parse(line)
        image = str(PurePosixPath(*member.parents, name))
        if image in found:
            raise BadInput(f"{image} has a caption already, by {found[image].source}")
        found[image] = Caption(text, source)
    except BadInput as error:
        rejects.add(source, str(error))


def _parse(line: bytes) -> tuple[str, str]:
    """The file's name and the caption of a line; `BadInput` says what is wrong with it."""
    fields = parse_object(line, max_bytes=MAX_LINE)
    name, text = fields.get("file_name"), fields.get("text")
    if not isinstance(name, str) or not name:
        raise BadInput('no "file_name" in it, the path of an image from this file\'s folder')
    if not isinstance(text, str) or not text.strip():
        raise BadInput('no "text" in it, the caption of its image')
    if len(text) > MAX_CAPTION:
        raise BadInput(f"a caption of {len(text):,} characters; at most {MAX_CAPTION:,} are taken")
    require_whole_characters(text)
    return name, text.strip()
