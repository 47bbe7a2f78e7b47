"""Kinds of files that are not taken, by their names: what they are, and what to do instead."""

from itertools import chain
from pathlib import PurePosixPath

UNPACK = "unpack it, and add the folder"
AS_TEXT = "add it with --kind text"
AS_ROWS = 'write its rows to a .jsonl file of lines such as {"text": "..."}'
AS_PNG = "convert it to PNG or JPEG"
AS_SOUND = "extract the sound as WAV or FLAC"

_KINDS: dict[str, tuple[str, str]] = {
    **dict.fromkeys((".md", ".rst", ".markdown"), ("a text with mark-up", AS_TEXT)),
    **dict.fromkeys((".tex", ".log", ".srt", ".vtt", ".abc"), ("a text", AS_TEXT)),
    **dict.fromkeys((".py", ".c", ".js", ".java", ".rs", ".go"), ("source code", AS_TEXT)),
    **dict.fromkeys((".html", ".htm", ".xml"), ("a page with mark-up", "convert it to .txt")),
    **dict.fromkeys((".pdf", ".epub", ".docx", ".doc", ".odt", ".rtf"), (
        "a document", "convert it to .txt")),
    **dict.fromkeys((".csv", ".tsv"), ("a table", AS_ROWS)),
    **dict.fromkeys((".xlsx", ".xls", ".ods"), ("a spreadsheet", AS_ROWS)),
    **dict.fromkeys((".parquet", ".arrow", ".feather"), ("a table of columns", AS_ROWS)),
    **dict.fromkeys((".db", ".sqlite", ".sqlite3"), ("a database", AS_ROWS)),
    **dict.fromkeys((".yaml", ".yml", ".toml"), ("a settings file", AS_ROWS)),
    **dict.fromkeys((".tif", ".tiff", ".heic", ".heif", ".avif", ".jp2", ".psd", ".ico", ".svg",
                     ".tga", ".ppm", ".pgm", ".exr", ".dng", ".cr2", ".nef"), (
        "an image of a format that is not taken", AS_PNG)),
    **dict.fromkeys((".npy", ".npz", ".mat", ".h5", ".hdf5", ".pkl", ".pickle", ".pt"), (
        "a file of arrays", "write the items as PNG, WAV or text files")),
    **dict.fromkeys((".m4a", ".aac", ".wma", ".amr", ".ape", ".wv"), (
        "a sound of a format that is not taken", "convert it to WAV or FLAC")),
    **dict.fromkeys((".mp4", ".mov", ".avi", ".mkv", ".webm"), (
        "a video", f"extract its frames as PNG, or {AS_SOUND}")),
    **dict.fromkeys((".xml.gz", ".musicxml", ".mxl", ".mscz", ".gp5"), (
        "a score", "save it as MIDI")),
    **dict.fromkeys((".rar", ".7z", ".ace", ".cab", ".iso", ".dmg", ".lzh"), (
        "an archive of a format that is not taken", UNPACK)),
    **dict.fromkeys((".z01", ".z02", ".001", ".002", ".r00", ".r01"), (
        "one part of an archive that was split", "join the parts and unpack them")),
    **dict.fromkeys((".safetensors", ".gguf", ".ckpt", ".onnx"), (
        "a model's weights", "import them with genmill model import")),
    **dict.fromkeys((".tfrecord", ".tfrecords", ".lmdb", ".beton"), (
        "a file of training records", "write the items as PNG, WAV or text files")),
}  # fmt: skip
_ARCHIVES = {".zip", ".tar", ".tgz", ".tbz2", ".txz", ".tzst", ".gz", ".bz2", ".xz", ".zst"}

_MARKS = {
    b"%PDF": ("a PDF document", "convert it to .txt"),
    b"7z\xbc\xaf": ("a 7z archive", UNPACK),
    b"Rar!": ("a RAR archive", UNPACK),
    b"PAR1": ("a Parquet table", AS_ROWS),
    b"SQLi": ("an SQLite database", AS_ROWS),
    b"version https://git-lfs": ("a Git LFS placeholder", "fetch the file with git lfs pull"),
    b"<!DOCTYPE html": ("a web page", "check what the download gave"),
    b"<html": ("a web page", "check what the download gave"),
    b"II*\0": ("a TIFF image", AS_PNG),
    b"MM\0*": ("a TIFF image", AS_PNG),
    b"8BPS": ("a Photoshop image", AS_PNG),
}
# by what stands after a length of four bytes, in the files of ISO 14496-12
_BRANDS = {
    b"ftyphei": ("a HEIC image, as iPhones save them", AS_PNG),
    b"ftypmif": ("a HEIF image", AS_PNG),
    b"ftypavif": ("an AVIF image", AS_PNG),
    b"ftypM4A": ("an M4A sound", "convert it to WAV or FLAC"),
    b"ftyp": ("a video", f"extract its frames as PNG, or {AS_SOUND}"),
}


def describe_name(name: str) -> tuple[str, str] | None:
    """What a file with this name or suffix is, and what to do with it; None if it is not known."""
    suffix = name.lower() if name.startswith(".") else PurePosixPath(name).suffix.lower()
    if suffix in _ARCHIVES:
        return "an archive in the folder or archive", "unpack it there"
    return _KINDS.get(suffix)


def describe_head(head: bytes) -> tuple[str, str] | None:
    """What a file with these first bytes is, and what to do with it; None if it is not known."""
    found = (kind for mark, kind in _MARKS.items() if head.startswith(mark))
    boxed = (kind for mark, kind in _BRANDS.items() if head[4:].startswith(mark))
    return next(chain(found, boxed), None)
