"""Checks a model's folder before any of it is stored.

A folder comes from strangers: weights are safetensors or nothing, pickles are never opened, code is
never run, and files that the family does not declare are not imported. The folder is one that
Genmill exported, or another library's whose layout a family declares.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from db.errors import BadInput
from worker.families import families, find_family
from worker.files import digest_of
from worker.networks.family import Family, ForeignLayout
from worker.networks.params import TrainingParams
from worker.networks.version_folder import (
    CONFIG,
    FORMAT,
    WEIGHTS,
    WEIGHTS_SUFFIX,
    Config,
    own_record,
    read_json,
    read_record,
    read_small,
)
from worker.specs import parse_params

SUMS = "SHA256SUMS"  # of the other files as they were exported, in the form of sha256sum
MAX_HEADER_BYTES = 100 << 20
PICKLES = {".bin", ".pt", ".pth", ".ckpt"}
COPY_AGAIN = "copy or export the whole folder again"


@dataclass(frozen=True)
class ModelFolder:
    """A folder that can be imported: its family, its `config.json`, and its other files' names."""

    folder: Path
    family: Family
    layout: ForeignLayout | None  # another library's; None: Genmill's own
    config: Config
    names: list[str]

    def version_config(self, digests: Mapping[str, str]) -> tuple[str, TrainingParams]:
        """`config.json` as the version keeps it, and the parameters in it.

        In another library's folder Genmill's record is added. `digests` are the SHA-256s of the
        other files by name.
        """
        path = self.folder / CONFIG
        if self.layout is None:
            return read_small(path), _params(path, self.family, own_record(self.config))
        described = self.layout.record(self.folder, self.config, digests)
        params = _params(path, self.family, described)
        record = described | {
            "genmill": FORMAT,
            "family": self.family.name,
            "params": params.model_dump(mode="json"),
        }
        text = json.dumps({**self.config, "genmill": record}, indent=2, ensure_ascii=False)
        return text + "\n", params


def check_folder(folder: Path) -> ModelFolder:
    """Check a model's folder; `BadInput` if it is not one, `NotFound` for an unknown family."""
    path = folder / CONFIG
    if not path.is_file():
        raise BadInput(f"{folder}: no {CONFIG}", remedy=_remedy())
    config = read_json(path)
    family, layout = _family_of(folder, config)
    if layout:
        names = layout.files(folder, config)
    else:
        params = _params(path, family, own_record(config))
        names = [WEIGHTS, *(file.name for file in family.files if file.needed(params))]
    for name in names:
        if name.endswith(WEIGHTS_SUFFIX):
            check_weights(folder / name)
        elif not (folder / name).is_file():
            raise BadInput(f"{folder}: no {name}", remedy=COPY_AGAIN)
    check_sums(folder)
    return ModelFolder(folder, family, layout, config, names)


def check_weights(path: Path) -> None:
    """Refuse what is not a safetensors file: the header must parse and account for every byte."""
    if not path.is_file():
        pickles = [each.name for each in path.parent.iterdir() if each.suffix in PICKLES]
        if not pickles:
            raise BadInput(f"{path.parent}: no {path.name}", remedy=COPY_AGAIN)
        raise BadInput(
            f"{path.parent}: no {path.name}, and {pickles[0]} may run code when opened and is "
            "never read",
            remedy="save the weights as safetensors",
        )
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
        raise BadInput(f"{path}: the safetensors header is damaged", remedy=COPY_AGAIN) from None
    if end != size - 8 - length:
        raise BadInput(
            f"{path}: {size - 8 - length} bytes of tensors, but the header says {end}",
            remedy=COPY_AGAIN,
        )


def check_sums(folder: Path) -> None:
    """Refuse a file that differs from the folder's `SHA256SUMS`, where there is one."""
    path = folder / SUMS
    if not path.is_file():
        return
    for line in read_small(path).splitlines():
        found = re.fullmatch(r"([0-9a-f]{64}) [ *]([^/\\\0]+)", line)
        if found is None:
            raise BadInput(
                f"{path}: {line[:80]!r} is not a SHA-256 and the name of a file beside it",
                remedy=f"copy the folder again, or remove {SUMS}",
            )
        sha256, name = found.groups()
        if not (folder / name).is_file() or digest_of(folder / name) != sha256:
            raise BadInput(
                f"{folder / name}: not the file of SHA-256 {sha256} that {SUMS} lists",
                remedy=f"copy the folder again, or remove {SUMS} if the change is intended",
            )


def _family_of(folder: Path, config: Config) -> tuple[Family, ForeignLayout | None]:
    """The family that a `config.json` records or belongs to, with the layout of its folder."""
    foreign = [(family, layout) for family in families().values() if (layout := family.layout())]
    recorded = own_record(config).get("family")
    found = [each for each in foreign if each[0].name == recorded]
    found += [each for each in foreign if each[1].recognises(config)]
    if found:
        return found[0]
    if "genmill" not in config:
        marks = " and ".join(f"no {layout.config_key!r}" for _, layout in foreign)
        raise BadInput(f"{folder / CONFIG}: no 'genmill' and {marks}", remedy=_remedy())
    return find_family(read_record(folder)["family"]), None


def _remedy() -> str:
    libraries = [family.foreign for family in families().values() if family.foreign]
    return f"give a folder that {' or '.join(['`genmill model export`', *libraries])} wrote"


def _params(path: Path, family: Family, record: Config) -> TrainingParams:
    return parse_params(family.params, record["params"], what=f"{path} of {family.name}")
