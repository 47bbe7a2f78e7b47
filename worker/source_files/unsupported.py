"""A file of a kind that is not taken: what it is, judged by its name and content."""

from pathlib import Path

from worker.source_files.kinds import AS_ROWS, UNPACK, describe_name
from worker.source_files.tars import compression_of

_MARKS = {
    b"%PDF": ("a PDF document", "convert it to .txt"),
    b"7z\xbc\xaf": ("a 7z archive", UNPACK),
    b"Rar!": ("a RAR archive", UNPACK),
    b"PAR1": ("a Parquet table", AS_ROWS),
    b"SQLi": ("an SQLite database", AS_ROWS),
    b"version https://git-lfs": ("a Git LFS placeholder", "fetch the file with git lfs pull"),
    b"<!DOCTYPE html": ("a web page", "check what the download gave"),
    b"<html": ("a web page", "check what the download gave"),
}


def describe_unsupported(path: Path) -> tuple[str, str] | None:
    """What a file is, judged by its name and first bytes, and what to do; None if not known."""
    with path.open("rb") as file:
        head = file.read(64)
    if not head:
        return "an empty file", "check what wrote it"
    for mark, kind in _MARKS.items():
        if head.startswith(mark):
            return kind
    if packer := compression_of(path):
        return f"a file compressed by {packer}, no archive of several", "unpack it first"
    if path.suffix.lower() in {".zip", ".tar", ".tgz"}:
        what = path.suffix.lower().removeprefix(".")
        return f"not a {what} file, or cut short", "download or pack it again"
    return describe_name(path.name)
