"""A training run in one file, from which it goes on bit for bit.

Holds the weights, the best weights so far, the optimisers' states and the run's `State`. Batches
and noise are pure functions of (seed, step), so the step is all that is kept of them.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from db.errors import BadInput
from worker.engine.tensors import read_tensors, write_tensors
from worker.networks.network import Network

Curves = dict[str, list[tuple[int, float]]]  # name -> (step, value) pairs
Optimizers = Mapping[str, torch.optim.Optimizer]


@dataclass
class State:
    """Where a training run is. `best` is the lowest headline loss and `best_losses` its company."""

    step: int = 0
    elapsed_s: float = 0.0
    marks: dict[str, tuple[int, int]] = field(default_factory=dict)  # see budget.Cadence
    best_step: int = 0
    best_losses: dict[str, float] = field(default_factory=dict)
    roll_backs: int = 0
    curves: Curves = field(default_factory=dict)


@dataclass
class Checkpoint:
    """All that a run needs to go on.

    `best` holds the best weights where the family keeps the best, the last good ones where it rolls
    back, else nothing.
    """

    network: Network
    optimizers: Optimizers
    state: State
    best: dict[str, Tensor]

    def save(self, path: Path, *, identity: str) -> None:
        """Write the file whole or not at all; `identity` is the hash of what the run was asked."""
        tensors = {f"weights/{name}": value for name, value in self.network.state_dict().items()}
        tensors |= {f"best/{name}": value for name, value in self.best.items()}
        plain: dict[str, Any] = {}
        for name, optimizer in self.optimizers.items():
            parts, plain[name] = _flatten(optimizer.state_dict())
            tensors |= {f"optimizer/{name}/{key}": value for key, value in parts.items()}
        about = {"identity": identity, "state": asdict(self.state), "optimizers": plain}
        write_tensors(path, tensors, about=about)

    def restore(self, path: Path, *, identity: str) -> None:
        """Read the file into network, optimisers and state.

        Raises `BadInput` where it is damaged or belongs to a run that was asked something else.
        """
        tensors, about = read_tensors(path)
        if about.get("identity") != identity:
            raise BadInput(f"checkpoint {path.name} is damaged or belongs to another training run")
        self.network.load_state_dict(_under("weights/", tensors))
        self.best = _under("best/", tensors)
        for name, optimizer in self.optimizers.items():
            parts = _under(f"optimizer/{name}/", tensors)
            optimizer.load_state_dict(_unflatten(parts, about["optimizers"][name]))
        self.state = _state(about["state"])


def check(path: Path) -> int:
    """The step of a checkpoint file; raises `BadInput` where the file is damaged or is none."""
    _, about = read_tensors(path)
    if not {"identity", "state", "optimizers"} <= about.keys():
        raise BadInput(f"{path.name} is not a checkpoint")
    return int(about["state"]["step"])


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): value
        for name, value in tensors.items()
        if name.startswith(prefix)
    }


def _flatten(optimizer: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Part an optimiser's state into tensors, by `parameter/key`, and JSON."""
    tensors: dict[str, Tensor] = {}
    plain: dict[str, Any] = {}
    for index, values in optimizer["state"].items():
        for key, value in values.items():
            if isinstance(value, Tensor):
                tensors[f"{index}/{key}"] = value
            else:
                plain[f"{index}/{key}"] = value
    return tensors, {"state": plain, "param_groups": optimizer["param_groups"]}


def _unflatten(tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> dict[str, Any]:
    state: dict[int, dict[str, Any]] = {}
    for name, value in {**about["state"], **tensors}.items():
        index, _, key = name.partition("/")
        state.setdefault(int(index), {})[key] = value
    return {"state": state, "param_groups": about["param_groups"]}


def _state(data: dict[str, Any]) -> State:
    """A state from JSON, which knows lists but no tuples."""
    curves = {name: [(s, v) for s, v in points] for name, points in data["curves"].items()}
    marks = {name: (mark, step) for name, (mark, step) in data["marks"].items()}
    return State(**(data | {"curves": curves, "marks": marks}))
