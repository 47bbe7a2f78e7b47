r"""Names of files as programs pack them: separators, normal forms, paths that lead out.

Windows programs write `cats\1.png`, macOS decomposes `é` into two characters, and every system adds
files of its own. A cleaned name has `/` between its parts and composed characters (NFC), so that
labels and captions match however the files were packed.
"""

import os
import unicodedata
from pathlib import PurePosixPath

from worker.source_files.encodings import decode_names

_SYSTEM = {
    *("__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"),
    *("$recycle.bin", "system volume information", "@eadir", "lost+found"),
}


def clean_name(name: str) -> str:
    r"""A name with `/` between its parts, none of them `.` or empty, and in form NFC."""
    composed = unicodedata.normalize("NFC", name)
    parts = [part for part in composed.replace("\\", "/").split("/") if part not in {"", "."}]
    return "/".join(parts)


def leads_out(name: str) -> bool:
    """Whether a name in an archive, not cleaned yet, would lead out of the folder it lies in."""
    slashed = name.replace("\\", "/")
    return slashed.startswith("/") or slashed[1:3] == ":/" or ".." in slashed.split("/")


def archived_name_error(name: str, is_newest: bool) -> str | None:
    """Why a name in an archive, not cleaned yet, cannot be used; None if it can."""
    if not clean_name(name):
        return "it has no name"
    if leads_out(name):
        return "its name leads out of the archive"
    return None if is_newest else "the archive holds a newer file of this name"


def is_system(name: str) -> bool:
    """Whether a cleaned name is hidden or belongs to an operating system, or its folder does."""
    parts = PurePosixPath(name).parts
    return any((part.startswith(".") and part != "..") or part.lower() in _SYSTEM for part in parts)


def entry_name(entry: str) -> str:
    """The name of a folder's entry as text, also if its bytes are not UTF-8."""
    try:
        entry.encode()
    except UnicodeEncodeError:  # undecodable bytes, which Python keeps as surrogates
        (entry,) = decode_names([os.fsencode(entry)])
    return unicodedata.normalize("NFC", entry)
