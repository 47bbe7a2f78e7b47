"""A version's folder: `config.json`, the weights, and the files that the family keeps.

`config.json` is Genmill's record (`genmill`, its own format; `family`, and `format`, the number of
the family's format; `params`, `shape`, `made_by`), or another library's own configuration with that
record under `genmill`. No torch here.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from db.errors import BadInput, NotSupportedHere
from db.path_errors import reading
from worker.code_version import code_version

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
WEIGHTS_SUFFIX = ".safetensors"
FORMAT = 1  # of the record
AGAIN = "download or copy it again"
MAX_SMALL_BYTES = 64 << 20  # of a file that is not weights
RECORD = {"genmill": int, "family": str, "params": dict, "shape": dict}
FAMILY_FORMAT, MADE_BY = "format", "made_by"  # which earlier versions do not have

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
        raise BadInput(f"{path}: not JSON ({error})", remedy=AGAIN) from None
    if not isinstance(data, dict):
        raise BadInput(f"{path}: not a JSON object", remedy=AGAIN)
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


def new_record(
    *, family: str, number: int, params: dict[str, Any], shape: dict[str, Any]
) -> Config:
    """Genmill's record of a version that is made now; `number` is that of the family's format."""
    return {
        "genmill": FORMAT,
        "family": family,
        FAMILY_FORMAT: number,
        "params": params,
        "shape": shape,
        MADE_BY: f"genmill {code_version()}",
    }


def read_record(folder: Path) -> Config:
    """Genmill's record of a version's folder. Raises as `checked_record`."""
    return checked_record(read_json(folder / CONFIG), str(folder / CONFIG))


def checked_record(config: Config, what: str) -> Config:
    """Genmill's record in a `config.json`, which errors call `what`.

    Raises `BadInput` where it is incomplete, and `NotSupportedHere` where it is newer than this
    Genmill.
    """
    record = own_record(config)
    refuse_newer(record, what)
    for key, kind in RECORD.items():
        if not isinstance(record.get(key), kind):
            raise BadInput(f"{what}: no {key!r} of type {kind.__name__}")
    _require_number("genmill", record["genmill"], what)
    format_of(record, what)
    return record


def refuse_newer(record: Config, what: str) -> None:
    """Raise `NotSupportedHere` for a record whose own format is newer than this Genmill's."""
    number: Any = record.get("genmill")
    if _is_number(number) and number > FORMAT:
        raise NotSupportedHere(
            f"{what} was made by a newer genmill: its record has format {number}, and this one "
            f"reads {FORMAT}",
            remedy="upgrade genmill",
        )


def format_of(record: Mapping[str, Any], what: str = CONFIG) -> int:
    """The number of the family's format that a record states; 1 where it states none.

    Raises `BadInput` where it states something else.
    """
    number: int = record.get(FAMILY_FORMAT, 1)
    _require_number(FAMILY_FORMAT, number, what)
    return number


def made_by(record: Mapping[str, Any]) -> str | None:
    """Which Genmill made a version, as in `genmill 0.1.0`; None if its record does not say so."""
    stated = record.get(MADE_BY)
    known = isinstance(stated, str) and re.fullmatch(r"genmill [A-Za-z0-9.+_-]{1,80}", stated)
    return stated if known else None


def _require_number(key: str, stated: object, what: str) -> None:
    if not isinstance(stated, int) or not _is_number(stated) or stated < 1:
        raise BadInput(f"{what}: {key} is {str(stated)[:40]!r}, not the number of a format")


def _is_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
