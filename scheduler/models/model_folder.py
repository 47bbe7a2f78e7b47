"""What a model's folder holds, checked before anything of it is stored.

A folder comes from strangers: weights are safetensors or nothing, pickles are never opened, code is
never run. It is one that Genmill exported, or a causal language model of transformers.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from db.errors import BadInput
from worker.families import find_family, own_record
from worker.families.hf.folder import files_of, record
from worker.files import digest_of
from worker.specs import parse_params

WEIGHTS = "model.safetensors"
SUFFIX = ".safetensors"
CONFIG = "config.json"
SUMS = "SHA256SUMS"  # of the other files as they were exported, in the form of sha256sum
# what a family may keep beside its weights
OTHERS = ("captions.json", "sounds.json", "tokenizer.json")
MAX_HEADER_BYTES = 100 << 20
MAX_SMALL_BYTES = 64 << 20  # of the files that are not weights

Config = dict[str, Any]


@dataclass(frozen=True)
class ModelFolder:
    """A folder that can be taken in: its `config.json`, and the names of its other files."""

    folder: Path
    config: Config
    names: list[str]

    def recorded(self, digests: Mapping[str, str]) -> bytes:
        """`config.json` as a version keeps it: with Genmill's record, in a model of transformers.

        `digests` are the SHA-256s of the other files by name.
        """
        if not _is_foreign(self.config):
            return (self.folder / CONFIG).read_bytes()
        config = {**self.config, "genmill": record(self.folder, self.config, digests)}
        return (json.dumps(config, indent=2, ensure_ascii=False) + "\n").encode()


def open_folder(folder: Path) -> ModelFolder:
    """Check a model's folder; `BadInput` where it is none, `NotFound` for an unknown family."""
    config = read_config(folder)
    if _is_foreign(config):
        names = files_of(folder, config)
    else:
        family = find_family(config["family"])
        parse_params(family.params, config["params"], what=f"{CONFIG} of {family.name}")
        names = [WEIGHTS, *(name for name in OTHERS if (folder / name).is_file())]
    for name in names:
        if name.endswith(SUFFIX):
            check_weights(folder / name)
    check_sums(folder)
    return ModelFolder(folder, config, names)


def read_config(folder: Path) -> Config:
    """The `config.json` of a folder; `BadInput` where neither Genmill nor transformers wrote it."""
    path = folder / CONFIG
    if not path.is_file():
        raise BadInput(
            f"{folder}: no {CONFIG}; a folder that `genmill model export` or transformers' "
            "save_pretrained wrote has one"
        )
    try:
        config = json.loads(_read_small(path))
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path}: not JSON ({error})") from None
    if isinstance(config, dict) and _is_foreign(config):
        return dict(config)
    wanted = {"genmill": int, "family": str, "params": dict, "shape": dict}
    for key, kind in wanted.items():
        if not isinstance(config, dict) or not isinstance(config.get(key), kind):
            raise BadInput(
                f"{path}: no {key!r} of kind {kind.__name__}; Genmill did not write it, nor did "
                "transformers, whose models have a model_type"
            )
    return dict(config)


def check_weights(path: Path) -> None:
    """Refuse what is no safetensors file: the header must parse and account for every byte."""
    if not path.is_file():
        others = [
            each.name
            for each in path.parent.iterdir()
            if each.suffix in {".bin", ".pt", ".pth", ".ckpt"}
        ]
        hint = f"; {others[0]} may run code when opened and is never read" if others else ""
        raise BadInput(f"{path.parent}: no {path.name}{hint}")
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or not 2 <= length <= min(MAX_HEADER_BYTES, size - 8):
            raise BadInput(f"{path}: not a safetensors file")
        header = file.read(length)
    try:
        tensors = {k: v for k, v in json.loads(header).items() if k != "__metadata__"}
        end = max((entry["data_offsets"][1] for entry in tensors.values()), default=0)
    except (ValueError, AttributeError, KeyError, TypeError, IndexError, RecursionError):
        raise BadInput(f"{path}: the safetensors header is damaged") from None
    if end != size - 8 - length:
        raise BadInput(f"{path}: {size - 8 - length} bytes of tensors, the header says {end}")


def check_sums(folder: Path) -> None:
    """Refuse a file that is not as the folder's `SHA256SUMS` has it, where there is one."""
    path = folder / SUMS
    if not path.is_file():
        return
    for line in _read_small(path).splitlines():
        found = re.fullmatch(r"([0-9a-f]{64}) [ *]([^/\\\0]+)", line)
        if found is None:
            raise BadInput(
                f"{path}: {line[:80]!r} is no SHA-256 with the name of a file beside it; copy the "
                f"folder again, or remove {SUMS}"
            )
        sha256, name = found.groups()
        if not (folder / name).is_file() or digest_of(folder / name) != sha256:
            raise BadInput(
                f"{folder / name}: not the file that {SUMS} lists, whose SHA-256 is {sha256}; copy "
                f"the folder again, or remove {SUMS} if the change is meant"
            )


def _is_foreign(config: Config) -> bool:
    """Whether transformers' keys are there, Genmill's record among them or not yet."""
    return own_record(config) is not config or bool({"model_type", "auto_map"} & config.keys())


def _read_small(path: Path) -> str:
    if path.stat().st_size > MAX_SMALL_BYTES:
        raise BadInput(f"{path}: larger than {MAX_SMALL_BYTES} bytes")
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: not UTF-8 ({error})") from None
