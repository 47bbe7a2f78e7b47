"""Safetensors files by their headers: what is in them, without reading a tensor. No torch here."""

import json
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open

from db.errors import BadInput
from db.path_errors import reading
from worker.networks.version_folder import read_weight_map

COPY_AGAIN = "copy or export the whole folder again"
MAX_HEADER_BYTES = 100 << 20

Finding = tuple[str, str]  # what a file is, and the remedy

CONVERT = (
    "convert it where you trust the file: AutoModelForCausalLM.from_pretrained(DIR)"
    ".save_pretrained(NEW) of transformers writes safetensors"
)
GGUF: Finding = (
    "a GGUF file of llama.cpp, which holds quantised weights",
    "import the model's safetensors in full precision",
)
PLACEHOLDER: Finding = (
    "a Git LFS placeholder",
    "fetch the file itself with `git lfs pull` in its folder",
)
WEB_PAGE: Finding = ("a web page", "download the file itself; the site may want a login")
# by how a file begins
BEGINNINGS: dict[bytes, Finding] = {
    b"version https://git-lfs": PLACEHOLDER,
    b"# xet version": ("a Xet placeholder", "download the file itself with `hf download`"),
    b"<!DOCTYPE": WEB_PAGE,
    b"<!doctype": WEB_PAGE,
    b"<html": WEB_PAGE,
    b"GGUF": GGUF,
    b"PK\x03\x04": ("a pickle of PyTorch or another zip", CONVERT),
    b"\x80\x02": ("a pickle, which may run code when opened and is never read", CONVERT),
    b"\x80\x04": ("a pickle, which may run code when opened and is never read", CONVERT),
    b"\x89HDF": ("an HDF5 file of Keras", "import the model's safetensors"),
}


def what_it_is(path: Path) -> Finding | None:
    """What a file is by its beginning, if that is known and not what a model has."""
    with reading(path), path.open("rb") as file:
        begin = file.read(64).lstrip()
    return next((found for mark, found in BEGINNINGS.items() if begin.startswith(mark)), None)


def read_types(path: Path) -> dict[str, str]:
    """The type of each tensor of a safetensors file.

    Raises `BadInput` unless the header parses and accounts for every byte.
    """
    if known := what_it_is(path):
        what, remedy = known
        raise BadInput(f"{path}: not a safetensors file but {what}", remedy=remedy)
    size = path.stat().st_size
    header = raw_header(path)
    try:
        tensors = {k: v for k, v in json.loads(header).items() if k != "__metadata__"}
        end = max((entry["data_offsets"][1] for entry in tensors.values()), default=0)
        if (stored := size - 8 - len(header)) != end:
            cut = "the file was not downloaded or copied to its end: " if stored < end else ""
            raise BadInput(
                f"{path}: {cut}{stored} bytes of tensors, but the header says {end}",
                remedy="download it again" if cut else COPY_AGAIN,
            )
        with safe_open(path, framework="np") as file:  # checks types, shapes and offsets
            return {name: file.get_slice(name).get_dtype() for name in tensors}
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError, SafetensorError):
        raise BadInput(f"{path}: the safetensors header is damaged", remedy=COPY_AGAIN) from None
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error})") from None


def raw_header(path: Path) -> bytes:
    """The header of a safetensors file, as JSON; `BadInput` where there is none."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or not 2 <= length <= min(MAX_HEADER_BYTES, size - 8):
            raise BadInput(f"{path}: not a safetensors file", remedy=COPY_AGAIN)
        return file.read(length)


def check_index(path: Path, files: Mapping[str, Mapping[str, str]]) -> None:
    """Refuse an index that names a tensor which is not in its file, or leaves one out.

    `files` are the types of each file's tensors.
    """
    listed = read_weight_map(path)
    for tensor, name in listed.items():
        if name in files and tensor not in files[name]:
            raise BadInput(
                f"{path}: {tensor} should be in {name}, but is not", remedy="download both again"
            )
    shards = set(listed.values())
    for name in shards & files.keys():
        if unlisted := files[name].keys() - listed.keys():
            raise BadInput(
                f"{path}: {name} holds {min(unlisted)}, which is not listed",
                remedy="download both again",
            )
