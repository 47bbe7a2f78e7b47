"""How much memory work needs, estimated before it starts, and how much the device has left.

A copy of the network takes a training step on four rows and on two. The memory held after each
allocation is linear in the number of rows, so the two traces give the peak for any number of rows.
Kernels' own workspaces are not seen; a margin is added for them.
"""

import weakref
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from db.errors import ShortOfMemory, TooLarge
from worker.data.dataset import Shape
from worker.engine.device import autocast
from worker.networks.network import Batch, Clock, Network
from worker.networks.params import TrainingParams

STEP_ROWS, FORWARD_ROWS = 4, 2  # measured, and half as many; a training step needs at least two
MARGIN = 1.2  # for kernels' workspaces and the allocator's rounding
MEMINFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")
UNLIMITED = 2**62

# (allocations, 2): the bytes held after each allocation, fixed and per row of data
Trace = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Footprint:
    """Memory of a run: what it holds throughout, and traces of a training step and a forward pass.

    The forward pass is that of a validation, and stands for generation as well.
    """

    resident_bytes: int
    step: Trace
    forward: Trace

    def training_bytes(self, rows: int) -> int:
        """Peak bytes of training on `rows` rows at once, margin included."""
        fixed, per_row = self.step.T
        return int(MARGIN * (self.resident_bytes + int((fixed + rows * per_row).max(initial=0))))

    @property
    def row_bytes(self) -> int:
        """The most bytes that one more row adds to a forward pass, margin included."""
        return int(MARGIN * int(self.forward[:, 1].max(initial=0)))


class AllocationTrace(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves it untyped
    """Records the bytes held by tensors that operations allocate while it is active."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # as above
        self.current_bytes = 0
        self.trace = [0]
        self._seen: set[int] = set()

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run the operation and record the storages that it allocated."""
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self._record(tensor.untyped_storage())
        return result

    def _record(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._seen:
            return
        self._seen.add(key)
        self.current_bytes += size
        self.trace.append(self.current_bytes)
        weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.current_bytes -= size


def footprint(network: Network, batch: Batch, *, precision: str) -> Footprint:
    """Measure a training step and a validation of a copy of `network` on a few rows of `batch`."""
    kept = network.keeps_best or network.rolls_back  # a second copy of the weights
    resident = weight_bytes(network) * (2 if kept else 1)
    with autocast(batch.data.device, precision):
        step = _trace(_step_bytes, network, batch, rows=STEP_ROWS)
        forward = _trace(_forward_bytes, network, batch, rows=FORWARD_ROWS)
    return Footprint(resident, step, forward)


def beside_bytes(network: Network, found: Footprint, held_out: Batch) -> int:
    """Bytes of a copy of the network and of its validation, which run beside training on a CPU."""
    if held_out.data.device.type != "cpu":
        return 0
    return weight_bytes(network) + len(held_out.data) * found.row_bytes


def _trace(
    measure: Callable[[Network, Batch], npt.NDArray[np.int64]],
    network: Network,
    batch: Batch,
    *,
    rows: int,
) -> Trace:
    """Measure on `rows` rows and on half as many, and fit a line through each allocation's two."""
    more = min(rows, len(batch.data))
    few = rows // 2 if more == rows else 0
    large = measure(network, _first(batch, more))
    small = measure(network, _first(batch, few)) if few else np.zeros_like(large)
    if len(small) != len(large):  # control flow depends on the data: only the peaks compare
        small, large = small.max(keepdims=True), large.max(keepdims=True)
    per_row = (large - small) // (more - few)
    return np.stack([small - few * per_row, per_row], axis=1)


def _step_bytes(network: Network, batch: Batch) -> npt.NDArray[np.int64]:
    """Bytes held after each allocation of a training step of every stage, besides the weights."""
    copy = copy_network(network, batch.data.device).train()
    optimizers = copy.optimizers()
    with AllocationTrace() as allocated:
        for progress in network.stages:
            copy.train_step(batch, optimizers, Clock(progress=progress))
    return np.array(allocated.trace, dtype=np.int64)


def _forward_bytes(network: Network, batch: Batch) -> npt.NDArray[np.int64]:
    """Bytes held after each allocation of a validation, besides the weights."""
    with torch.inference_mode(), AllocationTrace() as allocated:
        copy_network(network, batch.data.device).eval().validate(batch)
    return np.array(allocated.trace, dtype=np.int64)


def copy_network(network: Network, device: torch.device) -> Network:
    """A copy with weights of its own; frozen ones may be shared."""
    # deepcopy splits a recurrent layer's flattened weights; moving flattens them again for cuDNN
    return deepcopy(network).to(device)


def _first(batch: Batch, rows: int) -> Batch:
    labels = None if batch.labels is None else batch.labels[:rows]
    return Batch(batch.data[:rows], labels, batch.draw)


def network_bytes(make: type[Network], params: TrainingParams, shape: Shape) -> int:
    """Bytes of a network in training without activations: weights, gradients, Adam's two moments.

    It is built on PyTorch's `meta` device, where tensors take no memory.
    """
    with torch.device("meta"):
        return 4 * weight_bytes(make(params, shape))


def weight_bytes(network: torch.nn.Module) -> int:
    """Bytes of a network's parameters and buffers."""
    return sum(value.numel() * value.element_size() for value in network.state_dict().values())


def free_bytes(device: torch.device) -> int:
    """Bytes that this process can still allocate on `device`.

    On a GPU the driver's figure and PyTorch's unused cache; on a CPU the smaller of the kernel's
    estimate and what the control group (a container's limit) allows.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return min(_meminfo_bytes("MemAvailable"), _cgroup_bytes())


def total_bytes(device: torch.device) -> int:
    """Bytes that a process alone on this machine could allocate on `device`, at most."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return min(_meminfo_bytes("MemTotal"), _cgroup_limit())


def require(needed_bytes: int, device: torch.device, *, what: str, remedy: str) -> None:
    """Raise an error with both figures and the remedy if the bytes are not free.

    `TooLarge` if this machine never has as many, else `ShortOfMemory`: another process has them.
    """
    needs = f"{what} needs about {to_gb(needed_bytes)} of memory; {device} has"
    if needed_bytes > (total := total_bytes(device)):
        raise TooLarge(f"{needs} {to_gb(total)} in all", remedy=remedy)
    if needed_bytes > (free := free_bytes(device)):
        raise ShortOfMemory(f"{needs} {to_gb(free)} left", remedy=f"free some, or {remedy}")


def to_gb(size: float) -> str:
    """Format bytes in decimal units: `1.3 GB`."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def _meminfo_bytes(field: str) -> int:
    """A field of the kernel's account of memory; `UNLIMITED` if it does not tell."""
    fields = dict(line.split(":", 1) for line in MEMINFO.read_text().splitlines())
    return int(fields[field].split()[0]) * 1024 if field in fields else UNLIMITED


def _cgroup_limit() -> int:
    """The limit of the control group (cgroup v2); `UNLIMITED` without one."""
    try:
        limit = (CGROUP / "memory.max").read_text().strip()
    except OSError:
        return UNLIMITED
    return UNLIMITED if limit == "max" else int(limit)


def _cgroup_bytes() -> int:
    """What the control group has left; `UNLIMITED` without a limit."""
    limit = _cgroup_limit()
    try:
        used = int((CGROUP / "memory.current").read_text())
        stat = (CGROUP / "memory.stat").read_text()
    except OSError:
        return UNLIMITED
    cached = dict(line.split(" ", 1) for line in stat.splitlines()).get("inactive_file", "0")
    return UNLIMITED if limit == UNLIMITED else limit - used + int(cached)
