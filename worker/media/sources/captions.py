"""Captions of pictures, as Hugging Face's image folder has them: `metadata.jsonl` beside them.

A line is `{"file_name": "seven.png", "text": "a bold seven"}`, its file's path taken from the
folder that the `metadata.jsonl` lies in. There may be one in every folder. What is wrong with a
line is reported by its number; the other lines count.
"""

import json
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from db.errors import BadInput
from worker.data.source_files import Member, members

FILE = "metadata.jsonl"
MAX_CAPTION = 4_096  # characters
MAX_LINE = 1 << 20  # bytes
MAX_TOTAL = 512 << 20  # bytes of all the captions of a data set, for they are in memory while read

Rejecting = Callable[[str, str], None]  # told the name and the reason


@dataclass(frozen=True)
class Caption:
    """A caption, and the line that it comes from."""

    text: str
    source: str  # "train/metadata.jsonl line 3"


Captions = dict[str, Caption]  # by the picture's name inside the folder or zip


def is_metadata(member: Member) -> bool:
    """Whether a file holds captions, by its name."""
    return PurePosixPath(member.name).name == FILE


def survey(path: Path, reject: Rejecting) -> Captions:
    """The captions of a folder or zip, by the names of their pictures, whether there or not.

    Of several lines for one picture the first counts. A line or file that is not usable goes to
    `reject`.
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
                        _take(line, f"{member.name} line {number}", member, found, reject)
        except BadInput as error:
            reject(member.name, str(error))
        except (OSError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
            reject(member.name, f"cannot be read: {error}")
    return found


def _take(line: bytes, source: str, member: Member, found: Captions, reject: Rejecting) -> None:
    """Add a line's caption to those that were found."""
    try:
        name, text = _parsed(line)
        place = str(PurePosixPath(*member.parents, name))
        if place in found:
            raise BadInput(f"{place} has a caption already, by {found[place].source}")
        found[place] = Caption(text, source)
    except BadInput as error:
        reject(source, str(error))


def _parsed(line: bytes) -> tuple[str, str]:
    """The file's name and the caption of a line; `BadInput` says what is wrong with it."""
    if len(line) > MAX_LINE:
        raise BadInput(f"longer than {MAX_LINE:,} bytes")
    try:
        data = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise BadInput(f"not UTF-8: byte 0x{line[error.start]:02x} at {error.start}") from error
    except (ValueError, RecursionError) as error:
        raise BadInput(f"not JSON: {error}") from error
    fields = data if isinstance(data, dict) else {}
    name, text = fields.get("file_name"), fields.get("text")
    if not isinstance(name, str) or not name:
        raise BadInput('no "file_name" in it, the path of a picture from this file\'s folder')
    if not isinstance(text, str) or not text.strip():
        raise BadInput('no "text" in it, the caption of its picture')
    return name, _checked(text)


def _checked(text: str) -> str:
    """A caption within the limits, white space around it taken off."""
    if len(text) > MAX_CAPTION:
        raise BadInput(f"a caption of {len(text):,} characters; at most {MAX_CAPTION:,} are taken")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise BadInput("holds half of a surrogate pair, which is no character") from error
    return text.strip()
