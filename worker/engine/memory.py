"""How much memory work will take, found before it starts, and what the device has left.

A training is measured by two steps of a copy of its network, on four rows and on two: what a moment
of the step holds grows by the same bytes with each row, and so its greatest moment with all rows is
known. Kernels' own working space is not seen; a share is added for it.
"""

import weakref
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from db.errors import TooLarge
from worker.data.dataset import Shape
from worker.engine.device import autocast
from worker.networks.network import Batch, Clock, Network
from worker.networks.params import TrainingParams

STEP_ROWS, FORWARD_ROWS = 4, 2  # measured, and half of them: a training step wants two at least
MARGIN = 1.2  # for what is not seen: kernels' working space, the allocator's rounding
MEMINFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")


# a row for each moment of some work: its own bytes, and those that a row of data adds to it
Moments = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Footprint:
    """Bytes that a run takes: what lasts, and the moments of a training step and of a validation.

    A validation stands for generation: it holds what a forward holds, and keeps nothing for a
    backward.
    """

    lasting_bytes: int
    step: Moments
    forward: Moments

    def training_bytes(self, rows: int) -> int:
        """Bytes of training on `rows` rows at once, margin included."""
        own, row = self.step.T
        return int(MARGIN * (self.lasting_bytes + int((own + rows * row).max(initial=0))))

    @property
    def row_bytes(self) -> int:
        """The most that one more row adds to a forward, margin included."""
        return int(MARGIN * int(self.forward[:, 1].max(initial=0)))


Work = Callable[[Network, Batch], npt.NDArray[np.int64]]


class Allocated(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves it untyped
    """Counts the bytes of the tensors that operations make while it is active."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # as above
        self.now_bytes = 0
        self.trace = [0]
        self._seen: set[int] = set()

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run the operation and note the storages that it made."""
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor):
                self._note(tensor.untyped_storage())
        return made

    def _note(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._seen:
            return
        self._seen.add(key)
        self.now_bytes += size
        self.trace.append(self.now_bytes)
        weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.now_bytes -= size


def footprint(network: Network, batch: Batch, *, precision: str) -> Footprint:
    """Measure the training and the validation of a copy of `network` on a few rows of `batch`."""
    kept = network.keeps_best or network.rolls_back  # a copy of the weights that lasts
    lasting = weight_bytes(network) * (2 if kept else 1)
    with autocast(batch.data.device, precision):
        step = _moments(_step, network, batch, rows=STEP_ROWS)
        forward = _moments(_forward, network, batch, rows=FORWARD_ROWS)
    return Footprint(lasting, step, forward)


def _moments(work: Work, network: Network, batch: Batch, *, rows: int) -> Moments:
    """What `work` holds besides the weights, from moment to moment."""
    more = min(rows, len(batch.data))
    few = rows // 2 if more == rows else 0
    large = work(network, _first(batch, more))
    small = work(network, _first(batch, few)) if few else np.zeros_like(large)
    if len(small) != len(large):  # the work's course depends on its data
        small, large = small.max(keepdims=True), large.max(keepdims=True)
    row = (large - small) // (more - few)
    return np.stack([small - few * row, row], axis=1)


def _step(network: Network, batch: Batch) -> npt.NDArray[np.int64]:
    """Bytes held after each allocation of a training step, of each stage one."""
    copy = _copied(network, batch.data.device).train()
    optimizers = copy.optimizers()
    with Allocated() as allocated:
        for progress in network.stages:
            copy.train_step(batch, optimizers, Clock(progress=progress))
    return np.array(allocated.trace, dtype=np.int64)


def _forward(network: Network, batch: Batch) -> npt.NDArray[np.int64]:
    """Bytes held after each allocation of a validation."""
    with torch.inference_mode(), Allocated() as allocated:
        _copied(network, batch.data.device).eval().validate(batch)
    return np.array(allocated.trace, dtype=np.int64)


def _copied(network: Network, device: torch.device) -> Network:
    # moving a recurrent layer puts its weights into one piece, as cuDNN wants; copying undoes it
    return deepcopy(network).to(device)


def _first(batch: Batch, rows: int) -> Batch:
    labels = None if batch.labels is None else batch.labels[:rows]
    return Batch(batch.data[:rows], labels, batch.draw)


def network_bytes(make: type[Network], params: TrainingParams, shape: Shape) -> int:
    """Bytes of a network that is trained, nothing else: weights, gradients, Adam's two averages.

    Found on PyTorch's `meta` device, where a network of any size takes none.
    """
    with torch.device("meta"):
        return 4 * weight_bytes(make(params, shape))


def weight_bytes(network: torch.nn.Module) -> int:
    """Bytes of all that a network keeps."""
    return sum(value.numel() * value.element_size() for value in network.state_dict().values())


def free_bytes(device: torch.device) -> int:
    """Bytes that this process may still take on `device`.

    A GPU's by its driver, with what PyTorch holds unused; a machine's by the kernel's estimate and
    the limit of the control group, as containers set it.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return min(_available_bytes(), _group_bytes())


def require(needed_bytes: int, device: torch.device, *, what: str, remedy: str) -> None:
    """Refuse what cannot fit: `TooLarge` with both numbers and the remedy."""
    free = free_bytes(device)
    if needed_bytes > free:
        raise TooLarge(
            f"{what} needs about {to_gb(needed_bytes)} of memory, and {device} has {to_gb(free)} "
            f"left: {remedy}"
        )


def to_gb(size: float) -> str:
    """Bytes as people read them, in units of 1,000: `1.3 GB`."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def _available_bytes() -> int:
    fields = dict(line.split(":", 1) for line in MEMINFO.read_text().splitlines())
    return int(fields["MemAvailable"].split()[0]) * 1024


def _group_bytes() -> int:
    """What is left to the control group (cgroup v2), or a number beyond any machine's."""
    try:
        limit = (CGROUP / "memory.max").read_text().strip()
        used = int((CGROUP / "memory.current").read_text())
        cached = _field((CGROUP / "memory.stat").read_text(), "inactive_file")
    except OSError:
        return 2**62
    return 2**62 if limit == "max" else int(limit) - used + cached


def _field(text: str, name: str) -> int:
    fields: Mapping[str, str] = dict(line.split(" ", 1) for line in text.splitlines())
    return int(fields.get(name, "0"))
