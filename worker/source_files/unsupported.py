"""A file of a kind that is not taken: what it is, judged by its name and content."""

from pathlib import Path

from worker.source_files.kinds import describe_head, describe_name
from worker.source_files.tars import compression_of


def describe_unsupported(path: Path) -> tuple[str, str] | None:
    """What a file is, judged by its name and first bytes, and what to do; None if not known."""
    with path.open("rb") as file:
        head = file.read(64)
    if not head:
        return "an empty file", "check what wrote it"
    if kind := describe_head(head):
        return kind
    if packer := compression_of(path):
        return f"a file compressed by {packer}, no archive of several", "unpack it first"
    if path.suffix.lower() in {".zip", ".tar", ".tgz"}:
        what = path.suffix.lower().removeprefix(".")
        return f"not a {what} file, or cut short", "download or pack it again"
    return describe_name(path.name)
