"""The folder of an image model as the library transformers saves it: its files. No torch here."""

import re
from dataclasses import dataclass
from pathlib import Path

from db.errors import BadInput
from db.path_errors import reading, shown
from worker.files import digest_of, weights_digest
from worker.networks.version_folder import CONFIG, WEIGHTS_SUFFIX, Config, read_json

PREPROCESSOR = "preprocessor_config.json"
INDEX = "model.safetensors.index.json"
REMEDY = "name a folder that save_pretrained of the library transformers wrote"
NAMED_BY = 12  # digits of the digest
MAX_NAME = 40 - 1 - NAMED_BY  # characters of the folder's name, of 40 that a recipe may have


@dataclass(frozen=True)
class ImageModel:
    """A folder that has been looked at; `sha256` is that of its files by name."""

    folder: Path
    config: Config
    preprocessor: Config  # empty if the folder has none
    sha256: str


def recipe_of(folder: str, sha256: str) -> str:
    """The name of judges that are built on a folder of this name and content."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(folder).name).strip("-.")[:MAX_NAME]
    return f"{name or 'judge'}-{sha256[:NAMED_BY]}"


def read_image_model(folder: Path) -> ImageModel:
    """Look at a folder. Raises `BadInput` unless it holds a model's configuration and weights.

    Nothing in it is run, and weights are safetensors: folders come from strangers.
    """
    with reading(folder):
        if not folder.is_dir():
            raise BadInput(f"{shown(folder)} is no folder", remedy=REMEDY)
        config, weights = folder / CONFIG, sorted(folder.glob(f"*{WEIGHTS_SUFFIX}"))
        weights = [path for path in weights if path.is_file()]
        if not config.is_file() or not weights:
            raise BadInput(
                f"{shown(folder)} has no {f'*{WEIGHTS_SUFFIX}' if config.is_file() else CONFIG}",
                remedy=REMEDY,
            )
        optional = [path for name in (PREPROCESSOR, INDEX) if (path := folder / name).is_file()]
        files = {path.name: digest_of(path) for path in (config, *optional, *weights)}
    found = read_json(config)
    _refuse_strange(config, found)
    steps = read_json(folder / PREPROCESSOR) if PREPROCESSOR in files else {}
    return ImageModel(folder, found, steps, weights_digest(files))


def _refuse_strange(path: Path, config: Config) -> None:
    name = shown(path)
    if "auto_map" in config:
        raise BadInput(
            f"{name}: auto_map names code of the model's own, which is never run",
            remedy="use a model that the library transformers has itself",
        )
    if "quantization_config" in config:
        raise BadInput(f"{name}: the weights are quantised", remedy="use those in full precision")
    if not isinstance(config.get("model_type"), str):
        raise BadInput(f"{name}: no model_type, as models of the library transformers have")
