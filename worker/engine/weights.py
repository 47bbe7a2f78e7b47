"""Saving a network as a version's folder, and loading it again."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch

from db.errors import BadInput
from worker.data.dataset import Shape
from worker.engine.device_errors import raise_of_device
from worker.engine.memory import require
from worker.engine.tensors import read_tensors, write_tensors
from worker.families import find_family
from worker.networks.family import Family
from worker.networks.formats import Migration
from worker.networks.network import Network
from worker.networks.version_folder import CONFIG, format_of, new_record, read_record


def save(network: Network, folder: Path, *, family: Family) -> None:
    """Write a network's weights and configuration into `folder`; equal networks give equal bytes.

    Raises `NonFinite`, having written nothing, where a weight is NaN or infinite.
    """
    record = new_record(
        family=family.name,
        number=family.format,
        params=network.params.model_dump(mode="json"),
        shape=network.shape.to_json(),
    )
    weights = folder / network.weights_file
    write_tensors(weights, network.state_dict(), about={"family": family.name})
    network.save_files(folder)
    text = json.dumps(network.describe(record), indent=2, sort_keys=True, ensure_ascii=False)
    (folder / CONFIG).write_text(text + "\n", encoding="utf-8")


def load(folder: Path, *, device: torch.device) -> tuple[Family, Network]:
    """Read a version's folder into a network in evaluation mode on `device`.

    An older format is migrated. Raises `NotFound` where its family is not installed,
    `NotSupportedHere` where another Genmill made it that this one cannot follow, and `BadInput`
    where a file is damaged.
    """
    record = read_record(folder)
    family = find_family(record["family"])
    what = f"{CONFIG} of {family.name}"
    params = family.read_params(record, what=what)
    network = family.network()(params, Shape.from_json(record["shape"]))
    fill(network, folder, family.steps_from(format_of(record), what=what), device=device)
    network.load_files(folder)
    return family, network.to(device).eval()


def fill(
    network: Network, folder: Path, steps: Sequence[Migration] = (), *, device: torch.device
) -> None:
    """Load a folder's weights into a network of the same form that will be on `device`.

    `steps` are the migrations that the folder has still to make.

    Raises `BadInput` where they do not fit, and as `memory.require` where memory is short.
    """
    needed = network.bytes_to_load(folder, device)
    require(needed, device, what="holding the model", remedy=network.memory_remedy)
    if not network.open(folder, device):
        return
    tensors, _ = read_tensors(folder / network.weights_file)
    for step in steps:
        tensors = {step.rename(name): tensor for name, tensor in tensors.items()}
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise_of_device(error)
        complaint = " ".join(str(error).split())[:300]
        raise BadInput(
            f"{network.weights_file} does not fit its configuration: {complaint}"
        ) from None
