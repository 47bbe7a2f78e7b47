"""Checks safetensors files by their headers, before anything is stored or loaded.

The header must parse and account for every byte, and its tensors have the names and types of a
model's weights. Whether they are those of the model's architecture is found out by loading it.
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from db.errors import BadInput
from scheduler.models.other_files import refuse_missing
from worker.files import CHUNK, disk_errors
from worker.networks.version_folder import WEIGHTS_SUFFIX, read_weight_map
from worker.networks.weights_header import COPY_AGAIN, check_index, raw_header, read_types

TYPES = {"F64", "F32", "F16", "BF16", "I64", "I32", "BOOL"}  # the others are of quantised weights
INDEX_SUFFIX = ".safetensors.index.json"

# put before or into the names of a whole model's tensors
_INNER = re.compile(
    r"(^|\.)(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|_forward_module)\."
)
_OUTER = ("module.", "base_model.model.")
_LORA = re.compile(r"\.(lora_(A|B|embedding_[AB]|magnitude_vector)|base_layer)\b")


def check_weights(folder: Path, names: Sequence[str]) -> None:
    """Refuse what are not the weights of one model, in one safetensors file or several.

    `names` are the files; `BadInput` says what is wrong with the first that is not right.
    """
    files = {name: _header(folder / name) for name in names if name.endswith(WEIGHTS_SUFFIX)}
    for name, tensors in files.items():
        _refuse_types(folder / name, tensors)
    for name in names:
        if name.endswith(INDEX_SUFFIX):
            check_index(folder / name, files)
    base = {
        tensor: name for name, some in files.items() if not _is_adapter(name) for tensor in some
    }
    _refuse_wrapped(folder, base)


@contextmanager
def unwrapped(folder: Path) -> Iterator[Path]:
    """The folder with the names that wrappers gave to its tensors taken off, as a temporary one."""
    with TemporaryDirectory(prefix="genmill-") as made, disk_errors(Path(made)):
        for path in folder.iterdir():
            copy = Path(made) / path.name
            if path.name.endswith(INDEX_SUFFIX):
                _rename_index(path, copy)
            elif _is_wrapped(path):
                _rename_tensors(path, copy)
            else:
                copy.symlink_to(path.resolve())
        yield Path(made)


def _header(path: Path) -> dict[str, str]:
    """The type of each tensor of a safetensors file, whose header accounts for every byte."""
    if not path.is_file():
        refuse_missing(path, remedy=COPY_AGAIN)
    return read_types(path)


def _refuse_types(path: Path, tensors: dict[str, str]) -> None:
    for name, kind in tensors.items():
        if kind not in TYPES:
            raise BadInput(
                f"{path}: the weights are quantised ({name} is of type {kind})",
                remedy="import the model in full precision",
            )


def _refuse_wrapped(folder: Path, tensors: dict[str, str]) -> None:
    """Refuse tensors that bear the names of a wrapper around the model."""
    if lora := next((name for name in tensors if _LORA.search(name)), None):
        raise BadInput(
            f"{folder / tensors[lora]}: an adapter's tensors among the model's ({lora})",
            remedy="save the model after merge_and_unload() of peft, or base and adapter apart",
        )
    wrapped = {name: plain for name, plain in _plain_names(tensors).items() if name != plain}
    if wrapped:
        first, plain = min(wrapped.items())
        raise BadInput(
            f"{folder / tensors[first]}: {len(wrapped)} tensors bear the names of a wrapper around "
            f"the model ({first}, where {plain} is meant)",
            remedy="import it with --unwrap, or save the model that is inside the wrapper",
        )


def _plain_names(names: Iterable[str]) -> dict[str, str]:
    """Each name without those of wrappers, by the name as it is."""
    plain = {name: _INNER.sub(r"\1", name) for name in names}
    while plain and (outer := _outer_of(plain.values())):
        plain = {name: inner.removeprefix(outer) for name, inner in plain.items()}
    if len(set(plain.values())) < len(plain):
        raise BadInput("several tensors would have one name without the names of wrappers")
    return plain


def _outer_of(names: Iterable[str]) -> str | None:
    """The wrapper whose name is before every tensor's."""
    known = [*names]
    return next((each for each in _OUTER if all(name.startswith(each) for name in known)), None)


def _is_wrapped(path: Path) -> bool:
    """Whether a file holds a model's tensors under the names of a wrapper."""
    if path.suffix != WEIGHTS_SUFFIX or _is_adapter(path.name):
        return False
    return any(name != plain for name, plain in _plain_names(_header(path)).items())


def _rename_tensors(path: Path, copy: Path) -> None:
    """Copy a safetensors file whose header is right, with plain names."""
    raw = raw_header(path)
    header: dict[str, Any] = json.loads(raw)
    plain = _plain_names(header.keys() - {"__metadata__"})
    renamed = json.dumps({plain.get(name, name): about for name, about in header.items()}).encode()
    renamed += b" " * (-len(renamed) % 8)
    with path.open("rb") as source, copy.open("wb") as target:
        source.seek(8 + len(raw))
        target.write(len(renamed).to_bytes(8, "little") + renamed)
        while chunk := source.read(CHUNK):
            target.write(chunk)


def _rename_index(path: Path, copy: Path) -> None:
    listed = read_weight_map(path)
    plain = _plain_names(listed)
    index = {"weight_map": {plain[name]: file for name, file in listed.items()}}
    copy.write_text(json.dumps(index), "utf-8")


def _is_adapter(name: str) -> bool:
    return name.startswith("adapter_")
