"""The folder of an image model as the library transformers saves it: its files. No torch here."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from db.errors import BadInput
from db.path_errors import reading, shown
from worker.complaints import as_given
from worker.files import digest_of, weights_digest
from worker.networks.picture_preparation import PREPROCESSOR, Preparation, read_preparation
from worker.networks.version_folder import (
    CONFIG,
    WEIGHTS,
    WEIGHTS_SUFFIX,
    Config,
    read_json,
    read_weight_map,
)
from worker.networks.weights_header import check_index, read_types

INDEX = "model.safetensors.index.json"
REMEDY = "name a folder that save_pretrained of the library transformers wrote"
AGAIN = "download or save it again, weights and config.json together"
OTHER_MODEL = "name a folder of an image model, such as CLIP, DINOv2, ViT or ResNet"
NAMED_BY = 12  # digits of the digest
MAX_NAME = 40 - 1 - NAMED_BY  # characters of the folder's name, of 40 that a recipe may have
_VOCABULARY = "vocab_size"
_OF_PICTURES = re.compile(r"image|vision|visual|pixel|patch|channels")  # in a configuration's keys


@dataclass(frozen=True)
class ImageModel:
    """A folder that has been looked at: its configuration, and how pictures are prepared for it."""

    folder: Path
    config: Config
    preparation: Preparation
    names: tuple[str, ...]  # of the files that count

    @cached_property
    def sha256(self) -> str:
        """The SHA-256 of the files by name. All of them are read."""
        with reading(self.folder):
            return weights_digest({name: digest_of(self.folder / name) for name in self.names})

    @property
    def warning(self) -> str | None:
        """What is assumed of the pictures, because the folder does not say it; None if it does."""
        if not self.preparation.assumed:
            return None
        lacks = "does not say it all" if PREPROCESSOR in self.names else "is missing"
        return (
            f"{shown(self.folder / PREPROCESSOR)} {lacks}; assumed: "
            f"{' and '.join(self.preparation.assumed)}; if that is wrong, put the model's own there"
        )


def recipe_of(folder: str, sha256: str) -> str:
    """The name of judges that are built on a folder of this name and content."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(folder).name).strip("-.")[:MAX_NAME]
    return f"{name or 'judge'}-{sha256[:NAMED_BY]}"


def read_image_model(folder: Path) -> ImageModel:
    """Look at a folder. Raises `BadInput` unless it can be that of an image model.

    The weights' headers are read, and no tensor. Nothing in it is run, and weights are safetensors:
    folders come from strangers.
    """
    with reading(folder):
        if not folder.is_dir():
            raise BadInput(f"{shown(folder)} is no folder", remedy=REMEDY)
        if not (folder / CONFIG).is_file():
            raise BadInput(f"{shown(folder)} has no {CONFIG}", remedy=REMEDY)
        config = read_json(folder / CONFIG)
        _refuse_strange(folder / CONFIG, config)
        weights = _check_weights(folder)
        steps = _read_preprocessor(folder)
        optional = [name for name in (PREPROCESSOR, INDEX) if (folder / name).is_file()]
    try:
        preparation = read_preparation(config, steps)
    except BadInput as error:
        path = shown(folder / PREPROCESSOR)
        raise BadInput(f"{path}: {error.message}", remedy=error.remedy) from None
    return ImageModel(folder, config, preparation, (CONFIG, *optional, *weights))


def _check_weights(folder: Path) -> list[str]:
    """The names of the files of weights; refuse those that are damaged or not all there."""
    names = [path.name for path in folder.glob(f"*{WEIGHTS_SUFFIX}") if path.is_file()]
    index = folder / INDEX
    if WEIGHTS not in names and not index.is_file():
        raise BadInput(f"{shown(folder)} has no {WEIGHTS}", remedy=REMEDY)
    types = {name: read_types(folder / name) for name in sorted(names)}
    if WEIGHTS not in names:
        _refuse_missing(folder, types)
        check_index(index, types)
    return list(types)


def _refuse_missing(folder: Path, found: Mapping[str, object]) -> None:
    """Refuse a folder without a file that the index of its weights names."""
    if missing := sorted(set(read_weight_map(folder / INDEX).values()) - found.keys()):
        raise BadInput(
            f"{shown(folder)} has no {as_given(missing[0])}, which {INDEX} names", remedy=AGAIN
        )


def _read_preprocessor(folder: Path) -> Config:
    path = folder / PREPROCESSOR
    return read_json(path) if path.is_symlink() or path.exists() else {}


def _refuse_strange(path: Path, config: Config) -> None:
    name = shown(path)
    if "auto_map" in config:
        raise BadInput(
            f"{name}: auto_map names code of the model's own, which is never run",
            remedy="use a model that the library transformers has itself",
        )
    if "quantization_config" in config:
        raise BadInput(f"{name}: the weights are quantised", remedy="use those in full precision")
    kind = config.get("model_type")
    if not isinstance(kind, str):
        raise BadInput(
            f"{name}: no model_type, as models of the library transformers have", remedy=REMEDY
        )
    if _VOCABULARY in config and not _speaks_of_pictures({kind: None, **config}):
        raise BadInput(
            f"{name}: a model of type {as_given(kind)} does not look at pictures: it has a "
            "vocabulary, and no size of images",
            remedy=OTHER_MODEL,
        )


def _speaks_of_pictures(config: Config) -> bool:
    inner = (value for value in config.values() if isinstance(value, dict))
    return any(map(_OF_PICTURES.search, config)) or any(map(_speaks_of_pictures, inner))
