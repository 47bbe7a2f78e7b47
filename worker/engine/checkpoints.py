"""A checkpoint: everything needed to resume a training run bit for bit.

It holds the weights, the best weights so far, the optimisers' states and the run's `State`. Batches
and noise are pure functions of (seed, step), so no generator's state is stored. A validation that
was interrupted is in it too, with its weights, and is made when the run resumes.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from db.causes import Cause
from db.errors import BadInput
from worker.engine.device_errors import raise_of_device
from worker.engine.tensors import copy_tensors, read_tensors, write_tensors
from worker.networks.network import Network

Curves = dict[str, list[tuple[int, float]]]  # name -> (step, value) pairs
Optimizers = Mapping[str, torch.optim.Optimizer]


class BadCheckpoint(BadInput):
    """A checkpoint that this run cannot use: damaged, or of another run or another version."""

    cause = Cause.WORK
    lasting = True


@dataclass
class State:
    """Progress of a training run.

    `best_losses` are the validation losses at `best_step`, the step of the best (or last good)
    weights. `validating` are the steps of validations that are due and have not ended: at most the
    one before and that of this step. Field names are keys of the checkpoint file.
    """

    step: int = 0
    elapsed_s: float = 0.0
    marks: dict[str, tuple[int, int]] = field(default_factory=dict)  # see `Cadence.due`
    best_step: int = 0
    best_losses: dict[str, float] = field(default_factory=dict)
    roll_backs: int = 0
    validating: list[int] = field(default_factory=list)
    curves: Curves = field(default_factory=dict)


@dataclass(frozen=True)
class Snapshot:
    """The content of a checkpoint file; later training steps do not change it."""

    tensors: Mapping[str, Tensor]
    about: Mapping[str, Any]

    def write(self, path: Path) -> None:
        """Write the file atomically. Raises as `write_tensors`."""
        write_tensors(path, self.tensors, about=self.about)


@dataclass
class Checkpoint:
    """The parts of a run that are saved and restored.

    `best` holds the best weights if the family keeps the best, the last good ones if it rolls back,
    and is otherwise empty. `validated` holds the weights of an interrupted validation of an earlier
    step than this.
    """

    network: Network
    optimizers: Optimizers
    state: State
    best: dict[str, Tensor]
    validated: dict[str, Tensor] = field(default_factory=dict)

    def snapshot(self, *, fingerprint: str) -> "Snapshot":
        """A copy of all as it is now, on the CPU; `fingerprint` is `Training.fingerprint()`."""
        tensors = {f"weights/{name}": value for name, value in self.network.state_dict().items()}
        tensors |= {f"best/{name}": value for name, value in self.best.items()}
        tensors |= {f"validated/{name}": value for name, value in self.validated.items()}
        plain: dict[str, Any] = {}
        for name, optimizer in self.optimizers.items():
            parts, plain[name] = _flatten(optimizer.state_dict())
            tensors |= {f"optimizer/{name}/{key}": value for key, value in parts.items()}
        about = {"identity": fingerprint, "state": asdict(self.state), "optimizers": plain}
        return Snapshot(copy_tensors(tensors), about)

    def restore(self, path: Path, *, fingerprint: str) -> None:
        """Load the file into network, optimisers and state.

        Raises `BadCheckpoint` if it is damaged or was written by a run with another fingerprint;
        the parts are of no use then.
        """
        tensors, about = _read(path)
        if about.get("identity") != fingerprint:
            raise BadCheckpoint(
                f"checkpoint {path.name} is damaged, or of another training run or another genmill"
            )
        try:
            self._fill(tensors, about)
        except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise_of_device(error)
            complaint = " ".join(str(error).split())[:300]
            raise BadCheckpoint(f"checkpoint {path.name} does not fit: {complaint}") from error

    def _fill(self, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
        self.network.load_state_dict(_under("weights/", tensors))
        self.best = self._weights("best/", tensors)
        self.validated = self._weights("validated/", tensors)
        for name, optimizer in self.optimizers.items():
            parts = _under(f"optimizer/{name}/", tensors)
            optimizer.load_state_dict(_unflatten(parts, about["optimizers"][name]))
        state = about["state"]  # JSON has turned its tuples into lists
        state["curves"] = {name: [(s, v) for s, v in c] for name, c in state["curves"].items()}
        state["marks"] = {name: (period, step) for name, (period, step) in state["marks"].items()}
        self.state = State(**state)

    def _weights(self, prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Further weights of the network, or none; they are only loaded later."""
        found = _under(prefix, tensors)
        own = {name: tensor.shape for name, tensor in self.network.state_dict().items()}
        if found and {name: tensor.shape for name, tensor in found.items()} != own:
            raise ValueError(f"the tensors under {prefix} are not the network's")
        return found


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        return read_tensors(path)
    except BadInput as error:
        raise BadCheckpoint(error.message) from None


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): value
        for name, value in tensors.items()
        if name.startswith(prefix)
    }


def _flatten(optimizer: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Split an optimiser's state into tensors, named `parameter/key`, and JSON."""
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
