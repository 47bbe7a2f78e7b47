"""A version's folder: its weights, `config.json`, and what the family keeps beside them."""

import json
from pathlib import Path
from typing import Any

import torch

from db.errors import BadInput
from worker.data.dataset import Shape
from worker.engine.memory import require
from worker.engine.tensors import read_tensors, write_tensors
from worker.families import find_family, own_record
from worker.networks.family import Family
from worker.networks.network import Network
from worker.specs import parse_params

WEIGHTS = "model.safetensors"
WEIGHTS_SUFFIX = ".safetensors"
CONFIG = "config.json"
FORMAT = 1  # of config.json


def save(network: Network, folder: Path, *, family: Family) -> None:
    """Write a network's weights and configuration into `folder`; equal networks, equal bytes.

    Raises `NonFinite`, having written nothing, where a weight is NaN or infinite.
    """
    record = {
        "genmill": FORMAT,
        "family": family.name,
        "params": network.params.model_dump(mode="json"),
        "shape": network.shape.to_json(),
    }
    weights = folder / network.weights_file
    write_tensors(weights, network.state_dict(), about={"family": family.name})
    network.save_files(folder)
    text = json.dumps(network.describe(record), indent=2, sort_keys=True, ensure_ascii=False)
    (folder / CONFIG).write_text(text + "\n", encoding="utf-8")


def load(folder: Path, *, device: torch.device) -> tuple[Family, Network]:
    """Read a version's folder into a network in evaluation mode on `device`.

    Raises `NotFound` where its family is not installed, `BadInput` where a file is damaged.
    """
    config = read_config(folder)
    family = find_family(config["family"])
    params = parse_params(family.params, config["params"], what=f"{CONFIG} of {family.name}")
    network = family.network()(params, Shape.from_json(config["shape"]))
    fill(network, folder, device=device)
    network.load_files(folder)
    return family, network.to(device).eval()


def fill(network: Network, folder: Path, *, device: torch.device) -> None:
    """Put a folder's weights into a network of the same make, which will be on `device`.

    Raises `BadInput` where they do not fit.
    """
    remedy = "take a larger machine; a base may be held in fewer bytes (`genmill family show hf`)"
    require(network.opening_bytes(folder, device), device, what="holding the model", remedy=remedy)
    if not network.open(folder, device):
        return
    tensors, _ = read_tensors(folder / network.weights_file)
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        complaint = " ".join(str(error).split())[:300]
        raise BadInput(
            f"{network.weights_file} does not fit its configuration: {complaint}"
        ) from None


def read_config(folder: Path) -> dict[str, Any]:
    """Genmill's record in a version's `config.json`: `family`, `params` and `shape`.

    It is the whole file, or where that is another library's too, what lies under `genmill`.
    """
    path = folder / CONFIG
    try:
        config: dict[str, Any] = own_record(json.loads(path.read_text("utf-8")))
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
