"""Whether a version's tensors are those of the network that its record declares, by their shapes.

The network is built on PyTorch's `meta` device, where tensors take no memory.
"""

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache

import torch

from db.errors import BadInput, GenmillError, raise_outage
from worker.data.dataset import Shape
from worker.families import find_family
from worker.networks.version_folder import CONFIG, Config, format_of

Shapes = Mapping[str, Sequence[int]]


def refuse_other_tensors(record: Config, shapes: Shapes) -> None:
    """Raise `BadInput` unless the network of a version's `record` has exactly these tensors."""
    family = find_family(record["family"])
    steps = family.steps_from(format_of(record), what=CONFIG)
    found = {}
    for tensor, shape in shapes.items():
        name = tensor
        for step in steps:
            name = step.rename(name)
        found[name] = tuple(shape)
    wanted = _shapes_of(json.dumps(record, sort_keys=True))
    if found != wanted:
        raise BadInput(
            f"the weights do not fit {family.name} as it is here: {_difference(found, wanted)}",
            remedy="use the genmill that made it, or train the model again",
        )


@lru_cache(maxsize=64)
def _shapes_of(record_json: str) -> dict[str, tuple[int, ...]]:
    record = json.loads(record_json)
    family = find_family(record["family"])
    try:
        params = family.read_params(record, what=CONFIG)
        with torch.device("meta"):
            network = family.network()(params, Shape.from_json(record["shape"]))
    except GenmillError:
        raise
    except Exception as error:  # of a record that no Genmill has written
        raise_outage(error)
        complaint = " ".join(str(error).split())[:300]
        raise BadInput(f"{CONFIG} is of no network: {type(error).__name__}: {complaint}") from error
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


def _difference(found: Shapes, wanted: Shapes) -> str:
    """The first difference, and how many there are."""
    differ = sorted(
        name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name)
    )
    first, more = differ[0], f", and {len(differ) - 1} more" if len(differ) > 1 else ""
    if first not in found:
        return f"{first} is missing{more}"
    if first not in wanted:
        return f"{first} is not part of it{more}"
    return f"{first} has shape {list(found[first])}, not {list(wanted[first])}{more}"
