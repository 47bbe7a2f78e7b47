"""Merging an adapter into its base's weights with numpy: W + (alpha / rank) B A. No torch here.

Sums are computed in float32 and rounded to the type of the base's file. Files are changed in place,
and memory never holds more than one tensor.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from db.errors import Refused
from worker.families.hf.folder import ADAPTER_CONFIG, ADAPTER_WEIGHTS, weight_files
from worker.networks.version_folder import CONFIG, read_json

Array = npt.NDArray[Any]

PREFIX = "base_model.model."
A, B = ".lora_A.weight", ".lora_B.weight"
_TYPES = {"F32": np.float32, "F16": np.float16, "BF16": np.uint16}  # numpy has no bfloat16


@dataclass(frozen=True)
class StoredTensor:
    """A tensor's type, shape and place in a safetensors file."""

    path: Path
    dtype: str
    shape: tuple[int, ...]
    start: int

    def map(self, mode: Any = "r") -> Array:
        """Map the tensor from the file; bfloat16 as its 16 bits."""
        if self.dtype not in _TYPES:
            raise Refused(
                f"{self.path.name}: a tensor of type {self.dtype} cannot be merged, only "
                f"{', '.join(_TYPES)} can",
                remedy="export without --merge",
            )
        kind = _TYPES[self.dtype]
        return np.memmap(self.path, kind, mode=mode, offset=self.start, shape=self.shape)


def merge(folder: Path) -> None:
    """Merge the adapter of an exported folder into its base, leaving a plain transformers model.

    Raises `Refused` where the base's files lack a layer of the adapter.
    """
    config = read_json(folder / ADAPTER_CONFIG)
    adapter = stored_tensors(folder / ADAPTER_WEIGHTS)
    base = {k: v for name in weight_files(folder) for k, v in stored_tensors(folder / name).items()}
    layers = sorted(name.removesuffix(A) for name in adapter if name.endswith(A))
    pairs = [(base[_find(layer, base)], adapter[layer + A], adapter[layer + B]) for layer in layers]
    scale = float(config["lora_alpha"]) / int(config["r"])
    transposed = bool(config.get("fan_in_fan_out")) or any(_is_transposed(*pair) for pair in pairs)
    for target, a, b in pairs:
        change = scale * (_floats(b) @ _floats(a))
        _add(target, change.T if transposed else change)
    plain = {key: value for key, value in read_json(folder / CONFIG).items() if key != "genmill"}
    (folder / CONFIG).write_text(json.dumps(plain, indent=2, ensure_ascii=False) + "\n", "utf-8")
    for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS):
        (folder / name).unlink()


def stored_tensors(path: Path) -> dict[str, StoredTensor]:
    """The tensors of a safetensors file by name; only its header is read."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header: dict[str, Any] = json.loads(file.read(length))
    header.pop("__metadata__", None)
    return {
        name: StoredTensor(
            path, about["dtype"], tuple(about["shape"]), 8 + length + about["data_offsets"][0]
        )
        for name, about in header.items()
    }


def _find(layer: str, base: Mapping[str, StoredTensor]) -> str:
    """The base's name of an adapted layer's matrix, whose prefix there may differ in length."""
    wanted = f"{layer.removeprefix(PREFIX)}.weight"
    if wanted in base:
        return wanted
    near = [name for name in base if wanted.endswith(f".{name}") or name.endswith(f".{wanted}")]
    if len(near) != 1:
        raise Refused(
            f"the base's files have no tensor {wanted!r}", remedy="export without --merge"
        )
    return near[0]


def _is_transposed(target: StoredTensor, a: StoredTensor, b: StoredTensor) -> bool:
    """Whether the base stores this matrix as (in, out), as GPT-2 does, not as (out, in)."""
    change = (b.shape[0], a.shape[1])
    if math.prod(target.shape) != math.prod(change) or sorted(target.shape) != sorted(change):
        raise Refused(
            f"the adapter changes a matrix of shape {change}, but the base's is {target.shape}",
            remedy="export without --merge",
        )
    return target.shape != change


def _floats(place: StoredTensor) -> npt.NDArray[np.float32]:
    stored = place.map()
    if place.dtype == "BF16":
        return (stored.astype(np.uint32) << 16).view(np.float32)
    return stored.astype(np.float32)


def _add(place: StoredTensor, change: npt.NDArray[np.float32]) -> None:
    total: Array = _floats(place) + change
    if place.dtype == "BF16":  # rounded to nearest, ties to even; values are finite
        bits = np.ascontiguousarray(total).view(np.uint32)
        total = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    stored = place.map("r+")
    stored[:] = total
    stored.flush()  # type: ignore[attr-defined]  # numpy's annotation of memmap is an array's
