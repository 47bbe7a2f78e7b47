"""Tensors in safetensors files with one JSON record, written atomically. Never a pickle."""

import errno
import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from db.errors import BadInput, NonFinite
from worker.files import durable_rename

# safetensors writes several metadata keys in random order; one key keeps equal files equal
ABOUT = "genmill"
# what the system says of a file itself; anything else is said of this machine at this moment
OF_THE_FILE = frozenset(
    {
        errno.ENOENT,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.EACCES,
        errno.EPERM,
        errno.ELOOP,
        errno.ENAMETOOLONG,
        errno.EINVAL,
        errno.ENXIO,
        errno.ENODEV,
    }
)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], *, about: Mapping[str, Any]) -> None:
    """Write `tensors` and the JSON record `about` to `path`, whole or not at all.

    Raises `NonFinite` naming the first tensor that holds a NaN or an infinity, and `OSError` where
    the disk is full.
    """
    for name, tensor in tensors.items():
        require_finite(name, tensor)
    plain = _apart(tensors)
    record = json.dumps(about, sort_keys=True, separators=(",", ":"))
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        _save(temporary, plain, record)
        with safe_open(temporary, framework="pt", device="cpu") as file:
            whole = (file.metadata() or {}).get(ABOUT) == record
            same = all(torch.equal(file.get_tensor(name), plain[name]) for name in plain)
        if not (whole and same):
            raise OSError(f"{path} does not read back as it was written; check the disk")
        durable_rename(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def copy_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies on the CPU, each with memory of its own."""
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `write_tensors` wrote, onto the CPU; `about` is empty for a file from elsewhere.

    Raises `BadInput` where the file is damaged or is not safetensors, and `OSError` where this
    machine cannot read it now, for want of memory for example.
    """
    try:
        with _as_os_error(path), safe_open(path, framework="pt", device="cpu") as file:
            about: dict[str, Any] = json.loads((file.metadata() or {}).get(ABOUT, "{}"))
            return {name: file.get_tensor(name) for name in file.keys()}, about  # noqa: SIM118 - not a dict
    except OSError as error:
        if error.errno not in OF_THE_FILE:
            raise
        raise _unreadable(path, error) from None
    except (SafetensorError, ValueError) as error:
        raise _unreadable(path, error) from None


def require_finite(name: str, tensor: Tensor) -> None:
    """Raise `NonFinite` naming `name` where `tensor` holds a NaN or an infinity."""
    if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
        raise NonFinite(f"{name} holds NaN or infinite numbers, so nothing was written")


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors on the CPU; copies of those that share memory, which safetensors refuses."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    users = Counter(tensor.untyped_storage().data_ptr() for tensor in plain.values())
    return {
        name: tensor.clone() if users[tensor.untyped_storage().data_ptr()] > 1 else tensor
        for name, tensor in plain.items()
    }


def _save(path: Path, tensors: dict[str, Tensor], record: str) -> None:
    with _as_os_error(path):
        save_file(tensors, path, metadata={ABOUT: record})


def _unreadable(path: Path, error: Exception) -> BadInput:
    return BadInput(f"{path.name} cannot be read as safetensors: {error}")


@contextmanager
def _as_os_error(path: Path) -> Iterator[None]:
    """Raise the system's error in place of the library's, of which only the text holds it."""
    try:
        yield
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error
