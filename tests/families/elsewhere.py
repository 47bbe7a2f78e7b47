"""A device that is not the CPU, imitated on the CPU.

Its tensors claim to be on `meta`, where PyTorch computes nothing itself; their numbers are on the
CPU. As on a GPU, an operation on tensors of both devices is an error, except for copies, single
numbers and indices from the CPU, and numbers can be read only after a copy to the CPU.
"""

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.optim import optimizer
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

ELSEWHERE = torch.device("meta")
CPU = torch.device("cpu")

aten = torch.ops.aten
COPIES = {aten._to_copy.default, aten.copy_.default}
INDEXING = {aten.index.Tensor, aten.index_put_.default, aten._index_put_impl_.default}
FUSED = optimizer._get_fused_kernels_supported_devices


class Elsewhere(Tensor):
    """A tensor of the imitated device; `here` holds its numbers."""

    here: Tensor
    is_meta = False  # True would mean that there are no numbers

    @staticmethod
    def __new__(cls, here: Tensor) -> "Elsewhere":
        made: Elsewhere = Tensor._make_wrapper_subclass(
            cls,
            here.size(),
            strides=here.stride(),
            storage_offset=here.storage_offset(),
            dtype=here.dtype,
            device=ELSEWHERE,
        )
        made.here = here
        return made

    def tolist(self) -> Any:
        return self.cpu().tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, _: Any, args: Any = (), kwargs: Any = None) -> Any:
        return compute(func, args, kwargs or {})


class Imitation(TorchDispatchMode):
    """Makes new tensors on the imitated device where they are asked for there."""

    def __torch_dispatch__(self, func: Any, _: Any, args: Any = (), kwargs: Any = None) -> Any:
        return compute(func, args, kwargs or {})


def compute(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Compute an operation on the CPU; `AssertionError` if its tensors are on both devices."""
    tensors = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
    away = [tensor for tensor in tensors if isinstance(tensor, Elsewhere)]
    if away and func not in COPIES:
        _require_one_device(func, tensors, args)
    asked = kwargs.get("device")
    goes = bool(away) if asked is None else torch.device(asked).type == ELSEWHERE.type
    args, kwargs = tree_map_only(Elsewhere, lambda tensor: tensor.here, (args, kwargs))
    made = func(*args, **(kwargs if asked is None else kwargs | {"device": CPU}))
    known = {
        id(tensor.here): tensor for tensor in away
    }  # a tensor changed in place stays the same object

    def wrapped(tensor: Tensor) -> Tensor:
        return known[id(tensor)] if id(tensor) in known else Elsewhere(tensor)

    return tree_map_only(Tensor, wrapped, made) if goes else made


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[torch.device]:
    """A device that is not the CPU. What PyTorch does only for `meta` is undone meanwhile."""
    tensor, autocast, fused = torch.tensor, torch.autocast, FUSED()
    with CPU:  # PyTorch lists once which functions make tensors; ours must not be listed
        torch.empty(0)

    def move(data: Any, *, device: Any = None, **given: Any) -> Tensor:
        return tensor(data, device=CPU, **given).to(device or CPU)

    def cast(kind: str, **given: Any) -> Any:
        return nullcontext() if kind == ELSEWHERE.type else autocast(kind, **given)

    monkeypatch.setattr(torch, "tensor", move)
    monkeypatch.setattr(torch, "autocast", cast)
    monkeypatch.setattr(torch, "inference_mode", torch.no_grad)  # its tensors would lack a version
    monkeypatch.setattr(optimizer, FUSED.__name__, lambda: [*fused, ELSEWHERE.type])
    with Imitation():
        yield ELSEWHERE


def _require_one_device(func: Any, tensors: list[Tensor], args: tuple[Any, ...]) -> None:
    indices = tree_leaves(args[1]) if func in INDEXING and isinstance(args[0], Elsewhere) else []
    free = {id(index) for index in indices}
    mixed = [t for t in tensors if not isinstance(t, Elsewhere) and t.ndim and id(t) not in free]
    assert not mixed, f"{func} of tensors on the device and of {len(mixed)} on the CPU"
