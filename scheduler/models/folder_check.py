"""Checks a model's folder before any of it is stored.

A folder comes from strangers: weights are safetensors or nothing, pickles are never opened, code is
never run, and files that the family does not declare are not imported. The folder is one that
Genmill exported, or another library's whose layout a family declares.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from db.errors import BadInput
from scheduler.models.other_files import (
    refuse_missing,
    refuse_placeholders,
    refuse_unknown_folder,
)
from scheduler.models.weights_check import check_weights
from worker.families import families, find_family
from worker.files import digest_of, disk_errors
from worker.networks.family import Family, ForeignLayout
from worker.networks.inspection import Inspection
from worker.networks.params import TrainingParams
from worker.networks.version_folder import (
    CONFIG,
    WEIGHTS,
    WEIGHTS_SUFFIX,
    Config,
    format_of,
    new_record,
    own_record,
    read_json,
    read_record,
    read_small,
    refuse_newer,
)
from worker.networks.weights_header import COPY_AGAIN
from worker.specs import parse_params

SUMS = "SHA256SUMS"  # of the other files as they were exported, in the form of sha256sum


@dataclass(frozen=True)
class ModelFolder:
    """A folder that can be imported: its family, its `config.json`, and its other files' names."""

    folder: Path
    family: Family
    layout: ForeignLayout | None  # another library's; None: Genmill's own
    config: Config
    names: list[str]

    def version_config(
        self, digests: Mapping[str, str], found: Inspection | None = None
    ) -> tuple[str, TrainingParams]:
        """`config.json` as the version keeps it, and the parameters in it.

        In another library's folder Genmill's record is added, with what an inspection found.
        `digests` are the SHA-256s of the other files by name.
        """
        path = self.folder / CONFIG
        what = f"{path} of {self.family.name}"
        if self.layout is None:
            record = own_record(self.config)
            return read_small(path), self.family.read_params(record, what=what)
        described = self.layout.record(self.folder, self._with_settings_of_today(what), digests)
        if found:
            described |= found.record
            described["params"] = found.defaults | described["params"] | found.params
        params = parse_params(self.family.params, described["params"], what=what)
        record = described | new_record(
            family=self.family.name,
            number=self.family.format,
            params=params.model_dump(mode="json"),
            shape=described["shape"],
        )
        return json.dumps({**self.config, "genmill": record}, indent=2) + "\n", params

    def _with_settings_of_today(self, what: str) -> Config:
        """The configuration; if a version was exported, its parameters are in today's format."""
        earlier = self.config.get("genmill")
        if not isinstance(earlier, dict) or not isinstance(earlier.get("params"), dict):
            return self.config
        refuse_newer(earlier, what)
        params = self.family.training_settings(earlier["params"], format_of(earlier), what=what)
        return {**self.config, "genmill": {**earlier, "params": params}}

    @contextmanager
    def as_version(self, digests: Mapping[str, str]) -> Iterator[Path]:
        """A temporary folder with the files of the version as it is before an inspection."""
        with TemporaryDirectory(prefix="genmill-") as made, disk_errors(Path(made)):
            for name in self.names:
                (Path(made) / name).symlink_to((self.folder / name).resolve())
            (Path(made) / CONFIG).write_text(self.version_config(digests)[0], "utf-8")
            yield Path(made)


def check_folder(folder: Path) -> ModelFolder:
    """Check a model's folder; `BadInput` if it is not one, `NotFound` for an unknown family."""
    path = folder / CONFIG
    if not path.is_file():
        refuse_unknown_folder(folder, remedy=_remedy())
    refuse_placeholders(folder, sorted(each.name for each in folder.glob("*.json")))
    config = read_json(path)
    family, layout = _family_of(folder, config)
    if layout:
        names = layout.files(folder, config)
    else:
        params = family.read_params(own_record(config), what=f"{path} of {family.name}")
        names = [WEIGHTS, *(file.name for file in family.files if file.needed(params))]
    for name in names:
        if not (folder / name).is_file():
            refuse_missing(folder / name, remedy=COPY_AGAIN)
    _check_small(folder, [name for name in names if not name.endswith(WEIGHTS_SUFFIX)])
    check_weights(folder, names)
    check_sums(folder)
    return ModelFolder(folder, family, layout, config, names)


def _check_small(folder: Path, names: Sequence[str]) -> None:
    """Refuse files other than weights that are not what their names say."""
    refuse_placeholders(folder, names)
    for name in names:
        if name.endswith(".json"):
            read_json(folder / name)
        elif name.endswith((".txt", ".jinja")):
            read_small(folder / name)


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
