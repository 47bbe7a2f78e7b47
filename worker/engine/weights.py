"""A version's folder: `model.safetensors`, `config.json`, and what the family keeps beside them."""

import json
from pathlib import Path
from typing import Any

import torch

from db.errors import BadInput
from worker.data.feed import Shape
from worker.engine.tensors import read_tensors, write_tensors
from worker.families import Family, find_family
from worker.families.network import Network
from worker.specs import parse_params

WEIGHTS = "model.safetensors"
CONFIG = "config.json"
FORMAT = 1  # of config.json


def save(network: Network, folder: Path, *, family: Family) -> None:
    """Write a network's weights and configuration into `folder`; equal networks, equal bytes.

    Raises `NonFinite`, having written nothing, where a weight is NaN or infinite.
    """
    config = {
        "genmill": FORMAT,
        "family": family.name,
        "params": network.params.model_dump(mode="json"),
        "shape": network.shape.to_json(),
    }
    write_tensors(folder / WEIGHTS, network.state_dict(), about={"family": family.name})
    text = json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False)
    (folder / CONFIG).write_text(text + "\n", encoding="utf-8")


def load(folder: Path, *, device: torch.device) -> tuple[Family, Network]:
    """Read a version's folder into a network in evaluation mode on `device`.

    Raises `NotFound` where its family is not installed, `BadInput` where a file is damaged.
    """
    config = read_config(folder)
    family = find_family(config["family"])
    params = parse_params(family.params, config["params"], what=f"{CONFIG} of {family.name}")
    network = family.network()(params, Shape.from_json(config["shape"]))
    fill(network, folder)
    network.load_files(folder)
    return family, network.to(device).eval()


def fill(network: Network, folder: Path) -> None:
    """Put a folder's weights into a network of the same make; `BadInput` where they do not fit."""
    tensors, _ = read_tensors(folder / WEIGHTS)
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        complaint = " ".join(str(error).split())[:300]
        raise BadInput(f"{WEIGHTS} does not fit its configuration: {complaint}") from None


def read_config(folder: Path) -> dict[str, Any]:
    """The configuration of a version's folder: `family`, `params` and `shape`."""
    path = folder / CONFIG
    try:
        config: dict[str, Any] = json.loads(path.read_text("utf-8"))
        version = config["genmill"]
        missing = [key for key in ("family", "params", "shape") if key not in config]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{path.name} is not a model's configuration: {error!r}") from None
    if version != FORMAT or missing:
        raise BadInput(
            f"{path.name} has format {version!r} and lacks {missing}; this Genmill reads format "
            f"{FORMAT} with family, params and shape"
        )
    return config
