"""A version's folder: `config.json`, the weights, and the files that the family keeps.

`config.json` is Genmill's record (`genmill`, the format; `family`, `params`, `shape`), or another
library's own configuration with that record under `genmill`. No torch here.
"""

import json
from pathlib import Path
from typing import Any

from db.errors import BadInput, NotSupportedHere
from db.path_errors import reading

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
WEIGHTS_SUFFIX = ".safetensors"
FORMAT = 1  # of the record
MAX_SMALL_BYTES = 64 << 20  # of a file that is not weights
RECORD = {"genmill": int, "family": str, "params": dict, "shape": dict}

Config = dict[str, Any]


def read_small(path: Path) -> str:
    """A text file of at most `MAX_SMALL_BYTES`; `BadInput` where it is larger or not UTF-8."""
    try:
        with reading(path):
            if path.stat().st_size <= MAX_SMALL_BYTES:
                return path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: cannot be read as UTF-8 text ({error})") from None
    raise BadInput(
        f"{path}: larger than {MAX_SMALL_BYTES:,} bytes, the most of a file without weights"
    )


def read_json(path: Path) -> Config:
    """A JSON object from a small file; `BadInput` where it holds anything else."""
    try:
        data = json.loads(read_small(path))
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path}: not JSON ({error})") from None
    if not isinstance(data, dict):
        raise BadInput(f"{path}: not a JSON object")
    return data


def read_weight_map(path: Path) -> dict[str, str]:
    """The file of each tensor, by an index of safetensors files; `BadInput` where it has none."""
    found = read_json(path).get("weight_map")
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found.values()):
        raise BadInput(f"{path}: no weight_map of tensors to files", remedy="download it again")
    return found


def own_record(config: Config) -> Config:
    """Genmill's record in a `config.json`: all of it, or what lies under `genmill`."""
    inner = config.get("genmill")
    return inner if isinstance(inner, dict) else config


def read_record(folder: Path) -> Config:
    """Genmill's record of a version's folder; `BadInput` where it is incomplete or unknown."""
    record = own_record(read_json(folder / CONFIG))
    for key, kind in RECORD.items():
        if not isinstance(record.get(key), kind):
            raise BadInput(f"{folder / CONFIG}: no {key!r} of type {kind.__name__}")
    if record["genmill"] != FORMAT:
        raise NotSupportedHere(
            f"{folder / CONFIG} has format {record['genmill']}, but this Genmill reads {FORMAT}",
            remedy="install a Genmill that reads it",
        )
    return record
